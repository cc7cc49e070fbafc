"""Gauss-Newton and Fisher products against the matrices they stand for."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxunlearn import tree
from jaxunlearn.gradients import fisher_diagonal, hvp
from jaxunlearn.gradients.curvature_products import gauss_newton_vp
from jaxunlearn.gradients.fisher import fisher_vp, sampled_labels, true_fisher_vp
from jaxunlearn.gradients.hutchinson import hutchinson_diagonal, hutchinson_trace

SIZE, CLASSES = 6, 3
EPS = np.finfo(np.float32).eps
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def trees():
    return {
        "in": {"kernel": draw(2, 3)},
        "h": {"kernel": draw(2, 3, 3)},
        "out": {"kernel": draw(3, CLASSES)},
    }


PARAMS, VECTOR = trees(), trees()
BATCH = {
    "x": draw(SIZE, 2),
    "labels": jnp.asarray(RNG.integers(CLASSES, size=SIZE)),
    "weight": jnp.float32([1, 0, 2, 0.5, 1, 3]),
}
FLAT, UNFLATTEN = ravel_pytree(PARAMS)


class Network:
    """A network of three layers, the middle two stacked."""

    stacked = ("h",)

    def logits(self, params, batch):
        hidden = jnp.tanh(batch["x"] @ params["in"]["kernel"])
        for i in range(2):
            hidden = jnp.tanh(hidden @ params["h"]["kernel"][i])
        return hidden @ params["out"]["kernel"]

    def loss_of_logits(self, logits, batch):
        scores = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(scores, batch["labels"][:, None], axis=1)[:, 0]

    def loss(self, params, batch):
        return self.loss_of_logits(self.logits(params, batch), batch)


NETWORK = Network()
PRODUCTS = {
    "hvp": hvp,
    "gauss_newton_vp": gauss_newton_vp,
    "fisher_vp": fisher_vp,
    "true_fisher_vp": functools.partial(true_fisher_vp, key=jax.random.key(0), draws=2),
}


def mean(values):
    return jnp.tensordot(BATCH["weight"], values, 1) / BATCH["weight"].sum()


def losses(flat, batch=BATCH):
    return NETWORK.loss(UNFLATTEN(flat), batch)


def outer(rows):
    return jax.vmap(jnp.outer)(rows, rows)


def gauss_newton_matrix(flat):
    jacobian = jax.jacobian(lambda f: NETWORK.logits(UNFLATTEN(f), BATCH))(flat)
    p = jax.nn.softmax(NETWORK.logits(UNFLATTEN(flat), BATCH))
    inner = jax.vmap(jnp.diag)(p) - outer(p)
    return mean(jnp.einsum("bcp,bcd,bdq->bpq", jacobian, inner, jacobian))


def drawn_fisher_matrix(flat):
    index = jnp.arange(SIZE)
    batch = BATCH | {"index": index}
    z = NETWORK.logits(UNFLATTEN(flat), batch)
    total = 0
    for key in jax.random.split(jax.random.key(0), 2):
        labelled = sampled_labels(z, batch, key=key)
        gradients = jax.jacobian(lambda f, b=labelled: losses(f, b))(flat)
        total = total + mean(outer(gradients)) / 2
    return total


@pytest.fixture(scope="module")
def matrices():
    """Each of the four, formed densely from its definition."""
    compute = jax.jit(
        lambda flat: {
            "hvp": jax.hessian(lambda f: mean(losses(f)))(flat),
            "gauss_newton_vp": gauss_newton_matrix(flat),
            "fisher_vp": mean(outer(jax.jacobian(losses)(flat))),
            "true_fisher_vp": drawn_fisher_matrix(flat),
        }
    )
    return {name: np.asarray(m) for name, m in compute(FLAT).items()}


@functools.cache
def compiled(name, **options):
    return jax.jit(functools.partial(PRODUCTS[name], NETWORK.loss, **options))


def flat(value):
    return np.asarray(ravel_pytree(value)[0])


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=100 * EPS * np.abs(b).max())


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_the_matrix_in_microbatches(matrices, name):
    product = compiled(name, batch_size=4)
    found = product(PARAMS, BATCH, VECTOR)
    assert_close(flat(found), matrices[name] @ flat(VECTOR))
    weightless = BATCH | {"weight": jnp.zeros(SIZE)}
    assert not flat(product(PARAMS, weightless, VECTOR)).any()


@pytest.mark.parametrize("name", PRODUCTS)
def test_batches_are_their_examples(matrices, name):
    whole = BATCH | {"index": np.arange(SIZE)}
    batches = [{k: v[i : i + 2] for k, v in whole.items()} for i in (0, 2, 4)]
    product = PRODUCTS[name]
    found = product(NETWORK.loss, PARAMS, batches, VECTOR)
    assert_close(flat(found), matrices[name] @ flat(VECTOR))


def test_batches_compile_once_for_all_products():
    traces = []

    def counted(params, batch):
        traces.append(1)
        return NETWORK.loss(params, batch)

    batches = [BATCH, BATCH]
    for vector in (VECTOR, PARAMS):
        hvp(counted, PARAMS, batches, vector)
    assert len(traces) == 1


@pytest.mark.parametrize("name", PRODUCTS)
def test_layers_restrict_the_matrix_on_both_sides(matrices, name):
    layers = "^h/1/|^in"
    mask = jax.tree.map(
        lambda m, x: jnp.broadcast_to(m, x.shape),
        tree.select(PARAMS, layers, stacked=("h",)),
        PARAMS,
    )
    chosen = flat(mask)
    found = flat(compiled(name, layers=layers)(PARAMS, BATCH, VECTOR))
    expected = np.where(chosen, matrices[name] @ (chosen * flat(VECTOR)), 0)
    assert_close(found, expected)
    assert not found[~chosen].any()


def test_low_precision_parameters_have_float32_products():
    low, vector = tree.cast((PARAMS, VECTOR), jnp.bfloat16)
    wide = tree.cast((low, vector), jnp.float32)
    found = compiled("fisher_vp")(low, BATCH, vector)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.float32.dtype}
    expected = compiled("fisher_vp", batch_size=4)(wide[0], BATCH, wide[1])
    assert_close(flat(found), flat(expected))


def test_fisher_and_gauss_newton_are_positive_where_the_hessian_is_not(matrices):
    smallest = {name: np.linalg.eigvalsh(m).min() for name, m in matrices.items()}
    assert smallest.pop("hvp") < -1e-2
    assert min(smallest.values()) > -1e-5


def test_logistic_regression_has_one_curvature():
    """Without hidden layers the Hessian is the Gauss-Newton matrix."""
    batch = {"x": BATCH["x"], "labels": BATCH["labels"] % 2}

    def logits(params, batch):
        return batch["x"] @ params

    def loss_of_logits(z, batch):
        return jax.nn.softplus(z) - batch["labels"] * z

    def loss(params, batch):
        return loss_of_logits(logits(params, batch), batch)

    theta, v = jnp.float32([0.5, -1]), jnp.float32([1, 2])
    found = gauss_newton_vp(
        loss, theta, batch, v, logits=logits, loss_of_logits=loss_of_logits
    )
    p = jax.nn.sigmoid(batch["x"] @ theta)
    closed = (batch["x"].T * (p * (1 - p))) @ batch["x"] / SIZE @ v
    assert_close(found, closed)
    assert_close(hvp(loss, theta, batch, v), closed)


def test_the_true_fisher_is_the_gauss_newton_matrix(matrices):
    """The expectation over labels, by enumeration in place of sampling."""
    p = jax.nn.softmax(NETWORK.logits(PARAMS, BATCH))
    gradients = jax.jit(jax.jacobian(losses))
    total = sum(
        mean(
            p[:, c, None, None]
            * outer(gradients(FLAT, BATCH | {"labels": jnp.full(SIZE, c)}))
        )
        for c in range(CLASSES)
    )
    assert_close(total, matrices["gauss_newton_vp"])


def test_the_fisher_diagonal_of_sampled_labels_nears_the_true_one(matrices):
    z = NETWORK.logits(PARAMS, BATCH)

    @jax.jit
    @jax.vmap
    def diagonal(key):
        labelled = sampled_labels(z, BATCH, key=key)
        gradients = jax.jacobian(losses)(FLAT, labelled)
        return mean(gradients**2)

    keys = jax.random.split(jax.random.key(1), 1000)
    draws = np.asarray(diagonal(keys))
    error = draws.std(axis=0) / 1000**0.5
    exact = np.diag(matrices["gauss_newton_vp"])
    assert (np.abs(draws.mean(axis=0) - exact) < 4.5 * error + 1e-6).all()
    one = sampled_labels(z, BATCH, key=keys[0])
    found = jax.jit(functools.partial(fisher_diagonal, NETWORK.loss))(PARAMS, one)
    assert_close(flat(found), draws[0])


# --- sampled labels -----------------------------------------------------------------


compiled_labels = jax.jit(sampled_labels)


def language(size=200, length=4):
    logits = jnp.broadcast_to(draw(length, CLASSES), (size, length, CLASSES))
    labels = jnp.broadcast_to(jnp.array([-100, 1, -100, 2]), (size, length))
    return logits, {"labels": labels, "index": jnp.arange(size)}


def test_labels_are_drawn_from_the_logits_before_them():
    logits, batch = language(size=4000)
    drawn = compiled_labels(logits, batch, key=jax.random.key(0))["labels"]
    assert (drawn[:, [0, 2]] == -100).all()
    for t in (1, 3):
        counts = np.bincount(drawn[:, t], minlength=CLASSES)
        p = np.asarray(jax.nn.softmax(logits[0, t - 1]))
        error = np.sqrt(4000 * p * (1 - p))
        assert (np.abs(counts - 4000 * p) < 4 * error).all()


def test_a_draw_follows_the_example_not_the_batch_nor_the_padding():
    logits, batch = language()
    key = jax.random.key(0)
    drawn = compiled_labels(logits, batch, key=key)["labels"]
    rows = np.array([17, 3, 150])
    part = {k: v[rows] for k, v in batch.items()}
    longer = {
        "labels": jnp.pad(part["labels"], ((0, 0), (0, 5)), constant_values=-100),
        "index": part["index"],
    }
    wider = jnp.pad(logits[rows], ((0, 0), (0, 5), (0, 0)))
    again = compiled_labels(wider, longer, key=key)["labels"]
    np.testing.assert_array_equal(again[:, :4], drawn[rows])
    other = compiled_labels(logits, batch, key=jax.random.key(1))["labels"]
    assert (other != drawn).any()


def test_the_true_fisher_of_a_mean_over_labels_is_smaller_by_their_number():
    """Two independent labels an example: half the Gauss-Newton matrix."""

    class Tokens:
        def logits(self, params, batch):
            return batch["x"] @ params

        def loss_of_logits(self, z, batch):
            scores = jax.nn.log_softmax(z[:, :-1])
            picked = jnp.take_along_axis(scores, batch["labels"][:, 1:, None], axis=2)
            return -picked[..., 0].mean(axis=1)

        def loss(self, params, batch):
            return self.loss_of_logits(self.logits(params, batch), batch)

    model, params, v = Tokens(), draw(2, CLASSES), draw(2, CLASSES)
    batch = {"x": draw(1, 3, 2)}
    total = 0
    product = jax.jit(lambda batch: fisher_vp(model.loss, params, batch, v))
    p = jax.nn.softmax(model.logits(params, batch))[0]
    for pair in itertools.product(range(CLASSES), repeat=2):
        labelled = batch | {"labels": jnp.array([[0, *pair]])}
        share = p[0, pair[0]] * p[1, pair[1]]
        total = total + share * product(labelled)
    exact = gauss_newton_vp(model.loss, params, labelled, v)
    assert_close(flat(total), flat(exact) / 2)


# --- Hutchinson -----------------------------------------------------------------------


def test_hutchinson_is_within_its_standard_error():
    matrix = draw(20, 20)
    matrix = matrix + matrix.T + 5 * jnp.eye(20)

    @jax.jit
    def estimates(key):
        options = dict(key=key, probes=400)
        product = matrix.__matmul__
        zeros = jnp.zeros(20)
        return (
            hutchinson_diagonal(product, zeros, **options),
            hutchinson_trace(product, zeros, **options),
        )

    diagonal, trace = estimates(jax.random.key(0))
    error = np.abs(diagonal.value - np.diag(matrix)) / diagonal.standard_error
    assert 0.3 < np.sqrt(np.mean(error**2)) < 1.6
    assert abs(trace.value - np.trace(matrix)) < 4 * trace.standard_error
    off = matrix - np.diag(np.diag(matrix))
    np.testing.assert_allclose(
        diagonal.standard_error, np.sqrt((off**2).sum(axis=1) / 400), rtol=0.2
    )
    np.testing.assert_allclose(
        trace.standard_error, np.sqrt(2 * (off**2).sum() / 400), rtol=0.2
    )


def test_hutchinson_is_exact_for_a_diagonal_and_of_any_tree():
    weights = tree.scaled(2.0, PARAMS)

    def product(v):
        return jax.tree.map(jnp.multiply, weights, v)

    low = tree.cast(PARAMS, jnp.bfloat16)
    found = hutchinson_diagonal(product, low, key=jax.random.key(0), probes=3)
    assert_close(flat(found.value), flat(weights))
    assert flat(found.standard_error).max() < 1e-6


# --- misuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: gauss_newton_vp(losses, PARAMS, BATCH, VECTOR),
            "loss_of_logits is not given",
        ),
        (
            lambda: gauss_newton_vp(
                losses, PARAMS, BATCH, VECTOR, loss_of_logits=NETWORK.loss_of_logits
            ),
            "logits is not given",
        ),
        (lambda: hvp(NETWORK.loss, PARAMS, [], VECTOR), "batches is empty"),
        (
            lambda: hvp(NETWORK.loss, PARAMS, BATCH, VECTOR, layers="attn"),
            "matches no parameter",
        ),
        (
            lambda: fisher_vp(NETWORK.loss, PARAMS, BATCH, PARAMS["in"]),
            "vector must be a tree",
        ),
        (
            lambda: true_fisher_vp(
                NETWORK.loss, PARAMS, BATCH, VECTOR, key=jax.random.key(0), draws=0
            ),
            "draws=0",
        ),
        (
            lambda: true_fisher_vp(
                NETWORK.loss, PARAMS, [BATCH], VECTOR, key=jax.random.key(0)
            ),
            "batches without index",
        ),
        (
            lambda: sampled_labels(jnp.ones((2, 3)), BATCH, key=jax.random.key(0)),
            r"labels of shape \(6,\) do not go",
        ),
        (
            lambda: hutchinson_trace(
                lambda v: v, PARAMS, key=jax.random.key(0), probes=1
            ),
            "probes=1",
        ),
    ],
)
def test_misuse_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_model_of_the_library_brings_its_own_functions():
    from jaxunlearn.gradients.arguments import task_function
    from jaxunlearn.models import GPT2, GPT2Config

    model = GPT2(GPT2Config())
    names = {"outputs": "logits", "loss_of_outputs": "loss_of_logits"}
    for name, own in names.items():
        assert task_function(model.per_example_loss, name) == getattr(model, own)
