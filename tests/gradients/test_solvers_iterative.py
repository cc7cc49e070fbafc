"""Conjugate gradients and LiSSA: how they end, and LiSSA's ridge."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.solvers import Status

SIZE = 20
KEY = jax.random.key(0)
B = jnp.asarray(np.random.default_rng(1).standard_normal(SIZE), jnp.float32)


def matrix(spectrum):
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0]
    return jnp.asarray((q * np.asarray(spectrum)) @ q.T, jnp.float32)


@jax.jit
def cg(a, damping, tolerance=1e-5):
    return solvers.cg(lambda v: a @ v, B, damping=damping, tolerance=tolerance)


@jax.jit
def lissa(a, damping, scale):
    return solvers.lissa(
        lambda v: a @ v, B, damping=damping, scale=scale, tolerance=1e-5, max_steps=300
    )


POSITIVE = np.linspace(0.5, 2, SIZE)
INDEFINITE = np.r_[-0.5, POSITIVE[1:]]


def test_cg_needs_a_step_an_eigenvalue():
    a = matrix(np.repeat([1.0, 2.0, 5.0, 10.0], 5))
    assert cg(a, 0.0).iterations == 4
    assert cg(a, 0.0).status == Status.CONVERGED


def test_cg_tells_negative_curvature_which_damping_mends():
    found = cg(matrix(INDEFINITE), 0.1)
    assert found.status == Status.NEGATIVE_CURVATURE
    assert jnp.isfinite(found.value).all()
    assert "Raise damping above minus the smallest" in solvers.message(found.status)
    mended = cg(matrix(INDEFINITE), 0.7)
    assert mended.status == Status.CONVERGED
    exact = np.linalg.solve(matrix(INDEFINITE) + 0.7 * np.eye(SIZE), B)
    np.testing.assert_allclose(mended.value, exact, rtol=1e-3, atol=1e-4)


def test_cg_keeps_the_last_value_before_the_negative_direction():
    """The first direction is b itself: if it is negative, nothing was reached."""
    found = cg(-matrix(POSITIVE), 0.0)
    assert (found.status, found.iterations) == (Status.NEGATIVE_CURVATURE, 1)
    assert not found.value.any()
    assert abs(float(found.residual) - 1) <= 4 * np.finfo(np.float32).eps


def test_cg_says_when_the_steps_run_out():
    a = matrix(POSITIVE)
    solve = jax.jit(lambda n: solvers.cg(lambda v: a @ v, B, damping=0.0, max_steps=3))
    found = solve(3)
    assert (found.status, found.iterations) == (Status.MAX_STEPS, 3)
    assert 1e-4 < found.residual < 1


def test_cg_says_when_float32_is_not_enough():
    """The recursion's residual goes on falling when the true one no longer does."""
    found = cg(matrix(np.geomspace(1e-5, 100, SIZE)), 1e-5, 1e-6)
    assert found.status in (Status.PRECISION, Status.MAX_STEPS)
    assert found.residual > 2e-6


def test_cg_tells_a_curvature_that_is_not_finite():
    assert cg(matrix(POSITIVE).at[0, 0].set(jnp.nan), 0.1).status == Status.NOT_FINITE


def test_cg_does_not_break_down_with_a_million_parameters():
    diagonal = jnp.linspace(1, 20, 1_000_000)
    solve = jax.jit(
        lambda d: solvers.cg(lambda v: d * v, jnp.ones_like(d), damping=0.0)
    )
    found = solve(diagonal)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.value, 1 / diagonal, rtol=5e-3)


def test_a_preconditioner_saves_steps():
    a = matrix(np.r_[np.full(SIZE - 4, 0.01), 10, 20, 50, 80])
    pairs = solvers.nystroem_eigenpairs(lambda v: a @ v, B, rank=6, key=KEY)
    apply = solvers.low_rank_preconditioner(pairs, damping=0.01)
    options = dict(damping=0.01, tolerance=1e-4)
    solve = jax.jit(
        lambda b, p: solvers.cg(lambda v: a @ v, b, **options, preconditioner=p),
        static_argnums=1,
    )
    plain, fast = solve(B, None), solve(B, apply)
    assert plain.status == fast.status == Status.CONVERGED
    assert fast.iterations < plain.iterations
    np.testing.assert_allclose(fast.value, plain.value, rtol=1e-2, atol=0.1)


