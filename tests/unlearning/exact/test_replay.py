"""A replay without some examples is the run that never used them, byte for byte."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.data import Example, collate, epoch_order
from jaxunlearn.provenance import params_hash
from jaxunlearn.training import Recording, loop, train
from jaxunlearn.training.recipe import initial_state, make_step, optimizer
from jaxunlearn.unlearning.exact.proof import read_proof, write_proof
from jaxunlearn.unlearning.exact.replay import (
    PROOF,
    Plan,
    exact_replay,
    replay_plan,
    verify_proof,
)

LATE = [int(i) for i in epoch_order(3, 0, 10)[-2:]]  # first used in step 2
EARLY = int(epoch_order(3, 0, 10)[0])


@pytest.fixture(scope="module")
def run(begin):
    """A finished run with a checkpoint of every step."""
    run = begin()
    again(run, directory=run.directory, keep_every=1)
    return run


def again(run, **options):
    return train(run.model, run.start, run.data, run.recipe, **options)


@functools.cache
def step_of(model, recipe):
    """The step of the recipe alone, compiled apart from the loop's."""
    transform = optimizer(recipe, 6)
    return transform, jax.jit(make_step(model, recipe, transform), donate_argnums=0)


def never_used(run, forget):
    """Train with a plain loop on data that hold other texts in the forgotten's place.

    Their rows are cleared by hand; of the run itself only its step is used.
    """
    length = run.data.length
    other = Example(np.full(length, 7, np.int32), np.full(length, 7, np.int32), 0)
    examples = [other if i in forget else e for i, e in enumerate(run.data.examples)]
    data = dataclasses.replace(run.data, examples=tuple(examples))
    transform, step = step_of(run.model, run.recipe)
    state = initial_state(run.start, transform)
    for epoch in range(2):
        order = epoch_order(run.recipe.seed, epoch, 10)
        for begin in (0, 4, 8):
            rows = order[begin : begin + 4]
            batch = collate(data, rows, batch_size=4, length=length)
            for row, index in enumerate(rows):
                if index in forget:
                    batch["input_ids"][row] = run.data.pad_id
                    batch["labels"][row] = -100
                    batch["attention_mask"][row] = 0
                    batch["weight"][row] = 0.0
                    batch["index"][row] = -1
            state, _ = step(state, batch)
    return tree.rounded(state.params, run.start)


@pytest.mark.parametrize("forget", [LATE, [EARLY], [*LATE, EARLY]])
def test_a_replay_is_the_run_that_never_used_them(run, same_bits, forget):
    found = exact_replay(run, forget)
    assert same_bits(found.params, never_used(run, forget))
    assert (
        found.proof.checkpoint == found.proof.first_use == (2 if forget == LATE else 0)
    )
    assert not same_bits(found.params, again(run).params)


def test_where_it_begins_changes_nothing_but_the_price(run, same_bits):
    ends = [exact_replay(run, LATE, checkpoint=step) for step in (0, 1, 2)]
    plans = [replay_plan(run, LATE, checkpoint=step) for step in (0, 1, 2)]
    assert [p.replayed for p in plans] == [6, 5, 4]
    assert [p.share for p in plans] == [1, 5 / 6, 4 / 6]
    assert [e.proof.steps_replayed for e in ends] == [6, 5, 4]
    assert [e.proof.steps_saved for e in ends] == [0, 1, 2]
    assert all(same_bits(e.params, ends[0].params) for e in ends)
    # What is used is that checkpoint: at one of other numbers it ends elsewhere.
    assert {e.proof.params_sha256 for e in ends} == {params_hash(ends[0].params)}


def test_a_run_that_recorded_is_taken_again_from_its_start(run):
    for epochs, begin in (((1,), 0), ((2,), 2), ((1, 2), 0)):
        recorded = run._replace(recording=Recording(epochs=epochs))
        assert replay_plan(recorded, LATE) == Plan(2, begin, 6)


@pytest.mark.parametrize("step", [3, 5])
def test_an_interrupted_replay_goes_on_to_the_same_bits(
    run, same_bits, tmp_path, monkeypatch, step
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    whole = exact_replay(run, LATE)

    def stop(progress):
        if progress.step == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        exact_replay(run, LATE, directory=tmp_path / "parts", on_step=stop)
    told = []
    found = exact_replay(
        run, LATE, directory=tmp_path / "parts", on_step=lambda p: told.append(p.step)
    )
    assert told == list(range(step + 1, 7))
    assert same_bits(found.params, whole.params)
    assert found.proof == whole.proof == read_proof(tmp_path / "parts" / PROOF)


def test_a_proof_holds_for_its_replay_alone(run, tmp_path):
    found = exact_replay(run, LATE, directory=tmp_path / "replay")
    path = tmp_path / "replay" / PROOF
    for begin in (None, 0):
        checked = verify_proof(path, run, params=found.params, checkpoint=begin)
        assert checked == found.proof
    with pytest.raises(ValueError, match="params are not the parameters"):
        verify_proof(path, run, params=again(run).params)
    told = path.read_text()
    names = [record["question"].split()[-1][:-1] for record in run.records]
    assert "Mara" in names
    assert not any(name in told for name in names)
    edited = json.loads(told)
    edited["params_sha256"] = "0" * 64
    path.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match="is damaged.*was edited"):
        verify_proof(path, run)
    write_proof(path, dataclasses.replace(found.proof, params_sha256="0" * 64))
    with pytest.raises(ValueError, match="does not hold: the replay comes to other"):
        verify_proof(path, run)
    for field, value in {"retained_sha256": "0" * 64, "steps_saved": 1}.items():
        write_proof(path, dataclasses.replace(found.proof, **{field: value}))
        with pytest.raises(ValueError, match=f"does not go with run=.*{field}"):
            verify_proof(path, run)


def test_what_the_replay_starts_from_is_told_by_its_end(run, tmp_path, same_bits):
    """A checkpoint of other numbers is seen by a proof from the start."""
    folder = shutil.copytree(run.directory, tmp_path / "run")
    other = run._replace(directory=folder)
    shutil.rmtree(folder / "checkpoints" / "2")
    shutil.copytree(folder / "checkpoints" / "4", folder / "checkpoints" / "2")
    found = exact_replay(other, LATE)
    write_proof(tmp_path / PROOF, found.proof)
    with pytest.raises(ValueError, match="does not hold"):
        verify_proof(tmp_path / PROOF, other, checkpoint=0)


def test_misuse(run, tmp_path):
    with pytest.raises(ValueError, match="forget=.*: name at least one example"):
        exact_replay(run, [])
    with pytest.raises(ValueError, match=r"checkpoint=3: the run has \[0, 1, 2\]"):
        exact_replay(run, LATE, checkpoint=3)
    exact_replay(run, LATE, directory=tmp_path / "one")
    with pytest.raises(ValueError, match="holds another replay .its forget, first_use"):
        exact_replay(run, [EARLY], directory=tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files and no replay"):
        exact_replay(run, LATE, directory=tmp_path / "two")
