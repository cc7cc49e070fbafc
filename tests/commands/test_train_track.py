"""`jaxunlearn train --track` on files, as a user runs it."""

import json
import shutil

import numpy as np
import pytest

from jaxunlearn.cli import main
from jaxunlearn.data import in_order
from jaxunlearn.influence import load_track, scores
from jaxunlearn.influence.tracking import series as tracking
from jaxunlearn.models import load_pretrained
from jaxunlearn.provenance import params_hash
from jaxunlearn.training import open_run

EPOCHS = 2
EPS = float(np.finfo(np.float32).eps)


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


def train(tiny, out, *options):
    return run(
        *("train", "--model", tiny.model, "--data", tiny.train, "--out", out),
        *("--epochs", EPOCHS, "--batch-size", 4, "--learning-rate", 1e-2),
        *("--evaluate", tiny.query, "--dropout", 0.0, *options),
    )


@pytest.fixture(scope="module")
def followed(tiny, tmp_path_factory):
    """A run that was followed on two records, of which the first was trained on."""
    out = tmp_path_factory.mktemp("followed") / "run"
    assert train(tiny, out, "--track", tiny.query) == 0
    return out


@pytest.fixture(scope="module")
def unfollowed(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("unfollowed") / "run"
    assert train(tiny, out) == 0
    return out


def evaluations(out):
    lines = map(json.loads, (out / "losses.jsonl").read_text().splitlines())
    return [line["evaluation"] for line in lines if "evaluation" in line]


def test_every_epoch_is_followed_beside_the_evaluation(tiny, followed):
    track = load_track(followed / "influence_track.npz")
    assert set(track.scores) == {"gradient_dot", "act_act"}
    assert track.scores["gradient_dot"].shape == (EPOCHS + 1, 2, 7)
    assert track.groups == ("wte", "wpe", "h/0", "ln_f")
    assert track.hashes[0] == params_hash(open_run(followed).start)
    assert track.hashes[-1] == params_hash(load_pretrained(followed / "model")[1])
    found = evaluations(followed)
    means = track.query_losses.mean(1)
    # The held-out records are those that were followed.
    for name in ("tracked", "evaluate"):
        np.testing.assert_allclose([x[name] for x in found], means, rtol=64 * EPS)
    np.testing.assert_allclose(
        [x["train"] for x in found], track.losses.mean(1), rtol=64 * EPS
    )
    assert set(found[0]) == {"step", "train", "evaluate", "tracked"}


def test_scores_are_those_of_the_trained_model(followed):
    opened = open_run(followed)
    model, params = load_pretrained(followed / "model")
    batch = next(iter(in_order(opened.data, batch_size=7)))
    one = {name: values[:1] for name, values in batch.items()}
    expected = scores(
        model.per_example_loss, params, batch, one, method="gradient_dot"
    ).scores[0]
    track = load_track(followed / "influence_track.npz")
    np.testing.assert_allclose(
        track.scores["gradient_dot"][-1, 0],
        expected,
        rtol=0,
        atol=256 * EPS * np.abs(expected).max(),
    )


def test_training_records_with_the_same_text_are_found(followed):
    places = json.loads((followed / "influence_track.json").read_text())
    assert places["same"] == [[0], []]


@pytest.mark.slow
def test_following_does_not_change_the_model(followed, unfollowed):
    hashes = {
        params_hash(load_pretrained(out / "model")[1]) for out in (followed, unfollowed)
    }
    assert len(hashes) == 1
    assert not list(unfollowed.glob("influence_track*"))


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_track(
    tiny, followed, tmp_path, monkeypatch
):
    out = shutil.copytree(followed, tmp_path / "run")
    before = load_track(out / "influence_track.npz")
    # As if killed in the second epoch, before any checkpoint.
    shutil.rmtree(out / "checkpoints")
    (out / "influence_track.npz").unlink()
    (out / "influence_track" / "checkpoint-000002.npz").unlink()
    computed = []
    point_of = tracking.point_of
    monkeypatch.setattr(
        tracking, "point_of", lambda *x: computed.append(1) or point_of(*x)
    )
    for count in (1, 1):  # the second time all is done
        assert train(tiny, out, "--track", tiny.query) == 0
        assert len(computed) == count
        after = load_track(out / "influence_track.npz")
        assert after.hashes == before.hashes
        for name, values in before.scores.items():
            np.testing.assert_array_equal(after.scores[name], values)


def test_a_run_that_was_trained_without_is_refused(tiny, unfollowed, tmp_path, capsys):
    out = shutil.copytree(unfollowed, tmp_path / "run")
    assert train(tiny, out, "--track", tiny.query) == 2
    assert "steps without it" in capsys.readouterr().err
    assert not (out / "influence_track.npz").exists()


def test_other_methods_for_a_run_are_refused(tiny, followed, tmp_path, capsys):
    out = shutil.copytree(followed, tmp_path / "run")
    options = ("--track", tiny.query, "--track-methods", "cosine")
    assert train(tiny, out, *options) == 2
    assert "methods differ" in capsys.readouterr().err


def test_evaluations_of_another_run_are_not_mixed_in(tiny, followed, tmp_path, capsys):
    out = shutil.copytree(followed, tmp_path / "run")
    shutil.copy(
        out / "influence_track" / "checkpoint-000002.npz",
        out / "influence_track" / "checkpoint-000003.npz",
    )
    (out / "influence_track.npz").unlink()
    assert train(tiny, out, "--track", tiny.query) == 2
    assert "4 evaluations of a run of 2 epochs" in capsys.readouterr().err
    assert not (out / "influence_track.npz").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--track", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--track", None, "--track-methods", "tracin"), "'tracin' is unknown"),
        (("--track", None, "--track-methods", "cosine,cosine"), "there twice"),
        (("--track", None, "--track-methods", ""), "'' is unknown"),
    ],
)
def test_bad_input_is_told_before_anything_is_made(
    tiny, options, said, tmp_path, capsys
):
    given = [tiny.query if x is None else x for x in options]
    assert train(tiny, tmp_path / "run", *given) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
