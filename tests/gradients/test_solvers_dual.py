"""Woodbury's inverse in the dual, DataInf's mean of inverses, the diagonal, damping."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.solvers import Status

COUNT = 6
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


# The leaf under h is stacked over two layers.
H = ("h",)
G = {"wte": draw(COUNT, 5), "h": {"kernel": draw(COUNT, 2, 3, 2)}}
B = {"wte": draw(5), "h": {"kernel": draw(2, 3, 2)}}
WEIGHTS = jnp.float32([1, 0, 2, 0.5, 1, 0])


def rows(gradients):
    leaves = jax.tree.leaves(gradients)
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in leaves], axis=1)


def flat(value):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(value)])


def dense(weights, damping, right_side=B):
    g, w = rows(G).astype(np.float64), np.asarray(weights, np.float64)
    fisher = (g.T * (w / w.sum())) @ g
    return np.linalg.solve(fisher + damping * np.eye(g.shape[1]), flat(right_side))


woodbury_dual = jax.jit(solvers.woodbury_dual)
datainf = jax.jit(solvers.datainf, static_argnames="stacked")


@pytest.mark.parametrize("weights", [jnp.ones(COUNT), WEIGHTS], ids=["1", "weights"])
@pytest.mark.parametrize("damping", [1e-3, 0.1, 100.0])
def test_woodbury_is_the_dense_inverse(weights, damping):
    found = woodbury_dual(G, B, damping=damping, weights=weights)
    assert found.status == Status.CONVERGED
    expected = dense(weights, damping)
    error = np.linalg.norm(flat(found.value) - expected)
    assert error < 1e-5 * np.linalg.norm(expected)
    assert found.damping == np.float32(damping)


def test_refinement_makes_a_small_damping_safe():
    """The rest of a query in the gradients' span is a difference that cancels.

    One solve leaves a residual of about 1e-4 here, and the second 1e-6.
    """
    query = jax.tree.map(lambda g: g.sum(axis=0), G)
    assert woodbury_dual(G, query, damping=1e-2).residual < 1e-5


def test_a_damping_below_what_float32_holds_is_told():
    found = woodbury_dual(G, B, damping=1e-12)
    assert found.status in (Status.PRECISION, Status.NOT_FINITE)


def test_woodbury_without_the_gradients_at_hand():
    g = jnp.asarray(rows(G))
    unflatten = jax.flatten_util.ravel_pytree(B)[1]
    found = jax.jit(
        lambda b: solvers.woodbury(
            lambda v: g @ jax.flatten_util.ravel_pytree(v)[0],
            lambda u: unflatten(u @ g),
            g @ g.T,
            b,
            damping=0.1,
            weights=WEIGHTS,
        )
    )(B)
    expected = woodbury_dual(G, B, damping=0.1, weights=WEIGHTS)
    np.testing.assert_allclose(flat(found.value), flat(expected.value), rtol=1e-4)


def test_padding_examples_do_not_count():
    changed = jax.tree.map(lambda x: x.at[jnp.array([1, 5])].set(100.0), G)
    for solve in (woodbury_dual, datainf):
        found = solve(changed, B, damping=0.1, weights=WEIGHTS)
        expected = solve(G, B, damping=0.1, weights=WEIGHTS)
        np.testing.assert_allclose(flat(found.value), flat(expected.value), rtol=1e-4)


def slow_datainf(weights, dampings):
    """The mean of n inverses, each a dense one, layer by layer."""
    w = np.asarray(weights, np.float64) / np.sum(weights)

    def layer(g, b, damping):
        g, b = np.asarray(g, np.float64).reshape(COUNT, -1), np.ravel(b)
        eye = np.eye(len(b))
        return sum(
            w[i] * np.linalg.solve(np.outer(g[i], g[i]) + damping * eye, b)
            for i in range(COUNT)
        )

    kernel, vector = G["h"]["kernel"], B["h"]["kernel"]
    return np.concatenate(
        [layer(kernel[:, i], vector[i], dampings[1 + i]) for i in range(2)]
        + [layer(G["wte"], B["wte"], dampings[0])]
    )


@pytest.mark.parametrize("weights", [jnp.ones(COUNT), WEIGHTS], ids=["1", "weights"])
def test_datainf_is_the_mean_of_the_inverses_of_each_layer(weights):
    found = datainf(G, B, damping=0.3, weights=weights, stacked=H)
    expected = slow_datainf(weights, [0.3] * 3)
    np.testing.assert_allclose(flat(found.value), expected, rtol=1e-4, atol=1e-5)
    assert found.status == Status.APPROXIMATE
    own = {"wte": 0.2, "h": {"kernel": np.float32([0.5, 3.0]).reshape(2, 1, 1)}}
    found = datainf(G, B, damping=own, weights=weights, stacked=H)
    expected = slow_datainf(weights, [0.2, 0.5, 3.0])
    np.testing.assert_allclose(flat(found.value), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.damping["h"]["kernel"], own["h"]["kernel"])


def test_the_damping_of_datainf_is_a_share_of_each_layers_mean_eigenvalue():
    found = solvers.datainf_damping(G, share=0.2, weights=WEIGHTS, stacked=H)
    w = np.asarray(WEIGHTS / WEIGHTS.sum())
    layer = np.asarray(G["h"]["kernel"])[:, 1].reshape(COUNT, -1)
    fisher = (layer.T * w) @ layer
    mean = np.linalg.eigvalsh(fisher).mean()
    np.testing.assert_allclose(found["h"]["kernel"][1, 0, 0], 0.2 * mean, rtol=1e-4)
    assert found["h"]["kernel"].shape == (2, 1, 1)
    assert found["wte"].shape == ()


def test_one_example_makes_datainf_exact():
    one = jax.tree.map(lambda x: x[:1], G)
    found = datainf(one, B, damping=0.3, stacked=H)
    assert found.residual < 1e-5


def test_layers_left_out_stay_zero_under_the_rules_damping():
    mask = tree.select(B, "^h/0/", stacked=H)
    chosen = jax.vmap(lambda g: tree.masked(g, mask))(G)
    damping = solvers.datainf_damping(chosen, stacked=H)
    found = datainf(chosen, tree.masked(B, mask), damping=damping, stacked=H)
    assert found.status == Status.APPROXIMATE
    assert not found.value["wte"].any()
    assert not found.value["h"]["kernel"][1].any()
    assert found.value["h"]["kernel"][0].all()


def test_a_diagonal_that_cannot_be_inverted_is_told():
    d, b = jnp.float32([1, 0, -1]), jnp.ones(3)
    assert solvers.diagonal(d, b, damping=0.5).status == Status.NEGATIVE_CURVATURE
    assert solvers.diagonal(d, b, damping=2.0).status == Status.CONVERGED
    zero = solvers.diagonal(jnp.abs(d), b, damping=0.0)
    assert zero.status == Status.NOT_FINITE


def test_damping_from_the_mean_eigenvalue():
    assert solvers.damping_from_mean_eigenvalue(jnp.float32(8), 4, share=0.5) == 1.0
    for trace in (0.0, -3.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="only a positive mean eigenvalue"):
            solvers.damping_from_mean_eigenvalue(trace, 10)
    with pytest.raises(ValueError, match="size=0"):
        solvers.damping_from_mean_eigenvalue(1.0, 0)
    with pytest.raises(ValueError, match=r"share=-0\.1"):
        solvers.damping_from_mean_eigenvalue(1.0, 3, share=-0.1)


def test_damping_by_validation():
    scores = {0.01: 0.2, 0.1: 0.5, 1.0: 0.5, 10.0: np.nan}
    found = solvers.damping_by_validation([1.0, 0.01, 10.0, 0.1], scores.get)
    assert found.damping == 1.0
    assert found.candidates == (0.01, 0.1, 1.0, 10.0)
    assert found.scores[:3] == (0.2, 0.5, 0.5)
    assert not found.at_edge
    assert solvers.damping_by_validation([1.0, 2.0], lambda d: d).at_edge
    assert not solvers.damping_by_validation([1.0], lambda d: d).at_edge
    with pytest.raises(ValueError, match=r"candidates=\[\]"):
        solvers.damping_by_validation([], scores.get)
    with pytest.raises(ValueError, match="dampings of at least 0"):
        solvers.damping_by_validation([-1.0, 1.0], scores.get)
    with pytest.raises(ValueError, match="gave NaN for every damping"):
        solvers.damping_by_validation([1.0], lambda d: np.nan)
