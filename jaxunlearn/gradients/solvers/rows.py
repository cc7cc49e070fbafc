"""A tall matrix as a tree: leaves [n, ...], one row an eigenvector or a gradient."""

import jax
import jax.numpy as jnp

from jaxunlearn.types import Params


def row_products(rows: Params, vector: Params) -> jax.Array:
    """Return ``R v``, the inner product of each row with ``vector``, float32[n]."""
    products = jax.tree.map(
        lambda r, v: r.reshape(len(r), -1) @ v.reshape(-1), rows, vector
    )
    return jax.tree.reduce(jnp.add, products)


def row_sum(weights: jax.Array, rows: Params) -> Params:
    """Return ``R^T u``, the rows' sum by these weights."""
    return jax.tree.map(lambda r: jnp.tensordot(weights, r, axes=1), rows)


def gram_matrix(rows: Params) -> jax.Array:
    """Return ``R R^T``, float32[n, n]."""
    products = jax.tree.map(
        lambda r: r.reshape(len(r), -1) @ r.reshape(len(r), -1).T, rows
    )
    return jax.tree.reduce(jnp.add, products)


def require_rows(rows: Params, right_side: Params, name: str) -> int:
    """Return n, having refused rows that are not of the right side's shapes."""
    found = jax.tree.map(lambda r: jnp.shape(r)[1:], rows)
    expected = jax.tree.map(jnp.shape, right_side)
    sizes = {jnp.shape(r)[0] for r in jax.tree.leaves(rows)}
    if found != expected or len(sizes) != 1:
        raise ValueError(
            f"{name} must be a tree of right_side's shapes with one more axis n in "
            f"front: {jax.tree.map(jnp.shape, rows)} beside {expected}"
        )
    return sizes.pop()
