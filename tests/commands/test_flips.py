"""One flipped bit anywhere in what a run stores is found, or changes nothing.

`FLIPS=100 pytest -m slow tests/commands/test_flips.py` tries more bits of each file.
"""

import os

import jax
import numpy as np
import pytest

from jaxunlearn.influence import load_scores, load_track, open_index
from jaxunlearn.influence.index.query import all_scores
from jaxunlearn.influence.index.reading import stored_ids
from jaxunlearn.models import load_pretrained
from jaxunlearn.report import read_runs
from jaxunlearn.training import check_model, checkpoints, gradient_store, open_run
from jaxunlearn.training.recipe import initial_state, optimizer

FLIPS = int(os.environ.get("FLIPS", "1"))


def used_run(folder):
    """Everything that is read of a run, as bytes."""
    run = open_run(folder)
    start = run.start
    model, params = load_pretrained(folder / "model")
    check_model(run, params)
    state = initial_state(start, optimizer(run.recipe, 2))
    kept = folder / "checkpoints"
    states = [
        checkpoints.restore(kept, step, state) for step in checkpoints.steps(kept)
    ]
    lines = gradient_store.read_index(folder / "gradients")
    gradients = [g for _, g in gradient_store.read_examples(lines, start)]
    points = [load_track(path) for path in (folder / "influence_track").glob("*.npz")]
    track = load_track(folder / "influence_track.npz")
    (told,) = read_runs([str(folder)])
    held = [start, params, states, gradients, track.scores]
    held += [[point.scores, point.losses] for point in points]
    words = [run.recipe, run.records, sorted(run.tokenizer.get_vocab().items())]
    words += [model.config]
    words += [told.curves, told.track]
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(held)] + [repr(words)]


def used_index(folder):
    """Everything that is read of an index, as bytes."""
    index = open_index(folder, model_hash=None)
    asked = np.ones((1, index.width), np.float32)
    scores = all_scores(index, asked, cosine=True)
    return [scores.tobytes(), stored_ids(index).tobytes(), repr(index)]


def used_scores(path):
    """Everything that is read of a scores file, as bytes."""
    found = load_scores(path)
    return [found.scores.tobytes(), found.index.tobytes(), repr(found.coverage)]


def silent_flips(place, use, pick):
    """Return the flips that went unnoticed and changed what is read, of each file."""
    whole = use(place)
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    silent = []
    for path in files:
        if not path.is_file() or path.stat().st_size == 0:
            continue
        data = path.read_bytes()
        for bit in pick.integers(0, 8 * len(data), FLIPS).tolist():
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                found = use(place)
            except ValueError as error:
                if str(place) not in str(error):
                    silent.append((path, bit, f"unnamed: {error}"))
            else:
                if found != whole:
                    silent.append((path, bit, "silent"))
        path.write_bytes(data)
    assert use(place) == whole
    return silent


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::jaxunlearn.sealed.UncheckedWarning")
def test_one_flipped_bit_is_found_or_changes_nothing(cli, tiny, tmp_path):
    run, index, scores = tmp_path / "run", tmp_path / "index", tmp_path / "scores.npz"
    asked = ("--train", tiny.train, "--model", run)
    assert (
        cli(
            *("train", "--model", tiny.model, "--data", tiny.train, "--out", run),
            *("--epochs", 1, "--batch-size", 4, "--dropout", 0.0),
            *("--record", "wte|ln_f", "--track", tiny.query, "--evaluate", tiny.query),
        )
        == 0
    )
    assert cli("index", "build", *asked, "--out", index) == 0
    method = ("--query", tiny.query, "--method", "gradient_dot")
    assert cli("influence", *asked, *method, "--out", scores) == 0
    pick = np.random.default_rng(0)
    assert silent_flips(run, used_run, pick) == []
    assert silent_flips(index, used_index, pick) == []
    assert silent_flips(scores, used_scores, pick) == []
