"""`jaxunlearn unlearn` by what only withholds, and by replay, as a user runs them."""

import json

import jax
import numpy as np
import pytest

from jaxunlearn.models import load_pretrained
from jaxunlearn.unlearning import load_wrapper


@pytest.fixture(scope="module")
def unlearn(learned, tmp_path_factory):
    """Unlearn one person by a method; returns the exit status and the folder."""
    from jaxunlearn.cli import main

    folder, _ = learned

    def run(method, *options):
        out = tmp_path_factory.mktemp("out") / method
        command = (
            *("unlearn", method, "--model", folder / "run" / "model", "--out", out),
            *("--retain", folder / "retain.json", *options),
        )
        with pytest.raises(SystemExit) as status:
            main([str(argument) for argument in command])
        return status.value.code, out

    return run


@pytest.mark.slow
def test_a_wrapper_is_written_and_evaluated(learned, unlearn, cli, tmp_path, capsys):
    folder, name = learned
    strong = ("--learning-rate", 3e-2, "--alpha", 2, "--epochs", 3)
    status, out = unlearn("whp", "--forget", folder / "forget.json", *strong)
    assert status == 0
    printed = capsys.readouterr().out
    assert "suppresses at inference" in printed
    # It goes to no target, and none was asked for.
    assert "No target was set; at forget loss" in printed
    assert "arget 0" not in printed.replace("No target", "")
    told = json.loads((out / "unlearning.json").read_text())
    losses = told["losses"]
    assert not told["removes"]
    assert told["target"] is None
    short = ("whp", "--forget", folder / "forget.json", *strong, "--target", 50)
    status, far = unlearn(*short)
    printed = " ".join(capsys.readouterr().out.split())
    assert status == 0
    assert "Target 50.0000 (given). Applied in full, which falls short" in printed
    assert "Warning: The target is not met" in printed
    assert "No target" not in printed
    assert "The target is not met" in (far / "README.md").read_text()
    assert losses["after"]["forget"] > losses["before"]["forget"] + 0.1
    card = (out / "README.md").read_text()
    assert "was not removed" in card
    assert name not in card
    _, before = load_pretrained(folder / "run" / "model")
    task, params = load_wrapper(out)
    assert task.alpha == 2
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True)
    )
    scores = tmp_path / "scores.json"
    status = cli(
        *("evaluate", "--model", out, "--original", folder / "run" / "model"),
        *("--forget", folder / "forget.json", "--retain", folder / "retain.json"),
        *("--out", scores, "--max-new-tokens", 4),
    )
    assert status == 0
    found = json.loads(scores.read_text())
    # Of its 128 positions, not of the longest record's, so only nearly the same.
    assert np.mean(found["losses"]["forget"]) == pytest.approx(
        losses["after"]["forget"], rel=1e-4
    )
    assert found["forget_loss"] > found["original"]["scores"]["forget_loss"] + 0.1
    assert [row["parameter_distance"] for row in found["layers"]] == [0.0] * 5


@pytest.mark.slow
def test_the_price_of_a_replay_is_told_before_it(learned, unlearn, capsys):
    folder, _ = learned
    status, out = unlearn("exact_replay", "--run", folder / "run", "--ids", 0, 1)
    assert status == 0
    printed = " ".join(capsys.readouterr().out.split())
    told = json.loads((out / "unlearning.json").read_text())["details"]
    steps, again = told["steps"], told["steps_replayed"]
    said = f"{again} of the run's {steps} steps are taken again"
    assert printed.index(said) < printed.index("Mean loss")
    assert told["steps_saved"] == steps - again
