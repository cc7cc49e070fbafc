"""Inverses and preconditioners made of a few eigenpairs."""

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.solvers.eigenpairs import (
    LowRank,
    lanczos_eigenpairs,
    nystroem_eigenpairs,
)
from jaxunlearn.gradients.solvers.result import (
    Solution,
    Status,
    relative_residual,
    require_damping,
    solution,
)
from jaxunlearn.gradients.solvers.rows import require_rows, row_products, row_sum
from jaxunlearn.tree import add_scaled, cast, scaled
from jaxunlearn.types import LinearMap, Params


def low_rank(
    approximation: LowRank,
    right_side: Params,
    *,
    damping: jax.Array | float,
    complement: bool = True,
    linear_map: LinearMap | None = None,
    tolerance: float = 1e-4,
) -> Solution:
    """Solve ``(sum_k l_k q_k q_k^T + damping I) x = b`` in closed form.

    ``x = sum_k q_k c_k / (l_k + damping) + (b - sum_k q_k c_k) / damping`` with
    ``c_k = q_k . b``.

    Args:
      approximation: Of :func:`lanczos_eigenpairs` or :func:`nystroem_eigenpairs`: made
        once, for any number of right sides and dampings.
      right_side: b, a tree.
      damping: The ridge; above 0 with ``complement``, else at least 0.
      complement: Keep the second term, what the eigenpairs do not span. Influence
        functions by Arnoldi's iteration (Schioppa et al., 2022) leave it out.
      linear_map: A itself, for one more product: the residual is then that of A, not of
        its approximation, and CONVERGED means that it is within ``tolerance``.
      tolerance: Of that residual.

    Returns:
      A Solution: NEGATIVE_CURVATURE if the smallest eigenvalue seen plus damping is
      negative (or 0, of a used one); CONVERGED; or APPROXIMATE: a larger residual, or
      one of the approximation only.

    Raises:
      ValueError: ``damping`` is negative, or 0 with ``complement``; or the shapes of
        eigenvectors and right side differ.
    """
    require_damping(damping, positive=complement)
    require_rows(approximation.eigenvectors, right_side, "approximation.eigenvectors")
    right_side = cast(right_side, jnp.float32)
    values, vectors, smallest = approximation
    coefficients = row_products(vectors, right_side)
    # An eigenvalue of 0 goes with a vector of 0, which damping 0 must not make NaN.
    used = jnp.where(values == 0, 1.0, values + damping)
    if complement:
        spanned = row_sum(-values / (used * damping) * coefficients, vectors)
        value = add_scaled(spanned, 1 / damping, right_side)
    else:
        value = row_sum(coefficients / used, vectors)

    def own_product(tree: Params) -> Params:
        return row_sum(values * row_products(vectors, tree), vectors)

    residual = relative_residual(
        linear_map or own_product, value, right_side, damping=damping
    )
    within = (residual <= tolerance) & (linear_map is not None)
    status = jnp.where(within, Status.CONVERGED, Status.APPROXIMATE)
    negative = (used.min() <= 0) | (smallest + damping < 0)
    status = jnp.where(negative, Status.NEGATIVE_CURVATURE, status)
    return solution(value, status, residual, len(values), damping)


def low_rank_preconditioner(
    approximation: LowRank, *, damping: jax.Array | float
) -> LinearMap:
    """Return a preconditioner for ``cg``: near ``(A + damping I)^-1``, up to a factor.

    ``P = (l_K + damping) sum_k q_k q_k^T / (l_k + damping) + (I - sum_k q_k q_k^T)``
    with l_K the smallest eigenvalue of the approximation (Frangella, Tropp and Udell,
    Randomized Nystroem preconditioning, 2021): what the eigenpairs span is brought to
    the size of the rest.

    Raises:
      ValueError: ``damping`` is not above 0.
    """
    require_damping(damping, positive=True)
    # Of negative eigenvalues only the size can precondition: P must be positive.
    values = jnp.abs(approximation.eigenvalues)
    share = (values.min() + damping) / (values + damping) - 1

    def apply(vector: Params) -> Params:
        weights = share * row_products(approximation.eigenvectors, vector)
        spanned = row_sum(weights, approximation.eigenvectors)
        return add_scaled(scaled(1.0, vector), 1.0, spanned)

    return apply


def lanczos(
    linear_map: LinearMap,
    right_side: Params,
    *,
    damping: jax.Array | float,
    rank: int,
    key: jax.Array,
    steps: int | None = None,
    mask: Params | None = None,
    complement: bool = True,
    tolerance: float = 1e-4,
) -> Solution:
    """Solve by :func:`lanczos_eigenpairs` and :func:`low_rank`, for one right side.

    Their arguments, results and errors; ``Solution.iterations`` is the rank.
    """
    require_damping(damping, positive=complement)
    pairs = lanczos_eigenpairs(
        linear_map, right_side, rank=rank, key=key, steps=steps, mask=mask
    )
    return low_rank(
        pairs,
        right_side,
        damping=damping,
        complement=complement,
        linear_map=linear_map,
        tolerance=tolerance,
    )


def nystroem(
    linear_map: LinearMap,
    right_side: Params,
    *,
    damping: jax.Array | float,
    rank: int,
    key: jax.Array,
    mask: Params | None = None,
    tolerance: float = 1e-4,
) -> Solution:
    """Solve by :func:`nystroem_eigenpairs` and :func:`low_rank`, for one right side.

    Their arguments, results and errors; ``Solution.iterations`` is the rank.
    """
    require_damping(damping, positive=True)
    pairs = nystroem_eigenpairs(linear_map, right_side, rank=rank, key=key, mask=mask)
    return low_rank(
        pairs,
        right_side,
        damping=damping,
        linear_map=linear_map,
        tolerance=tolerance,
    )
