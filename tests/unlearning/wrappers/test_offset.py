"""Logits without what a reinforced model would add: closed form, limit, what stays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients import fisher_diagonal, per_example_gradients
from jaxunlearn.tasks import classification_task
from jaxunlearn.unlearning.forms import Sets
from jaxunlearn.unlearning.wrappers.offset import OffsetTask, whp

B, T, V = np.indices((2, 5, 6), dtype=np.float64)
BASE = 2 * np.sin(1 + 7 * B + 3 * T + 2 * V)
REINFORCED = 2 * np.cos(2 + 5 * B + 2 * T + 3 * V)
LABELS = np.array([[-100, -100, 1, 3, 2], [-100, 4, 0, -100, -100]])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Logits:
    """A task whose parameters are its logits, of labels shifted by one."""

    name: str = dataclasses.field(default="logits", metadata={"static": True})

    def __call__(self, params, batch, *, key=None):
        return self.loss_of_outputs(params, batch)

    def outputs(self, params, batch):
        return params

    def targets(self, batch):
        return batch["labels"]

    def loss_of_outputs(self, outputs, batch):
        labels = jnp.asarray(batch["labels"])[:, 1:]
        logs = jax.nn.log_softmax(outputs[:, :-1])
        picked = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], 2)[..., 0]
        return -jnp.where(labels >= 0, picked, 0.0).sum(1)

    def states(self, params, batch, *, keep):
        return keep(params)


def by_hand(alpha):
    """Each sequence's negative log-likelihood under the offset logits, in float64."""
    z = BASE - alpha * np.maximum(REINFORCED - BASE, 0.0)
    total = np.zeros(2)
    for b, t in zip(*np.nonzero(LABELS[:, 1:] >= 0), strict=True):
        row = z[b, t]
        total[b] += np.log(np.exp(row).sum()) - row[LABELS[b, t + 1]]
    return total


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 5.0])
def test_it_is_the_equation_in_float64(alpha):
    task = OffsetTask(Logits(), jnp.float32(REINFORCED), alpha)
    found = task(jnp.float32(BASE), {"labels": LABELS})
    np.testing.assert_allclose(found, by_hand(alpha), rtol=2e-6)
    if alpha == 0:  # the anchor of the losses: the student's own likelihoods
        np.testing.assert_allclose(found, [5.7173007073, 7.9062168012], rtol=2e-6)


def linear(params, x):
    return x @ params


TASK = classification_task(linear)
RNG = np.random.default_rng(0)
PARAMS = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
FORGET = {"inputs": np.eye(4, dtype=np.float32)[:2], "labels": np.int32([0, 2])}
RETAIN = {"inputs": np.eye(4, dtype=np.float32)[2:], "labels": np.int32([1, 0])}
OPTIONS: dict[str, Any] = {"epochs": 20, "learning_rate": 0.1, "optimizer": "sgd"}


def test_it_hides_the_forgotten_and_leaves_the_rest():
    before = np.asarray(PARAMS).tobytes()
    wrapped = whp(TASK, PARAMS, Sets([FORGET]), **OPTIONS)
    assert np.all(wrapped(PARAMS, FORGET) > TASK(PARAMS, FORGET) + 0.1)
    # The forgotten share no input with the retained, so nothing is added to these.
    np.testing.assert_array_equal(wrapped(PARAMS, RETAIN), TASK(PARAMS, RETAIN))
    assert np.asarray(PARAMS).tobytes() == before


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 1.0, "epochs": 1}])
def test_at_strength_0_it_is_the_task_itself(options):
    if options["alpha"]:  # nothing was learned
        options = options | {"learning_rate": 0.0}
    wrapped = whp(TASK, PARAMS, Sets([FORGET]), **OPTIONS | options)
    assert np.array_equal(wrapped(PARAMS, FORGET), TASK(PARAMS, FORGET))
    assert np.array_equal(wrapped.outputs(PARAMS, FORGET), TASK.outputs(PARAMS, FORGET))


def test_what_is_inside_stays_as_it_was():
    wrapped = OffsetTask(Logits(), jnp.float32(REINFORCED), 1.0)
    kept = wrapped.states(jnp.float32(BASE), {}, keep=lambda x: x + 1)
    np.testing.assert_array_equal(kept, jnp.float32(BASE) + 1)


def test_it_is_a_task_wherever_a_task_is_taken():
    wrapped = whp(TASK, PARAMS, Sets([FORGET]), **OPTIONS)
    compiled = []

    @jax.jit
    def losses(task, params, batch):
        compiled.append(task)
        return task(params, batch)

    other = dataclasses.replace(wrapped, reinforced=wrapped.reinforced + 1.0)
    assert not np.allclose(
        losses(wrapped, PARAMS, FORGET), losses(other, PARAMS, FORGET)
    )
    assert len(compiled) == 1  # its parameters are arguments
    rows = per_example_gradients(wrapped, PARAMS, FORGET)
    alone = jax.jacrev(lambda p: wrapped(p, FORGET))(PARAMS)
    np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-6)
    squares = fisher_diagonal(wrapped, PARAMS, FORGET)
    np.testing.assert_allclose(squares, (alone**2).mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="alpha=-1.0: must be at least 0"):
        whp(TASK, PARAMS, Sets([FORGET]), alpha=-1.0)
