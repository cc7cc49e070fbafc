"""Inverses in the span of n gradients: Woodbury's, exact, and DataInf's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.solvers.result import (
    Solution,
    Status,
    relative_residual,
    require_damping,
    solution,
)
from jaxunlearn.gradients.solvers.rows import (
    gram_matrix,
    require_rows,
    row_products,
    row_sum,
)
from jaxunlearn.tree import (
    add_scaled,
    cast,
    leaf_name,
    norm,
    scaled,
    stacked_prefix,
    subtract,
)
from jaxunlearn.types import Params

TOLERANCE = 1e-3


def woodbury_dual(
    gradients: Params,
    right_side: Params,
    *,
    damping: jax.Array | float,
    weights: jax.Array | None = None,
) -> Solution:
    """Solve ``(G^T G / n + damping I) x = b`` exactly, through the n x n Gram matrix.

    See :func:`woodbury`, which this calls with the gradients at hand.

    Args:
      gradients: G, a tree like the right side, leaves [n, ...]
        (:func:`~jaxunlearn.gradients.per_example_gradients`).
      right_side: b, a tree.
      damping: The ridge, above 0.
      weights: float32[n], none negative, 0 for padding: A is then
        ``sum_i w_i g_i g_i^T / sum_i w_i``. None weighs all the same.

    Raises:
      ValueError: ``damping`` is not above 0, or the shapes do not match.

    >>> x = woodbury_dual(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2), damping=2.0)
    >>> x.value.tolist()
    [0.25, 0.10000000149011612]
    """
    size = require_rows(gradients, right_side, "gradients")
    gradients = cast(gradients, jnp.float32)
    return woodbury(
        lambda vector: row_products(gradients, vector),
        lambda combination: row_sum(combination, gradients),
        gram_matrix(gradients),
        right_side,
        damping=damping,
        weights=jnp.ones(size) if weights is None else weights,
    )


def woodbury(
    products: Callable[[Params], jax.Array],
    combine: Callable[[jax.Array], Params],
    gram: jax.Array,
    right_side: Params,
    *,
    damping: jax.Array | float,
    weights: jax.Array | None = None,
) -> Solution:
    """Solve ``(G^T W G + damping I) x = b`` with G known by its products only.

    ``x = (b - G^T S (S G G^T S + damping I)^-1 S G b) / damping``, S the square root of
    ``W = diag(w / sum(w))`` (Woodbury's identity), and one step of refinement, since
    the difference cancels where damping is small.

    Args:
      products: ``v -> G v``, float32[n]: one forward-mode sweep over the examples
        (:func:`~jaxunlearn.gradients.directional_scores`).
      combine: ``u -> G^T u``: one backward pass over the loss weighted by u.
      gram: ``G G^T``, float32[n, n]
        (:func:`~jaxunlearn.gradients.gradient_products` of the examples with
        themselves).
      right_side: b, a tree.
      damping: The ridge, above 0.
      weights: float32[n], none negative; None weighs all examples the same.

    Returns:
      A Solution; CONVERGED, PRECISION if the residual is above 1e-3 all the same, or
      NOT_FINITE.

    Raises:
      ValueError: ``damping`` is not above 0, or ``gram`` is not square.

    Cost: a factorisation of n x n, four products each way.
    """
    require_damping(damping, positive=True)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram has shape {gram.shape}: must be [n, n]")
    right_side = cast(right_side, jnp.float32)
    weights = jnp.ones(len(gram)) if weights is None else jnp.asarray(weights)
    share = weights / jnp.where(weights.sum() == 0, 1.0, weights.sum())
    root = jnp.sqrt(share)
    core = root[:, None] * gram * root[None, :] + damping * jnp.eye(len(gram))
    factor = jax.scipy.linalg.cho_factor(core)

    def solve(vector: Params) -> Params:
        inner = jax.scipy.linalg.cho_solve(factor, root * products(vector))
        rest = subtract(vector, combine(root * inner))
        return scaled(1 / damping, rest)

    def matrix(vector: Params) -> Params:
        return combine(share * products(vector))

    value = solve(right_side)
    rest = subtract(right_side, add_scaled(matrix(value), damping, value))
    value = add_scaled(value, 1.0, solve(rest))
    residual = relative_residual(matrix, value, right_side, damping=damping)
    status = jnp.where(residual <= TOLERANCE, Status.CONVERGED, Status.PRECISION)
    return solution(value, status, residual, 0, damping)


def datainf(
    gradients: Params,
    right_side: Params,
    *,
    damping: Params | jax.Array | float,
    weights: jax.Array | None = None,
    stacked: tuple[str, ...] = (),
) -> Solution:
    """Return DataInf's inverse, layer by layer: the mean of the n rank-one inverses.

    ``x_l = sum_i (b_l - g_il (g_il . b_l) / (d_l + |g_il|^2)) / (n d_l)``, d_l the
    layer's damping, in the place of ``(sum_i g_il g_il^T / n + d_l I)^-1 b_l``: mean
    and inverse are exchanged (Kwon et al., DataInf, 2024). A layer is a leaf, or one
    slice of a leaf that is stacked over layers.

    Args:
      gradients: A tree like the right side, leaves [n, ...].
      right_side: b, a tree.
      damping: The ridge, above 0: one number, or a tree with one a layer
        (:func:`datainf_damping`, the paper's rule).
      weights: float32[n], none negative, 0 for padding; None weighs all the same.
      stacked: Folders whose leaves are stacked, as for ``tree.select``.

    Returns:
      A Solution; APPROXIMATE, with the residual of the block-diagonal system whose
      inverse it approximates; or NOT_FINITE.

    Raises:
      ValueError: ``damping`` is not above 0, or the shapes do not match.

    Cost: four passes over the gradients.

    >>> x = datainf(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones(2), damping=1.0)
    >>> x.value.tolist()
    [0.75, 0.6000000238418579]
    """
    size = require_rows(gradients, right_side, "gradients")
    for leaf in jax.tree.leaves(damping):
        require_damping(leaf, positive=True)
    gradients, right_side = cast((gradients, right_side), jnp.float32)
    weights = jnp.ones(size) if weights is None else jnp.asarray(weights)
    share = weights / jnp.where(weights.sum() == 0, 1.0, weights.sum())
    if jax.tree.structure(damping) == jax.tree.structure(right_side):
        dampings = damping
    else:
        dampings = jax.tree.map(lambda _: damping, right_side)

    def layers_of(path: tuple, g: jax.Array, b: jax.Array, d: jax.Array) -> tuple:
        """Return gradients [n, N, d], right side [N, d] and damping [N, 1]."""
        whole = stacked_prefix(leaf_name(path), stacked) is None
        count = 1 if whole else b.shape[0]
        d = jnp.broadcast_to(jnp.asarray(d, jnp.float32).reshape(-1, 1), (count, 1))
        return g.reshape(size, count, -1), b.reshape(count, -1), d

    def inverse(path: tuple, g: jax.Array, b: jax.Array, d: jax.Array) -> jax.Array:
        rows, vector, ridge = layers_of(path, g, b, d)
        dots = jnp.einsum("nld,ld->nl", rows, vector)
        lengths = jnp.einsum("nld,nld->nl", rows, rows)
        divisors = ridge[:, 0] + lengths
        factors = share[:, None] * dots / jnp.where(divisors == 0, 1.0, divisors)
        x = vector - jnp.einsum("nl,nld->ld", factors, rows)
        # A layer left out has neither gradients, nor so a damping by the rule.
        return jnp.where(x == 0, 0.0, x / ridge).reshape(b.shape)

    def rest(
        path: tuple, g: jax.Array, b: jax.Array, d: jax.Array, x: jax.Array
    ) -> jax.Array:
        rows, vector, ridge = layers_of(path, g, x, d)
        dots = share[:, None] * jnp.einsum("nld,ld->nl", rows, vector)
        image = jnp.einsum("nl,nld->ld", dots, rows) + ridge * vector
        return b - image.reshape(b.shape)

    trees = (gradients, right_side, dampings)
    value = jax.tree_util.tree_map_with_path(inverse, *trees)
    length = norm(right_side)
    remainder = norm(jax.tree_util.tree_map_with_path(rest, *trees, value))
    residual = remainder / jnp.where(length == 0, 1.0, length)
    return solution(value, Status.APPROXIMATE, residual, 0, damping)


def datainf_damping(
    gradients: Params,
    *,
    share: float = 0.1,
    weights: jax.Array | None = None,
    stacked: tuple[str, ...] = (),
) -> Params:
    """Return ``share`` times the mean eigenvalue of each layer's empirical Fisher.

    ``damping_l = share * sum_i w_i |g_il|^2 / (sum_i w_i d_l)``, d_l the layer's number
    of parameters (Kwon et al., DataInf, 2024, with their share).

    Args:
      gradients: A tree, leaves [n, ...].
      share: Of the mean eigenvalue.
      weights: float32[n]; None weighs all examples the same.
      stacked: As for :func:`datainf`.

    Returns:
      A tree that :func:`datainf` takes: float32[] a leaf, [N, 1, ...] if it is stacked
      over N layers. 0 for a layer whose gradients are all 0.

    Raises:
      ValueError: ``share`` is not positive.
    """
    if not share > 0:
        raise ValueError(f"share={share}: must be positive")
    size = len(jax.tree.leaves(gradients)[0])
    weights = jnp.ones(size) if weights is None else jnp.asarray(weights)
    total = weights / jnp.where(weights.sum() == 0, 1.0, weights.sum())

    def mean_square(path: tuple, g: jax.Array) -> jax.Array:
        squares = jnp.tensordot(total, g.astype(jnp.float32) ** 2, axes=1)
        if stacked_prefix(leaf_name(path), stacked) is None:
            return share * squares.mean()
        return share * squares.mean(axis=tuple(range(1, squares.ndim)), keepdims=True)

    return jax.tree_util.tree_map_with_path(mean_square, gradients)
