"""What every solver returns, and what its status means."""

import enum
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.tree import add_scaled, norm, scaled, subtract
from jaxunlearn.types import LinearMap, Params

ROUNDING = 2.0
"""The residual of the value may be this much above the recursion's own."""


class Status(enum.IntEnum):
    """How a solver ended; :func:`message` says cause and remedy."""

    CONVERGED = 0
    MAX_STEPS = 1
    NEGATIVE_CURVATURE = 2
    DIVERGED = 3
    PRECISION = 4
    APPROXIMATE = 5
    NOT_FINITE = 6


MESSAGES = {
    Status.CONVERGED: "the residual is within the tolerance",
    Status.MAX_STEPS: (
        "the steps ran out before the residual was within the tolerance: the system is "
        "ill-conditioned. Raise max_steps, raise damping, loosen tolerance, or give cg "
        "a preconditioner (low_rank_preconditioner of nystroem_eigenpairs)"
    ),
    Status.NEGATIVE_CURVATURE: (
        "A + damping I is not positive definite: along some direction its curvature is "
        "negative or zero, as of a Hessian away from a minimum, and the value is only "
        "what was reached before that was seen. Raise damping above minus the smallest "
        "eigenvalue (lanczos_eigenpairs(...).smallest), or take gauss_newton_vp or "
        "fisher_vp in place of hvp"
    ),
    Status.DIVERGED: (
        "the recursion grows: scale is less than half the largest eigenvalue of A + "
        "damping I. Raise scale, or leave it None to have it measured"
    ),
    Status.PRECISION: (
        "float32 cannot bring the residual within the tolerance: the ratio of the "
        "largest eigenvalue to damping is too large for it, or linear_map is not "
        "symmetric or rounds its products (run it under "
        'jax.default_matmul_precision("highest")). Raise damping or loosen tolerance'
    ),
    Status.APPROXIMATE: (
        "the value is an approximation by design; the residual says how far it is from "
        "the solution (1: no better than zero). For a smaller one raise rank or "
        "damping, or use cg or woodbury_dual"
    ),
    Status.NOT_FINITE: (
        "a NaN or an infinity came up: look for one in the right side, the parameters "
        "or the loss (jaxunlearn.tree.non_finite_leaves names the leaves), or raise "
        "damping if it is 0 and A is singular"
    ),
}


class Solution(NamedTuple):
    """The answer of a solver.

    Attributes:
      value: x, a float32 tree like the right side.
      status: int32[], a :class:`Status`.
      residual: float32[], ``|b - (A + damping I) x| / |b|`` of the system that the
        solver was given, computed from x; 0 where b is 0.
      iterations: int32[], steps taken; 0 of a closed form.
      damping: The damping in effect, as it was given: float32[], or of
        :func:`~jaxunlearn.gradients.solvers.datainf` a tree with one a layer.
    """

    value: Params
    status: jax.Array
    residual: jax.Array
    iterations: jax.Array
    damping: Any


def message(status: int | jax.Array) -> str:
    """Return what a status means and what to try.

    >>> message(Status.CONVERGED)
    'CONVERGED: the residual is within the tolerance'
    """
    status = Status(int(status))
    return f"{status.name}: {MESSAGES[status]}"


def solution(
    value: Params,
    status: jax.Array | Status,
    residual: jax.Array,
    iterations: jax.Array | int,
    damping: Any,
) -> Solution:
    """Return a Solution of arrays, NOT_FINITE if value or residual is."""
    finite = jnp.isfinite(norm(value)) & jnp.isfinite(residual)
    return Solution(
        value,
        jnp.where(finite, status, Status.NOT_FINITE).astype(jnp.int32),
        residual,
        jnp.asarray(iterations, jnp.int32),
        jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), damping),
    )


def damped(linear_map: LinearMap, damping: jax.Array | float) -> LinearMap:
    """Return ``v -> A v + damping v``."""
    return lambda vector: add_scaled(scaled(1.0, linear_map(vector)), damping, vector)


def relative_residual(
    linear_map: LinearMap,
    value: Params,
    right_side: Params,
    *,
    damping: jax.Array | float,
) -> jax.Array:
    """Return ``|b - (A + damping I) x| / |b|``, float32[]; the numerator if b is 0.

    Measures any solver's value against any A, for one product.
    """
    rest = subtract(right_side, damped(linear_map, damping)(value))
    size = norm(right_side)
    return norm(rest) / jnp.where(size == 0, 1.0, size)


def require_damping(damping: jax.Array | float, *, positive: bool = False) -> None:
    """Refuse a negative damping (or one of 0), where its value is known here."""
    if not isinstance(damping, numbers.Real):
        return
    if not damping >= 0 or (positive and damping == 0):
        bound = "above 0" if positive else "at least 0"
        raise ValueError(
            f"damping={damping}: must be {bound}; damping_from_mean_eigenvalue and "
            "damping_by_validation choose one"
        )


def require_steps(tolerance: jax.Array | float, max_steps: int) -> None:
    """Refuse a negative tolerance, where its value is known here, and no steps."""
    if isinstance(tolerance, numbers.Real) and not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance}: must be at least 0")
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: must be at least 1")


def require_matching(linear_map: LinearMap, right_side: Params) -> None:
    """Refuse a map that does not return the shapes it is given."""
    expected = jax.tree.map(jnp.shape, right_side)
    found = jax.tree.map(lambda x: x.shape, jax.eval_shape(linear_map, right_side))
    if found != expected:
        raise ValueError(
            f"linear_map must return right_side's shapes: {found} is not {expected}"
        )


def python_while_loop(
    condition: Callable[[Any], Any], body: Callable[[Any], Any], state: Any
) -> Any:
    """Do what ``jax.lax.while_loop`` does, in Python.

    For a ``linear_map`` that cannot be traced, such as one that reads its data set from
    disk batch by batch: ``cg(..., while_loop=python_while_loop)``.
    """
    while condition(state):
        state = body(state)
    return state
