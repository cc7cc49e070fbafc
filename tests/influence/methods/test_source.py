import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn.gradients import products_with
from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import kronecker_vp
from jaxunlearn.influence.methods.source import (
    Segment,
    dense_eigenbasis,
    kronecker_eigenbasis,
    segment_queries,
    source_influence,
    taken_up,
)
from jaxunlearn.influence.methods.unrolled import unrolled_influence
from jaxunlearn.training.weighted import (
    initial_state,
    make_weighted_step,
    take_batch,
)

DRAW = np.random.default_rng(1)
EXAMPLES, WIDTH = 8, 3
X = DRAW.normal(size=(EXAMPLES, WIDTH)).astype(np.float32)
DATA = {"x": X, "y": DRAW.normal(size=EXAMPLES).astype(np.float32)}
QUERY = {"x": X[:2] + 0.5, "y": DATA["y"][:2] - 1}
START = jnp.zeros(WIDTH)
EVERYTHING = [take_batch(DATA, jnp.arange(EXAMPLES))]


def loss(params, batch):
    return 0.5 * (batch["x"] @ params - batch["y"]) ** 2


HESSIAN = dense_eigenbasis(jnp.asarray(X.T @ X / EXAMPLES), START)
"""Least squares: constant, so that a segment's closed form has the right one."""


def gradient_descent(rate, steps):
    """The unrolled influence of full-batch descent, the path, the query gradients."""
    transform = optax.sgd(rate)
    step = make_weighted_step(loss, transform)
    state = initial_state(START, transform)
    path = [state.params]
    for _ in range(steps):
        state = step(state, EVERYTHING[0], jnp.ones(EXAMPLES))
        path.append(state.params)
    exact = unrolled_influence(
        step,
        initial_state(START, transform),
        EVERYTHING * steps,
        lambda state: loss(state.params, QUERY),
        examples=EXAMPLES,
    )
    return exact.scores, path, jax.jacrev(loss)(path[-1], QUERY)


def relative_error(found, exact):
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_a_segment_a_step_tends_to_the_unrolled_influence():
    errors = []
    for rate, steps in ((0.1, 16), (0.05, 32)):
        exact, path, queries = gradient_descent(rate, steps)
        segments = [Segment([params], HESSIAN, rate, 1) for params in path[:-1]]
        found = source_influence(loss, segments, EVERYTHING, queries, examples=EXAMPLES)
        errors.append(relative_error(found, exact))
    # exp(-eta H) is 1 - eta H up to eta**2, over 1 / eta steps.
    assert errors[0] < 0.1
    assert 0.4 < errors[1] / errors[0] < 0.6


def test_one_segment_is_right_about_examples_that_differ_by_a_constant():
    """With one Hessian an example, gradients differ by what no step changes."""
    offsets = DRAW.normal(size=(EXAMPLES, WIDTH)).astype(np.float32)
    curvature = np.diag([2.0, 0.5, 0.0]).astype(np.float32)

    def tilted(params, batch):
        return 0.5 * params @ curvature @ params + batch["offset"] @ params

    basis = dense_eigenbasis(jnp.asarray(curvature), START)
    batch = take_batch({"offset": offsets}, jnp.arange(EXAMPLES))
    differences = []
    for rate, steps in ((0.02, 50), (0.01, 100)):
        transform = optax.sgd(rate)
        exact = unrolled_influence(
            make_weighted_step(tilted, transform),
            initial_state(START, transform),
            [batch] * steps,
            lambda state: state.params @ jnp.ones((WIDTH, 2)) * jnp.array([1.0, -3.0]),
            examples=EXAMPLES,
        )
        queries = jnp.ones((2, WIDTH)) * jnp.array([[1.0], [-3.0]])
        segments = [Segment([exact.state.params], basis, rate, steps)]
        found = source_influence(tilted, segments, [batch], queries, examples=EXAMPLES)
        differences.append(
            relative_error(found - found[:, :1], exact.scores - exact.scores[:, :1])
        )
    assert differences[0] < 0.01
    assert 0.4 < differences[1] / differences[0] < 0.6


