"""Whatever is read off the factors is what the gradient itself would tell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.taps import outer_products
from jaxunlearn.gradients.taps.outer_products import OuterProducts

SIZE = 3
EPS = 2.0**-23


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rows_looked_up(length, rows):
    """Row numbers, some of them twice in an example."""
    return np.random.default_rng(length).integers(rows, size=(SIZE, length))


def dense(length, rows, columns):
    return OuterProducts(normal(SIZE, length, rows), normal(SIZE, length, columns))


def lookup(length, rows, columns):
    ids = rows_looked_up(length, rows).astype(np.int32)
    return OuterProducts(ids, normal(SIZE, length, columns, seed=1))


def bias(length, columns):
    return OuterProducts(None, normal(SIZE, length, columns, seed=2))


PRODUCTS = {
    "short": (2, 8, (dense(2, 8, 9),)),  # its norm from the tokens' Gram matrices
    "long": (9, 4, (dense(9, 4, 3),)),  # from the gradient
    "tall": (5, 16, (dense(5, 16, 2),)),
    "lookup": (6, 5, (lookup(6, 5, 4),)),
    "bias": (6, 1, (bias(6, 5),)),
    "one token": (1, 4, (dense(1, 4, 3),)),
    "tied": (6, 5, (lookup(6, 5, 4), dense(6, 5, 4))),
    "tied, other tokens": (None, 5, (lookup(3, 5, 4), dense(6, 5, 4))),
}


def one_by_one(products, rows):
    """The gradients by their definition, token by token, float64[B,L,R]."""
    total = np.zeros((SIZE, rows, products[0].right.shape[-1]))
    for left, right in products:
        for b, t in np.ndindex(right.shape[:2]):
            if left is None:
                row = np.ones(1)
            elif left.ndim == 2:
                row = np.eye(rows)[left[b, t]]
            else:
                row = left[b, t]
            total[b] += np.outer(row, right[b, t])
    return total


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_statistic_is_that_of_the_gradients(name):
    length, rows, products = PRODUCTS[name]
    gradients = one_by_one(products, rows)
    columns = gradients.shape[-1]
    one = jnp.asarray(normal(1, rows, columns))
    three = jnp.asarray(normal(3, rows, columns, seed=3))
    weight = np.float32([1.0, 0.0, 2.5])
    left, right = map(jnp.asarray, (normal(rows, 2), normal(columns, 3, seed=4)))

    def everything(products):
        of = functools.partial
        found = {
            "gradients": of(outer_products.gradients, rows=rows),
            "norms": of(outer_products.squared_norms, rows=rows),
            "one": of(outer_products.inner_products, directions=one),
            "three": of(outer_products.inner_products, directions=three),
            "moment": of(outer_products.second_moment, weight=weight, rows=rows),
            "projections": of(outer_products.projections, left=left, right=right),
        }
        if length is not None:
            found["tokens"] = of(outer_products.token_products, directions=three)
        return {key: function(products) for key, function in found.items()}

    found = jax.jit(everything)(products)
    inner = np.einsum("blr,qlr->bq", gradients, three)
    expected = {
        "gradients": gradients,
        "norms": (gradients**2).sum(axis=(1, 2)),
        "one": np.einsum("blr,qlr->bq", gradients, one),
        "three": inner,
        "moment": np.einsum("b,blr->lr", weight, gradients**2),
        "projections": np.einsum("lk,blr,rm->bkm", left, gradients, right),
    }
    if length is not None:
        tokens = found.pop("tokens")
        assert tokens.shape == (SIZE, length, 3)
        single = [
            one_by_one([cut(part, t) for part in products], rows) for t in range(length)
        ]
        shares = np.einsum("tblr,qlr->btq", np.stack(single), three)
        np.testing.assert_allclose(
            tokens, shares, atol=100 * EPS * np.abs(shares).max()
        )
    for key, value in expected.items():
        assert found[key].dtype == jnp.float32
        close = 100 * EPS * np.abs(value).max()
        np.testing.assert_allclose(found[key], value, rtol=0, atol=close, err_msg=key)


def cut(part, t):
    """Return the outer products of token ``t`` alone."""
    return OuterProducts(
        None if part.left is None else part.left[:, t : t + 1],
        part.right[:, t : t + 1],
    )


def test_low_precision_factors_are_summed_in_float32():
    """512 products of 1 and 1 + 2^-7 leave bfloat16's eight bits."""
    left = jnp.ones((1, 512, 1), jnp.bfloat16)
    part = OuterProducts(left, left * jnp.bfloat16(1 + 2**-7))
    exact = 512 * (1 + 2**-7)
    assert outer_products.gradients((part,), 1).item() == exact
    assert outer_products.gradients((OuterProducts(None, part.right),), 1) == exact
    ids = OuterProducts(jnp.zeros((1, 512), jnp.int32), part.right)
    assert outer_products.gradients((ids,), 1).item() == exact
    for products in ((part,), (ids,)):
        assert outer_products.squared_norms(products, 1).item() == exact**2
        found = outer_products.inner_products(products, jnp.ones((1, 1, 1)))
        assert found.item() == exact
