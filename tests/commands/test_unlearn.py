"""`jaxunlearn train` and `jaxunlearn unlearn` on files, as a user runs them."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.cli import main
from jaxunlearn.data import read_records
from jaxunlearn.data.synthetic import people, question_answers
from jaxunlearn.models import load_pretrained


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    return status.value.code


def write(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trained run, and the files that a removal needs."""
    folder = tmp_path_factory.mktemp("world")
    private = question_answers(people(4), questions_per_person=3)
    unseen = question_answers(people(2, start=50), questions_per_person=3)
    name = private[0]["subject"]
    write(folder / "data.json", private)
    write(folder / "forget.json", [r for r in private if r["subject"] == name])
    write(folder / "retain.json", private)
    write(folder / "unseen.json", unseen)
    config = {
        "model_type": "gpt2",
        "vocab_size": 300,
        "n_positions": 128,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    status = run(
        *("train", "--model", folder / "config.json", "--data", folder / "data.json"),
        *("--out", folder / "run", "--epochs", 6, "--batch-size", 4),
        *("--learning-rate", 3e-3, "--record", "^wte/"),
    )
    assert status == 0
    return folder, name


def unlearn(world, out, *options):
    folder, _ = world
    return run(
        *("unlearn", "--model", folder / "run" / "model"),
        *("--retain", folder / "retain.json", "--out", out, *options),
    )


def changed(world, out):
    _, before = load_pretrained(world[0] / "run" / "model")
    _, after = load_pretrained(out)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    return sorted(name for name, equal in tree.named_leaves(same) if not equal)


FREE = ("--max-retain-increase", "1000", "--target")


def test_a_request_in_words_is_forgotten_on_the_embedding_alone(world, tmp_path):
    folder, name = world
    options = ("--method", "first_epoch", "--run", folder / "run")
    status = unlearn(
        *(world, tmp_path, *options, "--request", f"all about {name}", *FREE),
        "unseen",
        *("--unseen", folder / "unseen.json"),
    )
    assert status == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    assert [m["index"] for m in told["matched"]] == [0, 1, 2]
    assert told["losses"]["before"]["forget"] < told["target"]["forget_loss"]
    after = told["losses"]["after"]["forget"]
    assert after == pytest.approx(told["target"]["forget_loss"], rel=2e-3)
    assert changed(world, tmp_path) == ["wte/embedding"]
    assert [c["leaf"] for c in told["changed"]] == ["wte/embedding"]
    assert {"jax", "jaxunlearn"} <= set(told["versions"])


def test_file_words_and_positions_name_the_same_examples(world, tmp_path):
    folder, name = world
    ways = {
        "file": ("--forget", folder / "forget.json"),
        "words": ("--request", f"please forget {name}"),
        "positions": ("--ids", 0, 1, 2),
    }
    models = []
    for way, named in ways.items():
        out = tmp_path / way
        options = ("--method", "first_epoch", "--run", folder / "run", *named)
        assert unlearn(world, out, *options, *FREE, "before") == 0
        models.append((out / "model.safetensors").read_bytes())
    assert models[0] == models[1] == models[2]


def test_iterative_mode_reaches_the_target(world, tmp_path):
    folder, _ = world
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0, 1)
    now = unlearn(world, tmp_path, *options, "--mode", "iterative", *FREE, "before")
    assert now == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    target = told["target"]["forget_loss"]
    assert told["losses"]["after"]["forget"] >= target * (1 - 1e-6)


def test_iterative_mode_keeps_to_the_part_when_gradients_are_fresh(world, tmp_path):
    folder, _ = world
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0)
    fresh = ("--mode", "iterative", "--max-exposures", 0, "--part", "input")
    # Lookup rows alone cannot go far in this small model: a little above its loss now.
    unlearn(world, tmp_path, *options, *fresh, *FREE, "before")
    told = json.loads((tmp_path / "unlearning.json").read_text())
    target = told["losses"]["before"]["forget"] + 0.005
    assert unlearn(world, tmp_path, *options, *fresh, *FREE, target) == 0
    _, before = load_pretrained(folder / "run" / "model")
    _, after = load_pretrained(tmp_path)
    moved = np.any(before["wte"]["embedding"] != after["wte"]["embedding"], axis=1)
    assert 0 < moved.sum() < 100  # the output part would move every row