def test_short_segments_are_gradient_products_and_long_ones_influence_functions():
    queries = jnp.asarray(DRAW.normal(size=(2, WIDTH)), jnp.float32)
    (short,) = segment_queries(queries, [Segment([START], HESSIAN, 1e-6, 2)])
    np.testing.assert_allclose(short / 2e-6, queries, rtol=1e-4)
    (long,) = segment_queries(queries, [Segment([START], HESSIAN, 1e4, 100)])
    inverse = np.linalg.inv(X.T @ X / EXAMPLES)
    np.testing.assert_allclose(long, queries @ inverse, rtol=1e-3)


def test_a_later_segment_shrinks_what_an_earlier_one_is_asked():
    queries = jnp.eye(WIDTH)
    early, late = Segment([START], HESSIAN, 0.1, 5), Segment([START], HESSIAN, 0.2, 7)
    asked = segment_queries(queries, [early, late])
    (alone,) = segment_queries(queries, [early])
    shrink = jax.scipy.linalg.expm(-1.4 * X.T @ X / EXAMPLES)
    np.testing.assert_allclose(asked[0], shrink @ alone, atol=1e-6)
    (whole,) = segment_queries(queries, [Segment([START], HESSIAN, 0.1, 19)])
    # One long segment, or the same in two parts: 0.1 * 19 = 0.1 * 5 + 0.2 * 7.
    np.testing.assert_allclose(asked[0] + asked[1], whole, atol=1e-6)


def test_an_eigenvalue_of_zero_takes_up_the_whole_time():
    eigenvalues = jnp.array([0.0, 1e-9, -1e-9, 2.0])
    expected = [3.0, 3.0, 3.0, (1 - np.exp(-6.0)) / 2]
    np.testing.assert_allclose(taken_up(3.0, eigenvalues), expected, rtol=1e-6)


def test_checkpoints_are_averaged_and_batches_do_not_matter():
    queries = jnp.asarray(DRAW.normal(size=(2, WIDTH)), jnp.float32)
    places = [START, START + 1.0]
    seen = []
    order = jnp.array([[7, 0, 3], [1, 2, 4], [5, 6, -1]])
    together = source_influence(
        loss,
        [Segment(places, HESSIAN, 0.1, 5)],
        [take_batch(DATA, rows) for rows in order],
        queries,
        examples=EXAMPLES,
        progress=lambda *a: seen.append(a),
    )
    apart = []
    for place in places:
        segments = [Segment([place], HESSIAN, 0.1, 5)]
        apart.append(
            source_influence(loss, segments, EVERYTHING, queries, examples=EXAMPLES)
        )
    np.testing.assert_allclose(together, np.mean(apart, axis=0), atol=1e-6)
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_the_eigenbasis_of_ekfac_is_that_of_its_products():
    import flax.linen as nn

    model = nn.Dense(3)
    data = {"x": X, "y": jnp.arange(EXAMPLES) % 3}
    params = model.init(jax.random.key(0), data["x"])["params"]

    def entropy(params, batch):
        logits = jax.nn.log_softmax(model.apply({"params": params}, batch["x"]))
        return -jnp.take_along_axis(logits, batch["y"][:, None], 1)[:, 0]

    factors = fit_ekfac(entropy, params, data)
    basis = kronecker_eigenbasis(factors, params)
    vector = jax.tree.map(jnp.cos, params)
    scaled = jax.tree.map(jnp.multiply, basis.rotate(vector), basis.eigenvalues)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        basis.rotate_back(scaled),
        kronecker_vp(factors, vector),
    )
    # Over almost no time a segment is its length times the gradient product.
    queries = jax.tree.map(lambda x: x[None], vector)
    found = source_influence(
        entropy,
        [Segment([params], basis, 1e-6, 1)],
        [take_batch(data, jnp.arange(EXAMPLES))],
        queries,
        examples=EXAMPLES,
    )
    expected = products_with(entropy, params, data, queries) * 1e-6 / EXAMPLES
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "segments is empty"),
        ([Segment([], HESSIAN, 0.1, 1)], r"segments\[0\] has 0 checkpoints"),
        ([Segment([START], HESSIAN, 0.1, 0)], "steps=0"),
        ([Segment([START], HESSIAN, -0.1, 1)], "learning_rate=-0.1"),
    ],
)
def test_a_run_without_length_is_refused(segments, message):
    with pytest.raises(ValueError, match=message):
        source_influence(loss, segments, EVERYTHING, jnp.ones((1, 3)), examples=8)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\) needed"):
        dense_eigenbasis(jnp.eye(2), START)
