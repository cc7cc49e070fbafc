import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.kronecker.eigendecomposition import (
    Basis,
    eigenbasis,
    kfac_eigenvalues,
    moments,
    rotated,
    squares,
    symmetric_product,
)
from jaxunlearn.gradients.taps.outer_products import OuterProducts, gradients

EPSILON = float(jnp.finfo(jnp.float32).eps)


def close(a, b, factor=100.0):
    """Equal up to ``factor`` roundings of the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=factor * EPSILON * np.abs(b).max())


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# One layer, made by hand.


@pytest.mark.parametrize("size", [1, 5, 257, 300, 700])
def test_the_half_that_is_formed_gives_the_whole_product(size):
    x, weight = normal(20, size), jnp.arange(20.0)[:, None]
    close(symmetric_product(x * weight, x), (x * weight).T @ x)


def random_basis(left=4, right=3):
    """Orthogonal matrices that are not symmetric: a transposed one would show."""
    return Basis(
        jnp.linalg.qr(normal(left, left, seed=1))[0],
        jnp.linalg.qr(normal(right, right, seed=2))[0],
    )


def test_lambda_is_the_mean_square_in_the_kronecker_basis():
    products = (OuterProducts(normal(5, 6, 4), normal(5, 6, 3, seed=3)),)
    weight, basis = jnp.array([1.0, 2.0, 0.5, 0.0, 1.0]), random_basis()
    found = squares(rotated(products, basis), weight, 4)
    kron = np.kron(basis.left, basis.right)
    flat = gradients(products, 4).reshape(5, 12) @ kron
    close(found, (weight @ flat**2).reshape(4, 3))
    transposed = Basis(basis.left.T, basis.right.T)
    other = squares(rotated(products, transposed), weight, 4)
    assert float(jnp.abs(other - found).max()) > 0.1 * float(found.max())


def test_both_are_the_fisher_matrix_where_it_is_a_kronecker_product():
    # Every l with every r, one token: l and r are independent.
    left, right = normal(5, 4), normal(6, 3, seed=3)
    pairs = [(a, b) for a in left for b in right]
    products = (
        OuterProducts(*(jnp.stack(side)[:, None] for side in zip(*pairs, strict=True))),
    )
    weight = jnp.ones(30)
    places = moments(products, weight, 4, largest=100)
    basis = eigenbasis(places)
    kfac = kfac_eigenvalues(places, basis, weight.sum())
    ekfac = squares(rotated(products, basis), weight, 4) / 30
    close(kfac, ekfac)
    flat = np.asarray(gradients(products, 4).reshape(30, 12))
    kron = np.kron(basis.left, basis.right)
    close(kron @ np.diag(ekfac.ravel()) @ kron.T, flat.T @ flat / 30)


def test_a_lookup_is_a_one_hot_input():
    ids, right = jnp.array([[0, 2, 2], [4, 1, 0]]), normal(2, 3, 3)
    weight, largest = jnp.array([1.0, 2.0]), 4
    looked_up = (OuterProducts(ids, right),)
    dense = (OuterProducts(jax.nn.one_hot(ids, 5), right),)
    a, b = (moments(p, weight, 5, largest=largest) for p in (looked_up, dense))
    jax.tree.map(close, a, b)
    basis = Basis(None, random_basis().right)
    close(
        squares(rotated(looked_up, basis), weight, 5),
        squares(rotated(dense, basis), weight, 5),
    )


def test_two_places_of_use_are_squared_together():
    places = (
        OuterProducts(jnp.array([[0, 2, 2], [4, 1, 0]]), normal(2, 3, 3)),
        OuterProducts(normal(2, 3, 5, seed=4), normal(2, 3, 3, seed=5)),
    )
    weight = jnp.ones(2)
    basis = eigenbasis(moments(places, weight, 5, largest=100))
    assert basis.left is None
    whole = gradients(places, 5) @ basis.right
    close(squares(rotated(places, basis), weight, 5), (whole**2).sum(axis=0))


def test_tokens_without_gradient_do_not_count():
    left, right = normal(2, 3, 4), normal(2, 3, 3, seed=3)
    padded = OuterProducts(
        jnp.concatenate([left, 7 * jnp.ones((2, 2, 4))], axis=1),
        jnp.pad(right, ((0, 0), (0, 2), (0, 0))),
    )
    weight = jnp.array([1.0, 3.0])
    jax.tree.map(
        close,
        moments((padded,), weight, 4, largest=100),
        moments((OuterProducts(left, right),), weight, 4, largest=100),
    )


def test_eigenvectors_in_double_precision_span_the_same_spaces():
    products = (OuterProducts(normal(30, 2, 4), normal(30, 2, 3, seed=3)),)
    places = moments(products, jnp.ones(30), 4, largest=100)
    a, b = eigenbasis(places), eigenbasis(places, "float64")
    close(jnp.abs(a.left.T @ b.left), jnp.eye(4), 1000)