def test_a_map_that_cannot_be_traced_is_driven_from_python():
    a = np.asarray(matrix(POSITIVE))

    def untraceable(vector):
        return jnp.asarray(a @ np.asarray(vector))

    options = dict(damping=0.1, while_loop=solvers.python_while_loop)
    exact = np.linalg.solve(a + 0.1 * np.eye(SIZE), B)
    found = solvers.cg(untraceable, B, **options, tolerance=1e-5)
    np.testing.assert_allclose(found.value, exact, rtol=1e-3, atol=1e-4)
    found = solvers.lissa(untraceable, B, **options, key=KEY, tolerance=1e-5)
    np.testing.assert_allclose(found.value, exact, rtol=1e-3, atol=1e-4)
    assert found.status == Status.CONVERGED


def published(a, d, scale, steps):
    """LiSSA as it is written in published code, with a damping of its own."""
    b = np.asarray(B, np.float64)
    u = b
    for _ in range(steps):
        u = b + (1 - d) * u - a @ u / scale
    return u / scale


@pytest.mark.parametrize(("d", "scale"), [(0.01, 10.0), (0.05, 4.0), (0.5, 2.0)])
def test_the_ridge_of_lissa_is_its_own_damping_times_scale(d, scale):
    a = np.asarray(matrix(POSITIVE), np.float64)
    ridge = np.linalg.solve(a + d * scale * np.eye(SIZE), B)
    np.testing.assert_allclose(published(a, d, scale, 2000), ridge, rtol=1e-8)
    found = lissa(matrix(POSITIVE), d * scale, scale)
    assert found.status == Status.CONVERGED
    assert found.damping == np.float32(d * scale)
    np.testing.assert_allclose(found.value, ridge, rtol=1e-3, atol=1e-5)


def test_the_iterates_of_lissa_are_the_published_ones():
    a = np.asarray(matrix(POSITIVE), np.float64)
    for steps in (0, 1, 5):
        found = solvers.lissa(
            lambda v: matrix(POSITIVE) @ v,
            B,
            damping=0.3,
            scale=4.0,
            max_steps=steps + 1,
        )
        expected = published(a, 0.3 / 4.0, 4.0, steps)
        np.testing.assert_allclose(found.value, expected, rtol=1e-4, atol=1e-6)
        assert (found.status, found.iterations) == (Status.MAX_STEPS, steps + 1)


def test_lissa_tells_divergence_from_negative_curvature():
    """Eigenvalues up to 2.1: a scale of 1 is too small, one of 1.1 is enough."""
    too_small = lissa(matrix(POSITIVE), 0.1, 0.9)
    assert too_small.status == Status.DIVERGED
    assert too_small.iterations < 300
    assert "Raise scale" in solvers.message(too_small.status)
    assert lissa(matrix(POSITIVE), 0.1, 1.1).status == Status.CONVERGED
    indefinite = lissa(matrix(INDEFINITE), 0.1, 3.0)
    assert indefinite.status == Status.NEGATIVE_CURVATURE
    assert lissa(matrix(INDEFINITE), 0.7, 3.0).status == Status.CONVERGED
    for found in (too_small, indefinite):
        assert jnp.isfinite(found.value).all()


@pytest.mark.parametrize("top", [1e-3, 1.0, 1e4])
def test_the_scale_is_measured(top):
    a = matrix(top * POSITIVE)
    found = jax.jit(
        lambda a: solvers.lissa(lambda v: a @ v, B, damping=0.1 * top, key=KEY)
    )(a)
    assert found.status == Status.CONVERGED
    assert found.iterations < 100


def test_the_largest_eigenvalue_is_approached_from_below():
    for spectrum in (POSITIVE, np.r_[-7, POSITIVE[1:]]):
        a, top = matrix(spectrum), np.abs(spectrum).max()
        measure = functools.partial(
            solvers.largest_eigenvalue, a.__matmul__, B, key=KEY
        )
        found = [float(measure(steps=n)) for n in (1, 5, 200)]
        assert found[0] <= found[1] <= found[2]
        np.testing.assert_allclose(found[2], top, rtol=1e-3)
    zero = solvers.largest_eigenvalue(lambda v: 0 * v, B, key=KEY)
    assert zero == 0
