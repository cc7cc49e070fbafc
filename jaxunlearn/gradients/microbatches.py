"""Means and rows over the examples of one batch or many, a few examples at a time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.tree import scaled
from jaxunlearn.types import Batch, Params


def weighted_mean(
    weighted_sum: Callable[[Batch], Params],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    batch_size: int | None,
) -> Params:
    """Return ``weighted_sum(batch) / sum_i w_i``, in microbatches of ``batch_size``.

    Args:
      weighted_sum: From a batch that has a ``weight`` to the tree
        ``sum_i w_i q_i``, whatever the quantity q is.
      batch_or_batches: A batch (without ``weight`` every example weighs 1), or batches
        of one shape, over which this is a loop in Python that compiles once.
      batch_size: Examples in memory at a time; None takes a batch at once. It need not
        divide B: the last microbatch is filled with examples of weight 0.

    Returns:
      The mean in float32; zeros where all weights are 0.

    Raises:
      ValueError: ``batch_size`` is below 1, or there are no batches.
    """

    def sums(batch: Batch) -> tuple[Params, jax.Array]:
        size = example_count(batch)
        weight = jnp.asarray(batch.get("weight", jnp.ones(size)), jnp.float32)
        batch = {**batch, "weight": weight}
        if batch_size is None or batch_size >= size:
            return scaled(1.0, weighted_sum(batch)), weight.sum()
        chunks = chunks_of(batch, size, batch_size)
        return sum_over_chunks(weighted_sum, chunks), weight.sum()

    if isinstance(batch_or_batches, Mapping):
        total, weights = sums(batch_or_batches)
    else:
        total, weights = None, None
        compiled = jax.jit(sums)
        for batch in batch_or_batches:
            part = compiled(dict(batch))
            total, weights = (
                part
                if weights is None
                else jax.tree.map(jnp.add, (total, weights), part)
            )
        if weights is None:
            raise ValueError("batches is empty: give at least one batch")
    # Where all weights are 0 so is the sum: the divisor only has to be no zero.
    return scaled(1.0 / jnp.where(weights == 0, 1.0, weights), total)


def example_count(batch: Batch) -> int:
    """Return B."""
    return jax.tree.leaves(dict(batch))[0].shape[0]


def rows_of(
    function: Callable[[Batch], Any],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    batch_size: int | None,
) -> Any:
    """Return ``function(batch)``, arrays [B,...], in microbatches of ``batch_size``.

    Args:
      function: From a batch that has a ``weight`` to arrays with leading axis B.
      batch_or_batches: As for :func:`weighted_mean`. Rows of several batches follow
        each other.
      batch_size: Examples in memory at a time; it need not divide B.
    """

    def rows(batch: Batch) -> Any:
        size = example_count(batch)
        weight = jnp.asarray(batch.get("weight", jnp.ones(size)), jnp.float32)
        batch = {**batch, "weight": weight}
        if batch_size is None or batch_size >= size:
            return function(batch)
        parts = jax.lax.map(function, chunks_of(batch, size, batch_size))
        # Chunks hold every chunks-th example: see chunks_of.
        return jax.tree.map(
            lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:size], parts
        )

    if isinstance(batch_or_batches, Mapping):
        return rows(batch_or_batches)
    compiled = jax.jit(rows)
    parts = [compiled(dict(batch)) for batch in batch_or_batches]
    if not parts:
        raise ValueError("batches is empty: give at least one batch")
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def sum_over_chunks(function: Callable[[Batch], Params], chunks: Batch) -> Params:
    """Return ``sum_c function(chunks[c])`` in float32."""

    def add(total: Params, chunk: Batch) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, scaled(1.0, function(chunk))), None

    first = jax.eval_shape(function, jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), first)
    return jax.lax.scan(add, zeros, chunks)[0]


def chunks_of(batch: Mapping, size: int, batch_size: int) -> Mapping:
    """Return the batch as [chunks, batch_size, ...], filled up with weight 0."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, or None")
    chunks = -(-size // batch_size)
    # The last example again and again: whatever a loss does to it, it is finite.
    rows = jnp.minimum(jnp.arange(chunks * batch_size), size - 1)
    real = jnp.arange(chunks * batch_size) < size
    batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], batch)
    batch = {**batch, "weight": jnp.where(real, batch["weight"], 0.0)}
    # Every chunks-th example, so that a batch spread over devices stays spread.
    return jax.tree.map(
        lambda x: x.reshape(batch_size, chunks, *x.shape[1:]).swapaxes(0, 1), batch
    )
