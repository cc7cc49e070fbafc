"""Diagonal and trace of a matrix known by its products, by random signs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.randomness import pinned
from jaxunlearn.tree import scaled, vdot, zeros_like
from jaxunlearn.types import LinearMap, Params


class Estimate(NamedTuple):
    """A mean over probes, and its standard error, of the same form."""

    value: Params
    standard_error: Params


@pinned
def hutchinson_diagonal(
    linear_map: LinearMap, params: Params, *, key: jax.Array, probes: int
) -> Estimate:
    """Return an unbiased estimate of ``diag(A)``: the mean of ``z * A z``.

    z holds independent random signs (Bekas, Kokiopoulou and Saad, An estimator for the
    diagonal of a matrix, 2007). Exact from one probe on if A is diagonal; otherwise the
    variance of entry i is ``sum_{j != i} A_ij^2 / probes``.

    Args:
      linear_map: ``v -> A v``, A symmetric.
      params: Any tree of the parameters' shapes.
      key: Draws the signs.
      probes: Products with A, at least 2.

    Returns:
      Two float32 trees like ``params``: the diagonal and its standard error.

    Raises:
      ValueError: ``probes`` is below 2.

    Cost: ``probes`` products, one at a time; memory of four trees.

    >>> found = hutchinson_diagonal(
    ...     lambda v: 3 * v, jnp.zeros(2), key=jax.random.key(0), probes=2
    ... )
    >>> found.value.tolist(), found.standard_error.tolist()
    ([3.0, 3.0], [0.0, 0.0])
    """

    def sample(key: jax.Array) -> Params:
        signs = random_signs(params, key=key)
        return jax.tree.map(jnp.multiply, signs, linear_map(signs))

    return mean_over_keys(sample, zeros_like(params), key, probes)


@pinned
def hutchinson_trace(
    linear_map: LinearMap, params: Params, *, key: jax.Array, probes: int
) -> Estimate:
    """Return an unbiased estimate of ``trace(A)``, float32[]: the mean of ``z . A z``.

    Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    Arguments, errors and cost as :func:`hutchinson_diagonal`.
    """

    def sample(key: jax.Array) -> jax.Array:
        signs = random_signs(params, key=key)
        return vdot(signs, linear_map(signs))

    return mean_over_keys(sample, jnp.float32(0), key, probes)


def random_signs(params: Params, *, key: jax.Array) -> Params:
    """Return a float32 tree of independent -1 and 1, in the shapes of ``params``."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        jax.random.rademacher(k, leaf.shape, jnp.float32)
        for k, leaf in zip(keys, leaves, strict=True)
    )


def mean_over_keys(
    sample: Callable[[jax.Array], Params], zeros: Params, key: jax.Array, probes: int
) -> Estimate:
    """Return mean and standard error of ``probes`` samples, held one at a time."""
    if probes < 2:
        raise ValueError(
            f"probes={probes}: a standard error needs at least 2 (and 10 or more are "
            "usual)"
        )

    def add(state: tuple, numbered: tuple) -> tuple[tuple, None]:
        # Welford's recurrence: a difference of two large sums would cancel.
        mean, squares = state
        count, key = numbered
        x = sample(key)
        new = jax.tree.map(lambda m, x: m + (x - m) / count, mean, x)
        squares = jax.tree.map(
            lambda s, x, m, n: s + (x - m) * (x - n), squares, x, mean, new
        )
        return (new, squares), None

    counts = jnp.arange(1, probes + 1, dtype=jnp.float32)
    keys = jax.random.split(key, probes)
    (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (counts, keys))
    variance = scaled(1.0 / (probes * (probes - 1)), squares)
    return Estimate(mean, jax.tree.map(jnp.sqrt, variance))
