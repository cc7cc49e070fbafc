"""What every task obeys; a new kind of task is one more row in ``TASKS``."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients import el2n, fit_kfac, gauss_newton_vp, true_fisher_vp
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.randomness import random_key
from jaxunlearn.tasks import classification_task, language_task
from jaxunlearn.unlearning.wrappers.offset import OffsetTask

EPS = 2.0**-23
SIZE = 6


class Case(NamedTuple):
    """A task at a point, with a batch of SIZE examples."""

    task: Any
    params: Any
    batch: dict
    padding: dict  # one row, as a batch is filled up with
    random: bool  # a key changes the loss


class Convolutions(nn.Module):
    """Images to three classes, with statistics that are not parameters, and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(3)(x)


def language():
    config = GPT2Config(
        vocab_size=31, n_positions=8, n_embd=8, n_layer=2, n_head=2, resid_pdrop=0.5
    )
    model = GPT2(config)
    params = jax.tree.map(lambda x: 5 * x, model.init(key=random_key(0)))
    rng = np.random.default_rng(0)
    ids = rng.integers(31, size=(SIZE, 7)).astype(np.int32)
    labels = np.where(np.arange(7) < 2, -100, ids).astype(np.int32)
    batch = {"input_ids": ids, "labels": labels, "attention_mask": np.ones_like(ids)}
    padding = {
        "input_ids": np.zeros((1, 7), np.int32),
        "labels": np.full((1, 7), -100, np.int32),
        "attention_mask": np.zeros((1, 7), np.int32),
    }
    return Case(language_task(model), params, batch, padding, True)


def images():
    rng = np.random.default_rng(0)
    batch = {
        "inputs": rng.normal(size=(SIZE, 5, 5, 2)).astype(np.float32),
        "labels": np.int32([0, 1, 2, 2, 1, 0]),
    }
    variables = Convolutions().init(random_key(0), batch["inputs"])
    statistics = jax.tree.map(lambda x: x + 0.3, variables["batch_stats"])
    task = classification_task(
        Convolutions(),
        variables={"batch_stats": statistics},
        training_options={"train": True},
    )
    # The last image again: a batch is filled up with whatever is at hand.
    padding = {k: x[-1:] for k, x in batch.items()}
    return Case(task, variables["params"], batch, padding, True)


def tables():
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(SIZE, 4)).astype(np.float32),
        "y": np.int32([0, 1, 2, 2, 1, 0]),
    }
    task = classification_task(linear, inputs="x", labels="y")
    padding = {"x": np.zeros((1, 4), np.float32), "y": np.int32([-100])}
    return Case(task, rng.normal(size=(4, 3)).astype(np.float32), batch, padding, False)


def linear(params, x):
    return x @ params


def offset_tables():
    case = tables()
    reinforced = case.params + np.random.default_rng(1).normal(size=case.params.shape)
    task = OffsetTask(case.task, reinforced.astype(np.float32), 0.5)
    return case._replace(task=task)


TASKS = {
    "language": language,
    "images": images,
    "tables": tables,
    "offset tables": offset_tables,
}


@pytest.fixture(params=TASKS)
def case(request):
    """A task, and its batch under indices that are not its places."""
    case = TASKS[request.param]()
    index = np.arange(SIZE, dtype=np.int32)[::-1] + 20
    filled = {"index": np.int32([-1]), "weight": np.zeros(1, np.float32)}
    return case._replace(
        batch={**case.batch, "index": index, "weight": np.ones(SIZE, np.float32)},
        padding={**case.padding, **filled},
    )


def rows(batch, which):
    return {name: array[which] for name, array in batch.items()}


def joined(*batches):
    return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def close(found, expected):
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=200 * EPS, atol=20 * EPS)


@pytest.mark.parametrize("drawn", [False, True])
def test_padding_has_no_loss_and_no_gradient(case, drawn):
    key = random_key(1) if drawn else None
    losses = case.task(case.params, case.batch, key=key)
    assert losses.shape == (SIZE,)
    assert np.all(np.asarray(losses) > 0)
    filled = joined(case.batch, case.padding, case.padding)
    close(case.task(case.params, filled, key=key), [*losses, 0.0, 0.0])
    alone = jax.grad(lambda p: case.task(p, case.padding, key=key).sum())(case.params)
    assert not any(np.any(np.asarray(x)) for x in jax.tree.leaves(alone))


@pytest.mark.parametrize("drawn", [False, True])
def test_microbatches_change_nothing(case, drawn):
    key = random_key(1) if drawn else None
    whole = case.task(case.params, case.batch, key=key)
    parts = [
        case.task(case.params, rows(case.batch, slice(i, i + 2)), key=key)
        for i in range(0, SIZE, 2)
    ]
    close(jnp.concatenate(parts), whole)


