"""Losses and gradients of whole sets, for any task, each program compiled once."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, all_leaves

from jaxunlearn import tree
from jaxunlearn.types import Batch, Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Losses, Sets


def as_argument(task: PerExampleLoss) -> Any:
    """Return a task as an argument that a compiled program may take.

    A task that is a tree of arrays stays one; a plain function becomes a ``Partial``,
    by which compiled programs are found again.
    """
    return Partial(task) if all_leaves([task]) else task


@jax.jit
def batch_losses(task: Any, params: Params, batch: Batch) -> jax.Array:
    """Return the losses of a batch, float32[B]."""
    return task(params, batch)


@jax.jit
def batch_gradient(task: Any, params: Params, batch: Batch) -> Params:
    """Return the gradient of the weighted sum of a batch's losses, float32."""

    def total(params: Params) -> jax.Array:
        return jnp.sum(batch["weight"] * task(params, batch))

    return jax.grad(total)(tree.master_weights(params))


def example_losses(
    task: PerExampleLoss, params: Params, batches: Iterable[Batch]
) -> np.ndarray:
    """Return the loss of each example in order, float32[n], padding left out."""
    argument, rows = as_argument(task), []
    for batch in batches:
        losses = np.asarray(batch_losses(argument, params, dict(batch)))
        rows.append(losses[real_rows(batch)])
    if not rows:
        raise ValueError("batches is empty: give at least one batch")
    return np.concatenate(rows)


def real_rows(batch: Batch) -> np.ndarray:
    """Return which rows of a batch are no padding, bool[B]."""
    size = len(jax.tree.leaves(dict(batch))[0])
    index = np.asarray(batch.get("index", np.zeros(size, np.int32)))
    return index >= 0


def mean_loss(
    task: PerExampleLoss, batches: Iterable[Batch]
) -> Callable[[Params], float]:
    """Return the function ``params -> mean over the examples of their losses``."""

    def measure(params: Params) -> float:
        return float(np.mean(example_losses(task, params, batches), dtype=np.float64))

    return measure


def mean_gradient(
    task: PerExampleLoss, batches: Iterable[Batch]
) -> Callable[[Params], Params]:
    """Return the function ``params -> gradient of the mean loss``, in float32."""
    argument = as_argument(task)

    def gradient(params: Params) -> Params:
        total, count = tree.zeros_like(params), 0
        for batch in batches:
            total = tree.add_scaled(
                total, 1.0, batch_gradient(argument, params, with_weight(batch))
            )
            count += int(real_rows(batch).sum())
        return tree.scaled(1.0 / count, total)

    return gradient


def with_weight(batch: Batch) -> dict[str, Any]:
    """Return the batch with its weights: 1, and 0 for padding, where it has none."""
    if "weight" in batch:
        return dict(batch)
    return {**batch, "weight": real_rows(batch).astype(np.float32)}


def losses_of_sets(task: PerExampleLoss, sets: Sets) -> Losses:
    """Return the mean losses of the sets as functions of parameters.

    Without examples to keep, the retain loss is 0 everywhere.
    """
    return Losses(
        forget=mean_loss(task, sets.forget),
        retain=zero if sets.retain is None else mean_loss(task, sets.retain),
        examples=lambda params: example_losses(task, params, sets.forget),
        gradient=mean_gradient(task, sets.forget),
        unseen=None if sets.unseen is None else mean_loss(task, sets.unseen),
    )


def zero(_params: Params) -> float:
    """Return 0."""
    return 0.0
