"""Undone steps leave what a run that stopped there held, byte for byte."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.training import Recording, checkpoints, loop, open_run, train
from jaxunlearn.training.recipe import compiled_step, initial_state, optimizer
from jaxunlearn.unlearning.exact.undo import undo_steps


@pytest.fixture(scope="module")
def run(begin):
    """A finished run with checkpoints after 2, 4 and 6 steps."""
    run = begin()
    train(
        *(run.model, run.start, run.data, run.recipe),
        directory=run.directory,
        keep_every=2,
    )
    return run


def held(run, step):
    """The checkpoint of a step."""
    like = initial_state(run.start, optimizer(run.recipe, 6))
    return checkpoints.restore(run.directory / "checkpoints", step, like)


@pytest.mark.parametrize(
    ("steps", "nearest"), [(0, 6), (1, 4), (2, 4), (3, 2), (5, 0), (6, 0)]
)
def test_it_is_what_a_run_that_stopped_there_held(
    run, begin, same_bits, monkeypatch, steps, nearest
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    other, told, aim = begin(), [], 6 - steps

    def stop(progress):
        if progress.step == aim:
            raise InterruptedError

    expected = initial_state(other.start, optimizer(other.recipe, 6))
    if aim:
        with pytest.raises(InterruptedError):
            train(
                *(other.model, other.start, other.data, other.recipe),
                directory=other.directory,
                on_step=stop,
            )
        expected = held(other, aim)
    found = undo_steps(run, steps, on_step=lambda p: told.append(p.step))
    assert same_bits(found.state, expected)
    assert same_bits(found.params, tree.rounded(expected.params, run.start))
    assert found.checkpoint == nearest
    assert told == list(range(nearest + 1, aim + 1))
    # An interrupted run is at its end where it stood.
    assert same_bits(undo_steps(open_run(other.directory), 0).state, expected)


def test_where_it_begins_changes_nothing(run, same_bits):
    found = [undo_steps(run, 1, checkpoint=step) for step in (0, 2, 4)]
    assert [f.checkpoint for f in found] == [0, 2, 4]
    assert all(same_bits(f.state, found[0].state) for f in found)


def test_a_start_from_disk_compiles_what_one_in_memory_did(run, compilations):
    start = jax.tree.map(lambda x: jnp.array(np.asarray(x)), run.start)
    compiled_step.cache_clear()  # other tests began from disk
    train(run.model, start, run.data, run.recipe)
    undo_steps(run._replace(known_start=start), 2, checkpoint=0)
    held(run, 2)  # the reader compiles programs of its own
    compilations.clear()
    train(run.model, run.start, run.data, run.recipe)
    for checkpoint in (0, 2):
        undo_steps(run, 2, checkpoint=checkpoint)
    assert not compilations


def test_a_start_that_was_read_is_not_read_again(run, begin, same_bits):
    other = begin()
    kept = other.with_start()
    shutil.rmtree(other.directory / "start")
    assert same_bits(kept.start, run.start)


def test_training_goes_on_from_it_to_the_same_end(run, same_bits):
    found = undo_steps(run, 3)
    again = train(run.model, run.start, run.data, run.recipe, state=found.state)
    assert same_bits(again.params, undo_steps(run, 0).params)
    assert not same_bits(again.params, found.params)


@pytest.mark.slow
def test_steps_that_recorded_gradients_are_taken_as_they_were(begin, same_bits):
    run = begin(Recording(epochs=(1,), layers="ln_f"))  # example by example
    train(
        *(run.model, run.start, run.data, run.recipe),
        directory=run.directory,
        recording=run.recording,
        keep_every=1,
    )
    stored = {p: p.read_bytes() for p in run.directory.rglob("*") if p.is_file()}
    found = undo_steps(run, 2, checkpoint=0)
    assert same_bits(found.state, held(run, 4))
    plain = undo_steps(run._replace(recording=None), 2, checkpoint=0)
    assert not same_bits(plain.state, found.state)
    now = {p: p.read_bytes() for p in run.directory.rglob("*") if p.is_file()}
    assert now == stored


def test_misuse(run, tmp_path):
    for steps in (-1, 7):
        with pytest.raises(ValueError, match=f"steps={steps}: the run has done 6"):
            undo_steps(run, steps)
    with pytest.raises(ValueError, match=r"checkpoint=4: the run has \[0, 2\] up to"):
        undo_steps(run, 3, checkpoint=4)
    folder = shutil.copytree(run.directory, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "2" / "params", ignore_errors=True)
    for file in (folder / "checkpoints" / "2").rglob("*"):
        if file.is_file() and file.name != "checksums.json":
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        undo_steps(run._replace(directory=folder), 3)