def test_gradient_ascent_needs_no_run(world, tmp_path):
    folder, _ = world
    options = ("--method", "gradient_ascent", "--forget", folder / "forget.json")
    assert unlearn(world, tmp_path, *options) == 0
    told = json.loads((tmp_path / "unlearning.json").read_text())
    losses = told["losses"]
    rise = losses["after"]["forget"] - losses["before"]["forget"]
    assert rise == pytest.approx(1.0, abs=0.02)
    assert len(changed(world, tmp_path)) == 16  # every leaf


def test_layers_and_part_choose_what_changes(world, tmp_path):
    folder, _ = world
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0)
    out = tmp_path / "block"
    status = unlearn(
        world, out, *options, "--layers", "h/1/mlp", "--scale", "1e-3", *FREE, "before"
    )
    assert status == 0
    told = json.loads((out / "unlearning.json").read_text())
    assert all(c["leaf"].startswith("h/1/mlp/") for c in told["changed"])
    out = tmp_path / "rows"
    assert unlearn(world, out, *options, "--part", "input", *FREE, "before") in (0, 1)
    told = json.loads((out / "unlearning.json").read_text())
    if told["status"] == "reached":
        _, before = load_pretrained(folder / "run" / "model")
        _, after = load_pretrained(out)
        moved = np.any(before["wte"]["embedding"] != after["wte"]["embedding"], axis=1)
        assert 0 < moved.sum() < 100  # rows of the example's own tokens


def test_a_target_beyond_the_retain_limit_is_refused(world, tmp_path, capsys):
    folder, _ = world
    out = tmp_path / "out"
    options = ("--method", "first_epoch", "--run", folder / "run", "--ids", 0)
    status = unlearn(
        world, out, *options, "--target", "50", "--max-retain-increase", "0.001"
    )
    assert status == 1
    printed = capsys.readouterr().out
    assert "Refused" in printed
    assert "No model was written" in printed
    assert [p.name for p in out.iterdir()] == ["unlearning.json"]
    assert json.loads((out / "unlearning.json").read_text())["changed"] == []


def test_listing_matches_writes_nothing(world, tmp_path, capsys):
    folder, name = world
    out = tmp_path / "out"
    options = ("--method", "first_epoch", "--run", folder / "run", "--request", name)
    assert unlearn(world, out, *options, "--list-matches") == 0
    assert "3 training records match" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "first_epoch", "--ids", "0"), "pass --run RUN"),
        (("--method", "gradient_ascent"), "exactly one of --forget"),
        (("--method", "gradient_ascent", "--ids", "0"), "pass --run RUN, or --data"),
        (("--method", "gradient_ascent", "--forget", "nowhere.json"), "nowhere.json"),
        (
            ("--method", "first_epoch", "--run", "RUN", "--request", "Zork Qux"),
            "no record matches",
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
            "a number, before or unseen",
        ),
        (
            ("--method", "gradient_ascent", "--forget", "UNSEEN", "--run", "RUN"),
            "near_duplicate",
        ),
        (("--method", "first_epoch", "--run", "elsewhere", "--ids", "0"), "run.json"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    world, tmp_path, capsys, options, message
):
    folder, _ = world
    names = {
        "RUN": folder / "run",
        "FORGET": folder / "forget.json",
        "UNSEEN": folder / "unseen.json",
    }
    status = unlearn(world, tmp_path / "o", *(names.get(o, o) for o in options))
    assert status == 2
    told = capsys.readouterr().err
    assert told.startswith("jaxunlearn: error: ")
    assert message in told
    assert not (tmp_path / "o").exists()


def test_training_again_with_other_options_is_refused(world, capsys):
    folder, _ = world
    status = run(
        *("train", "--model", folder / "config.json", "--data", folder / "data.json"),
        *("--out", folder / "run", "--epochs", 7),
    )
    assert status == 2
    assert "recipe" in capsys.readouterr().err


def test_a_model_with_nan_weights_is_refused(world, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    folder, _ = world
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


def test_the_run_records_what_it_was_trained_on(world):
    folder, _ = world
    assert read_records(folder / "run" / "records.jsonl") == read_records(
        folder / "data.json"
    )
