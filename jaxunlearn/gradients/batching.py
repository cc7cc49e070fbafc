"""Means and rows over the examples of one batch or many, a few examples at a time."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.tree import scaled
from jaxunlearn.types import Batch, Params


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """An argument of a compiled program that is no array: a number of tokens, a name.

    Attributes:
      value: Anything with a hash; another value is another program.
    """

    value: Any


def weighted_mean(
    weighted_sum: Callable[[Batch], Params],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    batch_size: int | None,
) -> Params:
    """Return ``weighted_sum(batch) / sum_i w_i``, in microbatches of ``batch_size``.

    Args:
      weighted_sum: From a batch that has a ``weight`` to the tree
        ``sum_i w_i q_i``, whatever the quantity q is. Over batches, a ``Partial`` of a
        module's function and its arguments compiles once for all calls.
      batch_or_batches: A batch (without ``weight`` every example weighs 1), or batches
        of one shape, over which this is a loop in Python.
      batch_size: Examples in memory at a time; None takes a batch at once. It need not
        divide B: the last microbatch is filled with examples of weight 0.

    Returns:
      The mean in float32; zeros where all weights are 0.

    Raises:
      ValueError: ``batch_size`` is below 1, or there are no batches.
    """
    total, weights = weighted_total(
        weighted_sum, batch_or_batches, batch_size=batch_size
    )
    # Where all weights are 0 so is the sum: the divisor only has to be no zero.
    return scaled(1.0 / jnp.where(weights == 0, 1.0, weights), total)


def weighted_total(
    weighted_sum: Callable[[Batch], Params],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    batch_size: int | None,
) -> tuple[Params, jax.Array]:
    """Return the sum over all examples, and that of the weights, both in float32.

    Arguments and errors as for :func:`weighted_mean`.
    """
    if isinstance(batch_or_batches, Mapping):
        return sums_of(weighted_sum, batch_or_batches, batch_size)
    total, weights = None, jnp.float32(0)
    for batch in batch_or_batches:
        part, weight = compiled_sums(as_argument(weighted_sum), dict(batch), batch_size)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
        weights = weights + weight
    if total is None:
        raise ValueError("batches is empty: give at least one batch")
    return total, weights


def sums_of(
    weighted_sum: Callable[[Batch], Params], batch: Batch, batch_size: int | None
) -> tuple[Params, jax.Array]:
    """Return the weighted sum over one batch, and the sum of the weights."""
    batch, size = with_weight(batch), example_count(batch)
    if batch_size is None or batch_size >= size:
        total = scaled(1.0, weighted_sum(batch))
    else:
        total = sum_over_chunks(weighted_sum, chunks_of(batch, size, batch_size))
    return total, batch["weight"].sum()


def rows_of(
    function: Callable[[Batch], Any],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    batch_size: int | None,
) -> Any:
    """Return ``function(batch)``, arrays [B,...], in microbatches of ``batch_size``.

    Args:
      function: From a batch that has a ``weight`` to arrays with leading axis B; over
        batches a ``Partial``, as for :func:`weighted_mean`.
      batch_or_batches: As for :func:`weighted_mean`. The rows of several batches follow
        each other, on the host.
      batch_size: Examples in memory at a time; it need not divide B.

    Raises:
      ValueError: ``batch_size`` is below 1, or there are no batches.
    """
    if isinstance(batch_or_batches, Mapping):
        return rows_in_batch(function, batch_or_batches, batch_size)
    parts = [
        jax.device_get(compiled_rows(as_argument(function), dict(batch), batch_size))
        for batch in batch_or_batches
    ]
    if not parts:
        raise ValueError("batches is empty: give at least one batch")
    return jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)


def example_rows(
    function: Callable[[Batch], Any], batches: Iterable[Batch], *, axis: int = 0
) -> Any:
    """Return what ``function`` gives for each example of ``batches``, on the host.

    Args:
      function: From a batch to arrays with an axis of examples; a ``Partial`` of a
        module's function and its arguments compiles once for all calls. A model or a
        task is a tree, and may be an argument.
      batches: Batches of one shape, in order. Rows of ``index`` -1 are padding, and
        left out.
      axis: Of the examples in the arrays.

    Returns:
      NumPy arrays with the n examples of all batches on ``axis``.

    Raises:
      ValueError: There are no batches.

    >>> x, index = np.arange(2.0), np.array([7, -1])
    >>> batches = [{"x": x}, {"x": x, "index": index}]
    >>> example_rows(lambda batch: 2 * batch["x"], batches).tolist()
    [0.0, 2.0, 0.0]
    """
    argument, parts = as_argument(function), []
    for batch in batches:
        rows, real = jax.device_get(compiled(argument, dict(batch))), real_rows(batch)
        parts.append(jax.tree.map(lambda x, real=real: x.compress(real, axis), rows))
    if not parts:
        raise ValueError("batches is empty: give at least one batch")
    return jax.tree.map(lambda *x: np.concatenate(x, axis=axis), *parts)


@jax.jit
def mapped(function: Callable[[Any], Any], rows: Any) -> Any:
    """Return ``function(row)`` of each row, one at a time.

    The function is a ``Partial`` of a module's function and its arguments, those that
    are no arrays :class:`Static`; by it the program is found again.
    """
    return jax.lax.map(function, rows)


def real_rows(batch: Batch) -> np.ndarray:
    """Return which rows of a batch are no padding, bool[B]."""
    return np.asarray(batch.get("index", np.zeros(example_count(batch)))) >= 0


@jax.jit
def compiled(function: Callable[[Batch], Any], batch: Batch) -> Any:
    """Return ``function(batch)``; the program is found again by the function."""
    return function(batch)


def rows_in_batch(
    function: Callable[[Batch], Any], batch: Batch, batch_size: int | None
) -> Any:
    """Return the rows of one batch."""
    batch, size = with_weight(batch), example_count(batch)
    if batch_size is None or batch_size >= size:
        return function(batch)
    parts = jax.lax.map(function, chunks_of(batch, size, batch_size))
    # A chunk holds every chunks-th example: see chunks_of.
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:size], parts
    )


compiled_sums = jax.jit(sums_of, static_argnums=2)
compiled_rows = jax.jit(rows_in_batch, static_argnums=2)


def with_weight(batch: Batch) -> dict:
    """Return the batch with its weights, see :func:`example_weights`."""
    return {**batch, "weight": example_weights(batch)}


def example_weights(batch: Batch) -> jax.Array:
    """Return each example's weight, float32[B].

    Where the batch has none it is 1, and 0 for padding, whose ``index`` is -1.

    >>> example_weights({"index": jnp.array([7, -1])}).tolist()
    [1.0, 0.0]
    """
    if "weight" in batch:
        return jnp.asarray(batch["weight"], jnp.float32)
    return jnp.asarray(indexed(batch)["index"] >= 0, jnp.float32)


def example_count(batch: Batch) -> int:
    """Return B."""
    return jax.tree.leaves(dict(batch))[0].shape[0]


def indexed(batch: Batch) -> Batch:
    """Return the batch with ``index``: 0 to B - 1 where it has none."""
    return {"index": jnp.arange(example_count(batch)), **batch}


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
