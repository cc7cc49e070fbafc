"""`jaxunlearn train` and `jaxunlearn unlearn` on files, as a user runs them."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.cli import main
from jaxunlearn.data import read_records
from jaxunlearn.models import load_pretrained
from jaxunlearn.unlearning import METHODS, Method, Outcome, Status
from jaxunlearn.unlearning.edits import one_by_one


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    return status.value.code


def unlearn(learned, out, *options):
    folder, _ = learned
    return run(
        *("unlearn", "--model", folder / "run" / "model"),
        *("--retain", folder / "retain.json", "--out", out, *options),
    )


def changed(learned, out):
    _, before = load_pretrained(learned[0] / "run" / "model")
    _, after = load_pretrained(out)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    return sorted(name for name, equal in tree.named_leaves(same) if not equal)


FREE = ("--max-retain-increase", "none", "--target")


def test_a_request_in_words_is_forgotten_on_the_embedding_alone(learned, tmp_path):
    folder, name = learned
    options = ("--method", "first_epoch", "--run", folder / "run")
    status = unlearn(
        *(learned, tmp_path, *options, "--request", f"all about {name}", *FREE),
        "unseen",
        *("--unseen", folder / "unseen.json"),
    )
    assert status == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    assert [m["index"] for m in told["matched"]] == [0, 1, 2]
    assert told["losses"]["before"]["forget"] < told["target"]["forget_loss"]
    after = told["losses"]["after"]["forget"]
    assert after == pytest.approx(told["target"]["forget_loss"], rel=2e-3)
    assert changed(learned, tmp_path) == ["wte/embedding"]
    assert [c["leaf"] for c in told["changed"]] == ["wte/embedding"]
    assert {"jax", "jaxunlearn"} <= set(told["versions"])


def test_file_words_and_positions_name_the_same_examples(learned, tmp_path):
    folder, name = learned
    ways = {
        "file": ("--forget", folder / "forget.json"),
        "words": ("--request", f"please forget {name}"),
        "positions": ("--ids", 0, 1, 2),
    }
    models = []
    for way, named in ways.items():
        out = tmp_path / way
        options = ("--method", "first_epoch", "--run", folder / "run", *named)
        assert unlearn(learned, out, *options, *FREE, "before") == 0
        models.append((out / "model.safetensors").read_bytes())
    assert models[0] == models[1] == models[2]


def test_iterative_mode_reaches_the_target(learned, tmp_path):
    folder, _ = learned
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0, 1)
    # A model that has learned this little gets there by both parts only.
    tied = ("--mode", "iterative", "--part", "tied")
    assert unlearn(learned, tmp_path, *options, *tied, *FREE, "before") == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    target = told["target"]["forget_loss"]
    assert told["losses"]["after"]["forget"] >= target * (1 - 1e-6)


def test_iterative_mode_keeps_to_the_part_when_gradients_are_fresh(
    learned, tmp_path, monkeypatch
):
    def look(params, *, fresh_direction, **_):
        way = fresh_direction(params, 0)["wte"]["embedding"]
        moved = np.any(np.asarray(way) != 0, axis=1)
        assert 0 < moved.sum() < 100  # the output part would move every row
        return Outcome(params, Status.ROUNDS, 0)

    monkeypatch.setattr(one_by_one, "iterative_first_epoch", look)
    options = ("--method", "first_epoch", "--run", learned[0] / "run", "--ids", 0)
    fresh = ("--mode", "iterative", "--part", "input", *FREE, "before")
    assert unlearn(learned, tmp_path, *options, *fresh) == 1


def test_gradient_ascent_needs_no_run(learned, tmp_path):
    folder, _ = learned
    options = ("--method", "gradient_ascent", "--forget", folder / "forget.json")
    assert unlearn(learned, tmp_path, *options) == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    losses = told["losses"]
    rise = losses["after"]["forget"] - losses["before"]["forget"]
    assert rise == pytest.approx(1.0, abs=0.02)
    assert len(changed(learned, tmp_path)) == 16  # every leaf


def test_layers_and_part_choose_what_changes(learned, tmp_path):
    folder, _ = learned
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0)
    out = tmp_path / "block"
    status = unlearn(
        learned,
        out,
        *options,
        "--layers",
        "h/1/mlp",
        "--scale",
        "1e-3",
        *FREE,
        "before",
    )
    assert status == 0
    told = json.loads((out / "unlearning.json").read_text())
    assert told["status"] == "given_scale"
    assert told["scale"] == 1e-3
    assert all(c["leaf"].startswith("h/1/mlp/") for c in told["changed"])
    out = tmp_path / "rows"
    if unlearn(learned, out, *options, "--part", "input", *FREE, "before") == 0:
        _, before = load_pretrained(folder / "run" / "model")
        _, after = load_pretrained(out)
        moved = np.any(before["wte"]["embedding"] != after["wte"]["embedding"], axis=1)
        assert 0 < moved.sum() < 100  # rows of the example's own tokens


def test_a_target_beyond_the_retain_limit_is_refused(learned, tmp_path, capsys):
    folder, _ = learned
    out = tmp_path / "out"
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0)
    status = unlearn(
        learned, out, *options, "--target", "50", "--max-retain-increase", "0.1%"
    )
    assert status == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "Refused" in printed
    assert "--max-retain-increase (0.1 % of the retain loss) is passed: at" in printed
    assert "Within the limits one could go so far: at forget loss" in printed
    assert "max_retain" not in printed
    assert "No model was written" in printed
    assert not out.exists()
    told = json.loads((tmp_path / "out.refused.json").read_text())
    # The losses before stand beside those of what was tried, not beside themselves.
    head = printed.split("Refused")[0]
    assert "tried, not kept" in head
    assert any(f"{trial['forget']:.4g}" in head for trial in told["trials"])
    assert (told["status"], told["changed"]) == ("retain_limit", [])


def test_an_objective_is_taken_to_the_target_and_its_cost_is_told(learned, tmp_path):
    folder, _ = learned
    ask = ("npo", "--forget", folder / "forget.json", "--beta", "0.5", "--epochs", "9")
    folder_of_work = ("--work", tmp_path / "work", "--learning-rate", "1e-3")
    retain = ("--retain", folder / "retain.json", "--out", tmp_path / "out")
    model = ("--model", folder / "run" / "model", "--target", "5.4")
    assert run("unlearn", *ask, *folder_of_work, *retain, *model) == 0
    told = json.loads((tmp_path / "out" / "unlearning.json").read_text())
    assert told["losses"]["after"]["forget"] == pytest.approx(5.4, rel=2e-3)
    assert (told["method"], told["settings"]["beta"]) == ("npo", 0.5)
    assert told["options"]["beta"] == 0.5
    assert "work" not in told["options"]
    assert told["cost"]["flops"] > 0
    assert told["cost"]["peak_bytes"] > 0
    again = ("--config", tmp_path / "out" / "unlearning.json", "--out", tmp_path / "b")
    assert run("unlearn", *again, "--forget", folder / "forget.json") == 0
    first, second = (tmp_path / n / "model.safetensors" for n in ("out", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_methods_are_listed_and_each_has_help_of_its_own(capsys, monkeypatch):
    def shrink(task, params, sets, *, share: float = 0.25):
        """Shrink everything.

        Args:
          share: How much of each
            weight goes.
        """

    row = Method("edit", shrink, frozenset(), "nobody, nowhere", "nothing", True)
    monkeypatch.setitem(METHODS, "shrinking", row)
    assert run("unlearn", "--list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in METHODS)
    assert run("unlearn", "shrinking", "--help") == 0
    helped = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--share" in helped
    assert "How much of each weight goes. (default: 0.25)" in helped
    assert "nobody, nowhere" in helped
    assert "--beta" not in helped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "first_epoch", "--ids", "0"), "pass --run RUN"),
        (("--method", "gradient_ascent"), "exactly one of --forget"),
        (("--method", "gradient_ascent", "--ids", "0"), "pass --run RUN, or --data"),
        (("--method", "gradient_ascent", "--forget", "nowhere.json"), "nowhere.json"),
        (
            ("--method", "first_epoch", "--run", "RUN", "--request", "Zork Qux"),
            "no record matches --request 'Zork Qux' with --match-by 'fuzzy'",
        ),
        (("--method", "first_epoch", "--run", "RUN", "--ids", "99"), "99"),
        (
            (
                "--method",
                "first_epoch",
                "--run",
                "RUN",
                "--ids",
                "0",
                "--layers",
                "h/9/",
            ),
            "matches no parameter",
        ),
        (
            ("--method", "first_epoch", "--run", "RUN", "--ids", "0", "--epochs", "9"),
            "the run has epochs 1 to 6",
        ),
        (
            ("--method", "gradient_ascent", "--forget", "FORGET", "--target", "far"),
            "(nats a token), before or unseen",
        ),
        (
            ("--method", "gradient_ascent", "--forget", "UNSEEN", "--run", "RUN"),
            "use --match-by 'near_duplicate' or --match-by 'fuzzy'",
        ),
        (("--method", "first_epoch", "--run", "elsewhere", "--ids", "0"), "run.json"),
        (("--method", "npo", "--run", "elsewhere", "--ids", "0"), "is no training run"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    learned, tmp_path, capsys, options, message
):
    folder, _ = learned
    names = {
        "RUN": folder / "run",
        "FORGET": folder / "forget.json",
        "UNSEEN": folder / "unseen.json",
    }
    status = unlearn(learned, tmp_path / "o", *(names.get(o, o) for o in options))
    assert status == 2
    told = capsys.readouterr().err
    assert told.startswith("jaxunlearn: error: ")
    assert message in told
    assert not (tmp_path / "o").exists()


def test_training_again_with_other_options_is_refused(learned, capsys):
    folder, _ = learned
    status = run(
        *("train", "--model", folder / "config.json", "--data", folder / "data.json"),
        *("--out", folder / "run", "--epochs", 7),
    )
    assert status == 2
    assert "recipe" in capsys.readouterr().err


def test_a_model_with_nan_weights_is_refused(learned, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    folder, _ = learned
    broken = tmp_path / "model"
    shutil.copytree(
        folder / "run" / "model",
        broken,
        ignore=shutil.ignore_patterns("checksums.json"),
    )
    weights = load_file(broken / "model.safetensors")
    weights["transformer.wpe.weight"][0, 0] = np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    status = run(
        *("unlearn", "--model", broken, "--retain", folder / "retain.json"),
        *("--out", tmp_path / "o", "--method", "gradient_ascent"),
        *("--forget", folder / "forget.json"),
    )
    assert status == 2
    assert "wpe" in capsys.readouterr().err


def test_the_run_records_what_it_was_trained_on(learned):
    folder, _ = learned
    assert read_records(folder / "run" / "records.jsonl") == read_records(
        folder / "data.json"
    )
