"""The two inverses that look at one parameter at a time."""

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.solvers.result import (
    Solution,
    Status,
    relative_residual,
    require_damping,
    solution,
)
from jaxunlearn.tree import cast
from jaxunlearn.types import Params


def diagonal(
    curvature_diagonal: Params, right_side: Params, *, damping: jax.Array | float
) -> Solution:
    """Return ``x = b / (D + damping)``, D a diagonal such as a Fisher diagonal.

    Args:
      curvature_diagonal: D, a tree like the right side
        (:func:`~jaxunlearn.gradients.fisher_diagonal`, or Hutchinson's estimate).
      right_side: b, a tree.
      damping: The ridge, at least 0.

    Returns:
      A Solution of the diagonal system: CONVERGED, NEGATIVE_CURVATURE where D +
      damping is negative anywhere, NOT_FINITE where it is 0 and b is not. Where both
      are 0, as outside chosen parameters, x is 0.

    Raises:
      ValueError: ``damping`` is negative or the shapes differ.

    >>> diagonal(jnp.array([1.0, 3.0]), jnp.array([4.0, 8.0]), damping=1.0).value
    Array([2., 2.], dtype=float32)
    """
    require_damping(damping)
    shapes, expected = jax.tree.map(jnp.shape, (curvature_diagonal, right_side))
    if shapes != expected:
        raise ValueError(
            f"curvature_diagonal must have right_side's shapes: {shapes} is not "
            f"{expected}"
        )
    curvature_diagonal, right_side = cast((curvature_diagonal, right_side), jnp.float32)
    value = jax.tree.map(
        lambda d, b: jnp.where(b == 0, 0.0, b / (d + damping)),
        curvature_diagonal,
        right_side,
    )
    smallest = jax.tree.reduce(
        jnp.minimum, jax.tree.map(lambda d: jnp.min(d, initial=0), curvature_diagonal)
    )
    status = jnp.where(
        smallest + damping < 0, Status.NEGATIVE_CURVATURE, Status.CONVERGED
    )

    def product(vector: Params) -> Params:
        return jax.tree.map(jnp.multiply, curvature_diagonal, vector)

    residual = relative_residual(product, value, right_side, damping=damping)
    return solution(value, status, residual, 0, damping)


def identity(right_side: Params) -> Solution:
    """Return ``x = b``: no curvature, as in plain gradient products.

    The damping in effect is 1 on a curvature of 0, which is what the Solution says.

    >>> identity(jnp.array([4.0, 8.0])).value.tolist()
    [4.0, 8.0]
    """
    right_side = cast(right_side, jnp.float32)
    return solution(right_side, Status.CONVERGED, jnp.float32(0), 0, 1.0)
