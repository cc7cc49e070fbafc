"""The mathematics of Kronecker-factored curvature, on the outer products of one layer.

The Fisher matrix of a layer, ``F = E[vec(G) vec(G)^T]`` with ``G = sum_t l_t r_t^T``,
is approximated in a basis of Kronecker form, ``(Q_L (x) Q_R) diag(Lambda) (.)^T``. Q_L
and Q_R are the eigenvectors of the second moments of l and of r. K-FAC takes for Lambda
the products of their eigenvalues (as if l and r were independent), EK-FAC what Lambda
truly is in that basis: the mean square of ``Q_L^T G_b Q_R``. That is the closest one in
Frobenius norm (George et al., Fast approximate natural gradient descent in a
Kronecker-factored eigenbasis, https://arxiv.org/abs/1806.03884).

Everything here is of one layer; stacked layers come one at a time.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.taps.outer_products import (
    OuterProducts,
    Products,
    float32_einsum,
    gradients,
    is_lookup,
)

BLOCKS = 5
"""Bands of a symmetric product, each formed only from the diagonal rightwards."""

GRADIENT_BYTES = 2**26
"""Most memory for the per-example gradients of one layer at a time."""


class Moments(NamedTuple):
    """Sums over the examples of one place where a parameter is used.

    An axis without a basis of its own has the diagonal only.
    """

    left: jax.Array  # sum_bt w_b l l^T, float32[L,L], or its diagonal [L]
    right: jax.Array  # sum_bt w_b r r^T, float32[R,R], or its diagonal [R]
    tokens: jax.Array  # sum_bt w_b, float32[]; only tokens whose product is not 0


class Basis(NamedTuple):
    """Orthogonal matrices, eigenvectors in columns; None is the identity."""

    left: jax.Array | None  # Q_L, float32[...,L,L]
    right: jax.Array | None  # Q_R, float32[...,R,R]


def with_ones(products: Products) -> Products:
    """Return a kernel's products with a last row, the bias, that sees a 1 everywhere.

    The bias's gradient is ``sum_t right_t``, so kernel and bias form one matrix.
    """

    def add(left: jax.Array) -> jax.Array:
        ones = jnp.ones((*left.shape[:-1], 1), left.dtype)
        return jnp.concatenate([left, ones], axis=-1)

    return tuple(
        OuterProducts(None if part.left is None else add(part.left), part.right)
        for part in products
    )


def moments(
    products: Products, weight: jax.Array, rows: int, *, largest: int
) -> tuple[Moments, ...]:
    """Return the second moments of each place's factors, summed over the examples.

    Args:
      products: The outer products of B examples.
      weight: float32[B].
      rows: L.
      largest: An axis longer than this has no basis of its own.

    Cost: BT(L^2 + R^2) flops, half of a full product since it is symmetric.
    """
    plain = any(part.left is None for part in products)
    looked_up = any(map(is_lookup, products))
    left_diagonal = plain or looked_up or rows > largest
    right_diagonal = plain or products[0].right.shape[-1] > largest

    def of_place(part: OuterProducts) -> Moments:
        counted = weight[:, None] * counts(part)
        right = second_moment(part.right, counted, right_diagonal)
        if part.left is None:
            left = counted.sum()[None]
        elif is_lookup(part):
            # One-hot vectors: their second moment is diagonal, how often each came.
            left = jnp.zeros(rows, jnp.float32).at[part.left].add(counted)
        else:
            left = second_moment(part.left, counted, left_diagonal)
        return Moments(left, right, counted.sum())

    return tuple(of_place(part) for part in products)


def counts(part: OuterProducts) -> jax.Array:
    """Return 1 for each token whose outer product is not zero, float32[B,T].

    Padding and tokens without a loss after them give no gradient; if they counted in
    the moment of the left factors, it would depend on the padding.
    """
    counted = jnp.any(part.right != 0, axis=-1)
    if part.left is not None and not is_lookup(part):
        counted &= jnp.any(part.left != 0, axis=-1)
    return counted.astype(jnp.float32)


def second_moment(x: jax.Array, weight: jax.Array, diagonal: bool) -> jax.Array:
    """Return ``sum_bt weight_bt x_bt x_bt^T`` of x [B,T,K], or its diagonal [K]."""
    x = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    weighted = x * weight.reshape(-1, 1)
    if diagonal:
        return jnp.sum(weighted * x, axis=0)
    return symmetric_product(weighted, x)


def symmetric_product(weighted: jax.Array, x: jax.Array) -> jax.Array:
    """Return ``weighted^T x``, known to be symmetric, from its upper half."""
    size = x.shape[-1]
    bands = min(BLOCKS, max(1, size // 128))
    edges = [size * i // bands for i in range(bands + 1)]
    rows = [
        float32_einsum("ti,tj->ij", weighted[:, start:stop], x[:, start:])
        for start, stop in itertools.pairwise(edges)
    ]
    upper = jnp.concatenate(
        [jnp.pad(row, ((0, 0), (size - row.shape[1], 0))) for row in rows]
    )
    upper = jnp.triu(upper)
    return upper + jnp.triu(upper, 1).T


def eigenbasis(places: tuple[Moments, ...], eigh: str = "float32") -> Basis:
    """Return the eigenvectors of the moments.

    A parameter used in several places has the Fisher matrix ``sum_i A_i (x) S_i``; the
    bases are those of its partial traces, ``sum_i tr(S_i) A_i`` and ``sum_i tr(A_i)
    S_i`` (of one place: of A and of S).

    Args:
      places: Moments.
      eigh: ``"float32"``, or ``"float64"`` on the host by NumPy.
    """
    lefts, rights = [place.left for place in places], [place.right for place in places]
    return Basis(
        eigenvectors(lefts, rights, places, eigh),
        eigenvectors(rights, lefts, places, eigh),
    )


def eigenvectors(
    own: list[jax.Array], other: list[jax.Array], places: tuple[Moments, ...], eigh: str
) -> jax.Array | None:
    """Return the eigenvectors of ``sum_i tr(other_i) own_i``, None of a diagonal."""
    if own[0].ndim == 1:
        return None
    if len(own) == 1:
        total = own[0]
    else:
        # tokens_i turns the sum over tokens of the left factors into a mean.
        total = sum(
            trace(y) / positive(place.tokens) * x
            for x, y, place in zip(own, other, places, strict=True)
        )
    if eigh == "float64":
        return eigenvectors_on_host(total)
    # A sum over many tokens may be far from 1, where single precision is best.
    return jnp.linalg.eigh(total / positive(trace(total)))[1]


def eigenvectors_on_host(matrix: jax.Array) -> jax.Array:
    """Return the eigenvectors, computed by NumPy in float64."""
    import numpy as np

    def solve(matrix):
        return np.linalg.eigh(np.asarray(matrix, np.float64))[1].astype(np.float32)

    shape = jax.ShapeDtypeStruct(matrix.shape, jnp.float32)
    return jax.pure_callback(solve, shape, matrix, vmap_method="sequential")


def trace(x: jax.Array) -> jax.Array:
    """Return the trace of a matrix, or of a diagonal."""
    return x.sum() if x.ndim == 1 else jnp.trace(x)


def positive(x: jax.Array) -> jax.Array:
    """Return x, and 1 in place of 0: a divisor of what is then 0 too."""
    return jnp.where(x == 0, 1.0, x)


def kfac_eigenvalues(
    places: tuple[Moments, ...], basis: Basis, weight: jax.Array
) -> jax.Array:
    """Return K-FAC's Lambda, float32[L,R].

    ``sum_i diag(Q_L^T A_i Q_L) (x) diag(Q_R^T S_i Q_R)`` over the places i of use. A is
    the mean over tokens, S the mean over examples of the sum over tokens, so that
    ``A (x) S`` estimates F itself: exactly if tokens' products are uncorrelated and l
    independent of r.
    """

    def of_place(place: Moments) -> jax.Array:
        left = diagonal_in(place.left, basis.left) / positive(place.tokens)
        right = diagonal_in(place.right, basis.right) / positive(weight)
        return jnp.outer(left, right)

    return functools.reduce(jnp.add, map(of_place, places))


def diagonal_in(moment: jax.Array, basis: jax.Array | None) -> jax.Array:
    """Return the diagonal of ``Q^T M Q``; rounding makes no eigenvalue negative."""
    if basis is None:
        return moment
    return jnp.maximum(jnp.sum(basis * (moment @ basis), axis=0), 0.0)


def rotated(products: Products, basis: Basis) -> Products:
    """Return the products of ``Q_L^T G_b Q_R``, by rotating tokens.

    Cost: 2BT(L^2 + R^2) flops; rotating G_b itself takes 2BLR(L + R).
    """

    def rotate(part: OuterProducts) -> OuterProducts:
        left, right = part.left, part.right.astype(jnp.float32)
        if basis.left is not None:
            left = float32_einsum("btl,lk->btk", left, basis.left)
        if basis.right is not None:
            right = float32_einsum("btr,rm->btm", right, basis.right)
        return OuterProducts(left, right)

    return tuple(rotate(part) for part in products)


def squares(products: Products, weight: jax.Array, rows: int) -> jax.Array:
    """Return ``sum_b w_b G_b^2`` entry by entry, float32[L,R].

    Memory: the gradients of as many examples as fit in ``GRADIENT_BYTES``, at least 1.
    """
    columns = products[0].right.shape[-1]
    group = group_size(len(weight), rows * columns)
    grouped = jax.tree.map(
        lambda x: x.reshape(-1, group, *x.shape[1:]), (products, weight)
    )

    def add(total: jax.Array, part: tuple) -> tuple[jax.Array, None]:
        products, weight = part
        own = gradients(products, rows)
        return total + jnp.einsum("b,blr->lr", weight, own * own), None

    zeros = jnp.zeros((rows, columns), jnp.float32)
    return jax.lax.scan(add, zeros, grouped)[0]


def group_size(examples: int, numbers: int) -> int:
    """Return how many examples of ``numbers`` floats to hold: a divisor of them."""
    most = max(1, GRADIENT_BYTES // (4 * numbers))
    return max(g for g in range(1, examples + 1) if examples % g == 0 and g <= most)


def rotate_matrix(value: jax.Array, basis: Basis) -> jax.Array:
    """Return ``Q_L^T M Q_R`` of matrices [...,L,R]."""
    if basis.left is not None:
        value = float32_einsum("...lk,...lr->...kr", basis.left, value)
    if basis.right is not None:
        value = float32_einsum("...lr,...rm->...lm", value, basis.right)
    return value


def rotate_matrix_back(value: jax.Array, basis: Basis) -> jax.Array:
    """Return ``Q_L M Q_R^T`` of matrices [...,L,R]."""
    if basis.left is not None:
        value = float32_einsum("...lk,...kr->...lr", basis.left, value)
    if basis.right is not None:
        value = float32_einsum("...lm,...rm->...lr", value, basis.right)
    return value