def test_rows_are_independent(case):
    before = case.task(case.params, case.batch)
    others = joined(rows(case.batch, [0]), *[rows(case.batch, [5])] * (SIZE - 1))
    after = case.task(case.params, others)
    close(after, [before[0], *[before[5]] * (SIZE - 1)])


def test_a_key_acts_through_the_index_alone(case):
    key = random_key(1)
    losses = case.task(case.params, case.batch, key=key)
    order = np.array([3, 0, 5, 1, 4, 2])
    close(case.task(case.params, rows(case.batch, order), key=key), losses[order])
    moved = {**case.batch, "index": case.batch["index"] + 100}
    elsewhere = case.task(case.params, moved, key=key)
    other = case.task(case.params, case.batch, key=random_key(2))
    still = case.task(case.params, case.batch)
    for found in (elsewhere, other, still):
        changed = np.abs(np.asarray(found - losses)) > 1e-4
        assert changed.mean() > 0.5 if case.random else not changed.any()
    close(case.task(case.params, moved), still)


def test_the_loss_of_the_outputs_is_the_loss(case):
    outputs = case.task.outputs(case.params, case.batch)
    assert outputs.shape[:-1] == case.task.targets(case.batch).shape
    losses = case.task(case.params, case.batch)
    close(case.task.loss_of_outputs(outputs, case.batch), losses)
    # By hand: the mean over the targets that are some.
    targets = np.asarray(case.task.targets(case.batch)).reshape(SIZE, -1)
    outputs = np.asarray(outputs, np.float64).reshape(SIZE, targets.shape[1], -1)
    log = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    own = -np.take_along_axis(log, np.maximum(targets, 0)[..., None], -1)[..., 0]
    close(losses, [row[t != -100].mean() for row, t in zip(own, targets, strict=True)])


def test_states_are_of_every_layer(case):
    if not hasattr(case.task, "states"):
        pytest.skip("this task has no states")
    states = case.task.states(case.params, case.batch, keep=lambda x: x.mean((1, 2)))
    layers = case.task.model.config.n_layer
    assert states.shape == (layers + 1, SIZE)
    assert len({float(x) for x in states[:, 0]}) == layers + 1


def test_an_equal_task_compiles_nothing_and_its_arrays_are_arguments(case):
    traces = []

    @jax.jit
    def losses(task, params, batch):
        traces.append(1)
        return task(params, batch)

    close(
        losses(case.task, case.params, case.batch), case.task(case.params, case.batch)
    )
    leaves, structure = jax.tree.flatten(case.task)
    again = jax.tree.unflatten(structure, [x + 0 for x in leaves])
    losses(again, case.params, case.batch)
    assert len(traces) == 1
    if leaves:
        other = jax.tree.map(lambda x: x + 1, case.task)
        found = losses(other, case.params, case.batch)
        assert len(traces) == 1
        close(found, other(case.params, case.batch))
        assert np.any(np.abs(found - losses(again, case.params, case.batch)) > 1e-3)


def test_a_task_made_again_compiles_nothing():
    for make in TASKS.values():
        one, other = (jax.tree.structure(make().task) for _ in range(2))
        assert one == other
        assert hash(one) == hash(other)


def test_no_curvature_depends_on_where_the_labels_lie():
    one, other = tables(), tables()
    batch = {"inputs": one.batch["x"], "labels": one.batch["y"]}
    other = other._replace(task=classification_task(linear), batch=batch)
    key, vector = random_key(2), np.ones_like(one.params)
    functions = {
        "gauss_newton_vp": functools.partial(gauss_newton_vp, vector=vector),
        "true_fisher_vp": functools.partial(true_fisher_vp, vector=vector, key=key),
        "fit_kfac": functools.partial(fit_kfac, fisher="true", key=key),
        "el2n": el2n,
    }
    for name, function in functions.items():
        found, expected = (
            jax.tree.leaves(function(case.task, case.params, case.batch))
            for case in (one, other)
        )
        assert found
        assert all(map(np.array_equal, found, expected)), name
    wrapped = OffsetTask(one.task, one.params, 0.5)
    function = functions["true_fisher_vp"]
    found = function(wrapped, one.params, one.batch)
    assert np.array_equal(found, function(other.task, one.params, other.batch))


def test_labels_that_are_not_where_a_task_says_are_refused():
    case = tables()
    unlike = classification_task(linear, inputs="x", labels="labels")
    with pytest.raises(ValueError, match="labels='labels' is not in the batch.* x, y"):
        true_fisher_vp(unlike, case.params, case.batch, case.params, key=random_key(0))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="variables holds params"):
        classification_task(linear, variables={"params": {}})
    with pytest.raises(ValueError, match=r"options\['scale'\].*not hashable"):
        classification_task(linear, options={"scale": np.ones(2)})
