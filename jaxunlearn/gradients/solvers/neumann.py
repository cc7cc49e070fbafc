"""LiSSA: the truncated Neumann series, and the eigenvalue that scales it."""

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
from jaxunlearn.randomness import pinned
from jaxunlearn.tree import add_scaled, cast, norm, scaled, vdot, zeros_like
from jaxunlearn.types import LinearMap, Params

MARGIN = 1.1  # of an eigenvalue that power iteration finds from below
GROWTH = 10.0  # a residual this much above the smallest one seen is no rounding


class State(NamedTuple):
    """One step of the recursion."""

    value: Params
    residual: Params
    smallest: jax.Array  # norm of the smallest residual so far
    negative: jax.Array  # the last residual was a direction of negative curvature
    step: jax.Array


@pinned
def lissa(
    linear_map: LinearMap,
    right_side: Params,
    *,
    damping: jax.Array | float,
    scale: jax.Array | float | None = None,
    key: jax.Array | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    while_loop: Callable = jax.lax.while_loop,
) -> Solution:
    """Solve ``(A + damping I) x = b`` by LiSSA's recursion, on the whole data.

    Agarwal, Bullins and Hazan, Second-order stochastic optimization in linear time,
    2017; in influence functions since Koh and Liang, 2017. Published code writes, with
    a damping d of the recursion's own,

    ``u_0 = b,  u_{k+1} = b + (1 - d) u_k - A u_k / scale,  x = u / scale``,

    whose fixed point solves ``(A + d scale I) x = b``: **the ridge in effect is
    d times scale**, 20 in a published setting of d = 1e-4 and scale = 2e5. Here
    ``damping`` is that ridge, as in every other solver, and d is ``damping / scale``:
    for published settings pass ``damping=d * scale``. The iterates are the same.

    The recursion converges where all eigenvalues of A + damping I lie between 0 and
    ``2 scale``. Then its residual never grows, so one that grows tells divergence at
    once.

    Args:
      linear_map: ``v -> A v``, A symmetric.
      right_side: b, a tree.
      damping: The ridge, at least 0.
      scale: At least half the largest eigenvalue of A + damping I. None measures it
        (:func:`largest_eigenvalue`, 20 products) and adds a tenth.
      key: For the measurement; needed if ``scale`` is None.
      tolerance: Of the relative residual.
      max_steps: At most so many products with A.
      while_loop: As of :func:`~jaxunlearn.gradients.solvers.cg`.

    Returns:
      A Solution; status CONVERGED, MAX_STEPS, DIVERGED (scale too small),
      NEGATIVE_CURVATURE, PRECISION or NOT_FINITE.

    Raises:
      ValueError: ``damping`` or ``tolerance`` is negative, ``scale`` is not positive,
        ``max_steps`` is below 1, ``key`` is missing, or the map returns other shapes
        than it is given.

    Cost: a product a step, memory of three trees. The error falls by
    ``1 - (smallest eigenvalue of A + damping I) / scale`` a step:
    :func:`~jaxunlearn.gradients.solvers.cg` needs about the square root of the steps.

    >>> found = lissa(lambda v: 3 * v, jnp.array([4.0, 8.0]), damping=1.0, scale=4.0)
    >>> found.value.tolist()
    [1.0, 2.0]
    """
    require_damping(damping)
    require_steps(tolerance, max_steps)
    right_side = cast(right_side, jnp.float32)
    if while_loop is jax.lax.while_loop:
        require_matching(linear_map, right_side)
    if scale is None:
        if key is None:
            raise ValueError(
                "scale=None is measured by power iteration from a random start: pass "
                "key=jax.random.key(0), or scale="
            )
        largest = largest_eigenvalue(
            linear_map, right_side, key=key, while_loop=while_loop
        )
        # Of a zero map any scale will do, but 0.
        scale = jnp.maximum(MARGIN * largest + damping, jnp.finfo(jnp.float32).tiny)
    elif isinstance(scale, int | float) and not scale > 0:
        raise ValueError(f"scale={scale}: must be above 0")
    matrix = damped(linear_map, damping)
    size = norm(right_side)

    def unfinished(state: State) -> jax.Array:
        length = norm(state.residual)
        return (
            (length > tolerance * size)
            & (length <= GROWTH * state.smallest)
            & (state.step < max_steps)
            & ~state.negative
        )

    def step(state: State) -> State:
        """Take ``x + r / scale``: u's recursion, in x = u / scale."""
        value = add_scaled(state.value, 1 / scale, state.residual)
        image = matrix(state.residual)
        residual = add_scaled(state.residual, -1 / scale, image)
        return State(
            value,
            residual,
            jnp.minimum(state.smallest, norm(residual)),
            vdot(state.residual, image) < 0,
            state.step + 1,
        )

    start = State(
        zeros_like(right_side), right_side, size, jnp.bool_(False), jnp.int32(0)
    )
    end = while_loop(unfinished, step, start)
    residual = relative_residual(linear_map, end.value, right_side, damping=damping)
    length = norm(end.residual)
    status = jnp.select(
        [
            end.negative,
            residual <= ROUNDING * tolerance,
            length > GROWTH * end.smallest,
            length > tolerance * size,
        ],
        [
            Status.NEGATIVE_CURVATURE,
            Status.CONVERGED,
            Status.DIVERGED,
            Status.MAX_STEPS,
        ],
        Status.PRECISION,
    )
    return solution(end.value, status, residual, end.step, damping)


@pinned
def largest_eigenvalue(
    linear_map: LinearMap,
    params: Params,
    *,
    key: jax.Array,
    steps: int = 20,
    while_loop: Callable = jax.lax.while_loop,
) -> jax.Array:
    """Return the largest magnitude of an eigenvalue of A, by power iteration.

    A lower bound, ``|A v|`` of the last unit vector v: within a few per cent after 20
    steps where the top eigenvalues stand apart.

    Args:
      linear_map: ``v -> A v``, A symmetric.
      params: Any tree of the parameters' shapes.
      key: Draws the first vector.
      steps: Products with A, at least 1.
      while_loop: As of :func:`~jaxunlearn.gradients.solvers.cg`.

    Raises:
      ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    start = structure.unflatten(
        jax.random.normal(k, leaf.shape, jnp.float32)
        for k, leaf in zip(keys, leaves, strict=True)
    )

    def step(state: tuple) -> tuple:
        vector, size, count = state
        image = scaled(1 / jnp.where(size == 0, 1.0, size), vector)
        image = scaled(1.0, linear_map(image))
        return image, norm(image), count + 1

    state = (start, norm(start), jnp.int32(0))
    return while_loop(lambda state: state[2] < steps, step, state)[1]
