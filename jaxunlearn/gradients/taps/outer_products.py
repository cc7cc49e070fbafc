"""Per-example gradients of a matrix, kept as the outer products that they are sums of.

A layer's weight is used once a token, so example b's gradient of it is
``G_b = sum_t left_bt right_bt^T``: for a dense layer its input times the gradient of
its output. Every parameter takes this form, seen as a matrix [L,R] (see ``plans.py``).
What is needed of G_b is mostly cheaper from the factors than from G_b.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class OuterProducts(NamedTuple):
    """``G_b = sum_t left[b,t] right[b,t]^T``, the gradients of B examples."""

    left: jax.Array | None
    """[B,T,L]; or int32[B,T], rows of the matrix (each a one-hot vector, a lookup); or
    None, which is 1 (L = 1: a bias)."""
    right: jax.Array  # [B,T,R]


Products = tuple[OuterProducts, ...]
"""A parameter used in several places: its gradient is the sum over them."""


def float32_einsum(equation: str, *operands: jax.Array) -> jax.Array:
    """Return the contraction, accumulated in float32 whatever the operands are."""
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)


def is_lookup(products: OuterProducts) -> bool:
    """Tell whether ``left`` holds row numbers."""
    return products.left is not None and jnp.issubdtype(
        products.left.dtype, jnp.integer
    )


def gradients(products: Products, rows: int) -> jax.Array:
    """Return the per-example gradients G, float32[B,L,R], with L = ``rows``.

    Cost: 2BTLR flops and memory of B matrices; a lookup only adds rows.
    """
    return functools.reduce(jnp.add, (gradient_of(part, rows) for part in products))


def gradient_of(part: OuterProducts, rows: int) -> jax.Array:
    """Return one part of the gradients, float32[B,L,R]."""
    if part.left is None:
        return part.right.astype(jnp.float32).sum(axis=1)[:, None]
    if is_lookup(part):
        size, _, width = part.right.shape
        zeros = jnp.zeros((size, rows, width), jnp.float32)
        example = jnp.arange(size)[:, None]
        return zeros.at[example, part.left].add(part.right.astype(jnp.float32))
    return float32_einsum("btl,btr->blr", part.left, part.right)


def squared_norms(products: Products, rows: int) -> jax.Array:
    """Return ``|G_b|^2``, float32[B].

    For one dense part by the cheaper of the two ways: from G (2TLR flops an example) or
    from the Gram matrices of the tokens, ``sum_ts (left_t.left_s)(right_t.right_s)``
    (2T^2(L+R) flops and no matrix).
    """
    if len(products) == 1:
        (part,) = products
        length, width = part.right.shape[1:]
        gram = float32_einsum("btr,bsr->bts", part.right, part.right)
        if is_lookup(part):
            same = part.left[:, :, None] == part.left[:, None, :]
            return jnp.sum(jnp.where(same, gram, 0.0), axis=(1, 2))
        if part.left is not None and length * (rows + width) < rows * width:
            left = float32_einsum("btl,bsl->bts", part.left, part.left)
            return jnp.sum(left * gram, axis=(1, 2))
    return jnp.sum(gradients(products, rows) ** 2, axis=(1, 2))


def inner_products(products: Products, directions: jax.Array) -> jax.Array:
    """Return ``<G_b, D_q>``, float32[B,Q], of directions [Q,L,R].

    Cost: for one direction ``left^T D right`` token by token, 2BTLR flops and no
    gradient; for more, the gradients once and one matrix product, 2BLR(T+Q).
    """
    return functools.reduce(
        jnp.add, (inner_products_of(part, directions) for part in products)
    )


def inner_products_of(part: OuterProducts, directions: jax.Array) -> jax.Array:
    """Return one part of the inner products, float32[B,Q]."""
    count, rows, _ = directions.shape
    if is_lookup(part):

        def looked_up(example):
            ids, right = example
            return float32_einsum("qtr,tr->q", directions[:, ids], right)

        return jax.lax.map(looked_up, (part.left, part.right))
    if part.left is not None and count == 1:
        return token_products_of(part, directions).sum(axis=1)
    if part.left is not None and rows > part.right.shape[-1]:
        # A product with the longer side last runs faster on CPUs, by up to a half.
        own = float32_einsum("btl,btr->brl", part.left, part.right)
        directions = directions.swapaxes(1, 2)
    else:
        own = gradient_of(part, rows)
    own = own.reshape(len(own), -1)
    return float32_einsum("bp,qp->bq", own, directions.reshape(count, -1))


def token_products(products: Products, directions: jax.Array) -> jax.Array:
    """Return each token's share of ``<G_b, D_q>``, float32[B,T,Q]: their sum is it.

    Cost: 2QBTLR flops for a dense part.
    """
    return functools.reduce(
        jnp.add, (token_products_of(part, directions) for part in products)
    )


def token_products_of(part: OuterProducts, directions: jax.Array) -> jax.Array:
    """Return one part of the tokens' shares, float32[B,T,Q]."""

    def with_one(direction):
        if part.left is None:
            return float32_einsum("btr,r->bt", part.right, direction[0])
        if is_lookup(part):
            return float32_einsum("btr,btr->bt", direction[part.left], part.right)
        mapped = float32_einsum("btl,lr->btr", part.left, direction)
        return jnp.sum(mapped * part.right.astype(jnp.float32), axis=-1)

    return jnp.moveaxis(jax.lax.map(with_one, directions), 0, -1)


def second_moment(products: Products, weight: jax.Array, rows: int) -> jax.Array:
    """Return ``sum_b w_b G_b^2`` entry by entry, float32[L,R].

    Cost: 2BTLR flops; one gradient in memory at a time.
    """

    def add(total, example):
        weight, parts = example
        own = gradients(jax.tree.map(lambda x: x[None], parts), rows)[0]
        return total + weight * own * own, None

    zeros = jnp.zeros((rows, products[0].right.shape[-1]), jnp.float32)
    return jax.lax.scan(add, zeros, (weight, products))[0]


def projections(products: Products, left: jax.Array, right: jax.Array) -> jax.Array:
    """Return ``left^T G_b right``, float32[B,k,m], of matrices [L,k] and [R,m].

    Cost: 2BT(Lk + Rm + km) flops: the gradients are never formed.
    """

    def project(part):
        narrow = float32_einsum("btr,rm->btm", part.right, right)
        if part.left is None:
            return left[0][None, :, None] * narrow.sum(axis=1)[:, None]
        if is_lookup(part):
            return float32_einsum("btk,btm->bkm", left[part.left], narrow)
        wide = float32_einsum("btl,lk->btk", part.left, left)
        return float32_einsum("btk,btm->bkm", wide, narrow)

    return functools.reduce(jnp.add, map(project, products))
