"""Lanczos and Nystroem: eigenpairs, what they leave out, and where they break down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.solvers import Status

SIZE = 24
KEY = jax.random.key(0)
B = jnp.asarray(np.random.default_rng(1).standard_normal(SIZE), jnp.float32)


def matrix(spectrum):
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0]
    return jnp.asarray((q * np.asarray(spectrum)) @ q.T, jnp.float32)


@jax.jit
def lanczos_eigenpairs(a):
    return solvers.lanczos_eigenpairs(lambda v: a @ v, B, rank=4, key=KEY, steps=16)


@jax.jit
def nystroem_eigenpairs(a):
    return solvers.nystroem_eigenpairs(lambda v: a @ v, B, rank=8, key=KEY)


@jax.jit
def low_rank(pairs, a, damping):
    return solvers.low_rank(pairs, B, damping=damping, linear_map=lambda v: a @ v)


DECAYING = 2.0 ** -np.arange(SIZE)
FLAT = np.linspace(1, 2, SIZE)


def assembled(pairs):
    vectors = pairs.eigenvectors
    return (vectors.T * pairs.eigenvalues) @ vectors


def test_lanczos_finds_the_top_eigenpairs_of_either_sign():
    spectrum = np.r_[-5, 4, 3, -2, np.linspace(-0.5, 0.5, SIZE - 4)]
    a = matrix(spectrum)
    pairs = lanczos_eigenpairs(a)
    np.testing.assert_allclose(pairs.eigenvalues, [-5, 4, 3, -2], rtol=1e-5)
    np.testing.assert_allclose(pairs.smallest, -5, rtol=1e-5)
    q = pairs.eigenvectors
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(a @ q.T, q.T * pairs.eigenvalues, atol=2e-3)


@pytest.mark.parametrize(
    "spectrum",
    [np.r_[3.0, 2, 1, np.zeros(SIZE - 3)], np.full(SIZE, 3.0), np.zeros(SIZE)],
    ids=["rank 3", "one eigenvalue", "zero"],
)
def test_an_exhausted_range_is_no_breakdown(spectrum):
    """More steps than A has distinct eigenvalues: matfree divides 0 by 0."""
    a = jnp.diag(jnp.float32(spectrum))
    for pairs in (lanczos_eigenpairs(a), nystroem_eigenpairs(a)):
        assert all(jnp.isfinite(x).all() for x in pairs)
        assert pairs.smallest >= 0
        if (spectrum == 0).any():
            np.testing.assert_allclose(assembled(pairs), a, atol=1e-5)
        found = low_rank(pairs, a, 0.1)
        assert jnp.isfinite(found.value).all()
        if (spectrum == 0).any():
            assert found.status == Status.CONVERGED


def test_nystroem_is_never_above_the_matrix_and_near_it():
    a = matrix(DECAYING)
    rest = np.linalg.eigvalsh(np.asarray(a - assembled(nystroem_eigenpairs(a))))
    assert rest.min() > -1e-5
    assert rest.max() < 4 * DECAYING[8] * 8


def test_the_shift_of_nystroem_leaves_no_trace():
    """It grows with the number of parameters, and is taken off again."""
    diagonal = jnp.zeros(200_000).at[:3].set(jnp.array([3.0, 2.0, 1.0]))
    pairs = jax.jit(
        lambda d: solvers.nystroem_eigenpairs(lambda v: d * v, d, rank=8, key=KEY)
    )(diagonal)
    np.testing.assert_allclose(pairs.eigenvalues[:3], [3, 2, 1], rtol=0.05)
    assert pairs.eigenvalues[3:].max() < 1e-6


def test_a_rank_too_low_is_an_approximation_and_its_residual_is_true():
    a = matrix(FLAT)
    for pairs in (lanczos_eigenpairs(a), nystroem_eigenpairs(a)):
        found = low_rank(pairs, a, 0.5)
        assert found.status == Status.APPROXIMATE
        assert found.iterations == len(pairs.eigenvalues)
        rest = B - (a + 0.5 * np.eye(SIZE)) @ found.value
        expected = np.linalg.norm(rest) / np.linalg.norm(B)
        np.testing.assert_allclose(found.residual, expected, rtol=1e-3)
        own = solvers.low_rank(pairs, B, damping=0.5)
        assert own.status == Status.APPROXIMATE
        assert own.residual < 1e-5
        np.testing.assert_allclose(own.value, found.value, rtol=1e-4, atol=1e-5)


def test_without_the_complement_it_is_the_inverse_on_the_eigenpairs():
    spectrum = np.r_[8, 6, 4, 2, np.full(SIZE - 4, 0.01)]
    pairs = lanczos_eigenpairs(matrix(spectrum))
    found = solvers.low_rank(pairs, B, damping=0.0, complement=False)
    q = np.asarray(pairs.eigenvectors)
    np.testing.assert_allclose(
        found.value, q.T @ (q @ B / np.float32([8, 6, 4, 2])), rtol=1e-4, atol=1e-5
    )


def test_negative_curvature_is_told_unless_damping_covers_it():
    a = matrix(np.r_[np.full(6, -3.0), np.linspace(0.1, 2, SIZE - 6)])
    for pairs in (lanczos_eigenpairs(a), nystroem_eigenpairs(a)):
        assert low_rank(pairs, a, 0.1).status == Status.NEGATIVE_CURVATURE
        assert low_rank(pairs, a, 3.5).status == Status.APPROXIMATE


def test_a_nan_of_the_map_is_told():
    a = matrix(FLAT).at[0, 0].set(jnp.nan)
    for pairs in (lanczos_eigenpairs(a), nystroem_eigenpairs(a)):
        assert low_rank(pairs, matrix(FLAT), 0.5).status == Status.NOT_FINITE


def test_the_preconditioner_is_positive_and_flattens_the_spectrum():
    a = matrix(np.r_[50, 20, -10, np.full(SIZE - 3, 0.01)])
    apply = solvers.low_rank_preconditioner(lanczos_eigenpairs(a), damping=0.01)
    p = np.asarray(jax.vmap(apply)(jnp.eye(SIZE)))
    np.testing.assert_allclose(p, p.T, atol=1e-5)
    assert np.linalg.eigvalsh(p).min() > 0
    sizes = np.abs(np.linalg.eigvals(p @ (a + 0.01 * np.eye(SIZE))))
    assert sizes.max() / sizes.min() < 3
