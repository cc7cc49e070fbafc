"""Losses and gradients over whole data sets, compiled once a model."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import TokenizedData, collate
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Batch, Params


def fixed_batches(
    data: TokenizedData, *, batch_size: int, length: int | None
) -> Iterator[Batch]:
    """Yield the examples in order, in batches of one shape."""
    size = len(data.examples)
    for start in range(0, size, batch_size):
        yield collate(
            data,
            np.arange(start, min(start + batch_size, size)),
            batch_size=batch_size,
            length=length or data.length,
        )


def over_batches(
    compute: Callable[[Batch], Any],
    data: TokenizedData,
    *,
    batch_size: int,
    length: int | None = None,
    axis: int = 0,
) -> Any:
    """Return what a function of a batch gives for each example of ``data``, in order.

    Args:
      compute: From a batch to an array, or a tree of arrays, with an axis of examples.
      data: The tokenised examples.
      batch_size: Examples at a time.
      length: Tokens to pad to; None is the longest example.
      axis: Of the examples in the arrays.
    """
    parts = [
        jax.tree.map(np.asarray, compute(batch))
        for batch in fixed_batches(data, batch_size=batch_size, length=length)
    ]
    real = (slice(None),) * axis + (slice(len(data.examples)),)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=axis)[real], *parts)


@functools.cache
def compiled_loss(model: GPT2) -> Callable[[Params, Batch], jax.Array]:
    """Return ``jit(model.per_example_loss)``, one a model, so that it compiles once."""
    return jax.jit(model.per_example_loss)


@functools.cache
def compiled_gradient(model: GPT2) -> Callable[[Params, Batch], Params]:
    """Return the jitted gradient of the sum of a batch's losses."""

    def total(params: Params, batch: Batch) -> jax.Array:
        return jnp.sum(batch["weight"] * model.per_example_loss(params, batch))

    return jax.jit(lambda p, batch: jax.grad(total)(tree.master_weights(p), batch))


def example_losses(
    model: GPT2,
    params: Params,
    data: TokenizedData,
    *,
    batch_size: int = 32,
    length: int | None = None,
) -> np.ndarray:
    """Return the mean token loss of each example of ``data``, float32[n], no dropout.

    Args:
      model: The model.
      params: Its parameters.
      data: The tokenised examples.
      batch_size: Examples at a time.
      length: Tokens to pad to; None is the longest example. Give several data sets the
        same to compile once for all.
    """
    loss = compiled_loss(model)
    settings = {"batch_size": batch_size, "length": length}
    return over_batches(lambda batch: loss(params, batch), data, **settings)


def mean_loss_of(
    model: GPT2,
    data: TokenizedData,
    *,
    batch_size: int = 32,
    length: int | None = None,
) -> Callable[[Params], float]:
    """Return the function ``params -> mean over the examples of their losses``."""

    def mean_loss(params: Params) -> float:
        losses = example_losses(
            model, params, data, batch_size=batch_size, length=length
        )
        return float(np.mean(losses, dtype=np.float64))

    return mean_loss


def mean_gradient_of(
    model: GPT2,
    data: TokenizedData,
    *,
    batch_size: int = 32,
    length: int | None = None,
) -> Callable[[Params], Params]:
    """Return the function ``params -> gradient of the mean loss``, in float32."""

    def mean_gradient(params: Params) -> Params:
        gradient = compiled_gradient(model)
        total = tree.zeros_like(params)
        for batch in fixed_batches(data, batch_size=batch_size, length=length):
            total = tree.add_scaled(total, 1.0, gradient(params, batch))
        return tree.scaled(1.0 / len(data.examples), total)

    return mean_gradient
