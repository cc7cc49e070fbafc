"""Conjugate gradients that watch the curvature of every direction they take."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.solvers.result import (
    ROUNDING,
    Solution,
    Status,
    damped,
    relative_residual,
    require_damping,
    require_matching,
    require_steps,
    solution,
)
from jaxunlearn.tree import add_scaled, cast, norm, vdot, zeros_like
from jaxunlearn.types import LinearMap, Params


class State(NamedTuple):
    """One step of the recursion."""

    value: Params
    residual: Params
    direction: Params
    product: jax.Array  # residual . preconditioned residual
    indefinite: jax.Array
    step: jax.Array


def cg(
    linear_map: LinearMap,
    right_side: Params,
    *,
    damping: jax.Array | float,
    tolerance: float = 1e-4,
    max_steps: int = 100,
    preconditioner: LinearMap | None = None,
    while_loop: Callable = jax.lax.while_loop,
) -> Solution:
    """Solve ``(A + damping I) x = b`` by conjugate gradients from x = 0.

    Hestenes and Stiefel, 1952. Stops when ``|b - (A + damping I) x| <= tolerance |b|``,
    or when it meets a direction p with ``p . (A + damping I) p <= 0``: the value is
    then the one before that step (Steihaug, 1983), 0 if it was the first.

    Args:
      linear_map: ``v -> A v``, A symmetric.
      right_side: b, a tree.
      damping: The ridge, at least 0.
      tolerance: Of the relative residual, in the Euclidean norm of the whole tree.
      max_steps: At most so many products with A (one more measures the residual).
      preconditioner: ``v -> M v``, M symmetric positive definite and near
        ``(A + damping I)^-1``, such as
        :func:`~jaxunlearn.gradients.solvers.low_rank_preconditioner`.
      while_loop: ``jax.lax.while_loop``, or
        :func:`~jaxunlearn.gradients.solvers.python_while_loop` for a map that cannot be
        traced.

    Returns:
      A Solution; status CONVERGED, MAX_STEPS, NEGATIVE_CURVATURE, PRECISION (the true
      residual is above the recursion's, which had converged) or NOT_FINITE.

    Raises:
      ValueError: ``damping`` or ``tolerance`` is negative, ``max_steps`` is below 1, or
        the map returns other shapes than it is given.

    Cost: a product a step, memory of four trees. In exact arithmetic the error falls by
    ``(sqrt(k) - 1) / (sqrt(k) + 1)`` a step, k the ratio of the extreme eigenvalues.

    Not ``lineax.CG``: that one calls a solve on an indefinite matrix a success, and
    from about a million float32 parameters on returns NaN, since it takes a curvature
    below 100 eps times the number of parameters for a breakdown.

    >>> found = cg(lambda v: 3 * v, jnp.array([4.0, 8.0]), damping=1.0)
    >>> found.value.tolist(), int(found.iterations)
    ([1.0, 2.0], 1)
    """
    require_damping(damping)
    require_steps(tolerance, max_steps)
    right_side = cast(right_side, jnp.float32)
    if while_loop is jax.lax.while_loop:
        require_matching(linear_map, right_side)
    if preconditioner is None:
        preconditioner = identity
    matrix = damped(linear_map, damping)
    target = tolerance * norm(right_side)

    def unfinished(state: State) -> jax.Array:
        return (
            (norm(state.residual) > target)
            & (state.step < max_steps)
            & ~state.indefinite
        )

    def step(state: State) -> State:
        image = matrix(state.direction)
        curvature = vdot(state.direction, image)
        # A NaN must end the loop too, and `<=` would let it pass.
        indefinite = ~(curvature > 0)
        length = jnp.where(indefinite, 0.0, state.product / curvature)
        value = add_scaled(state.value, length, state.direction)
        residual = add_scaled(state.residual, -length, image)
        conditioned = preconditioner(residual)
        product = vdot(residual, conditioned)
        direction = add_scaled(conditioned, product / state.product, state.direction)
        return State(value, residual, direction, product, indefinite, state.step + 1)

    conditioned = preconditioner(right_side)
    end = while_loop(
        unfinished,
        step,
        State(
            zeros_like(right_side),
            right_side,
            conditioned,
            vdot(right_side, conditioned),
            jnp.bool_(False),
            jnp.int32(0),
        ),
    )
    residual = relative_residual(linear_map, end.value, right_side, damping=damping)
    status = jnp.select(
        [end.indefinite, residual <= ROUNDING * tolerance, norm(end.residual) > target],
        [Status.NEGATIVE_CURVATURE, Status.CONVERGED, Status.MAX_STEPS],
        Status.PRECISION,
    )
    return solution(end.value, status, residual, end.step, damping)


def identity(vector: Params) -> Params:
    """Return the vector itself."""
    return vector
