import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.difficulty import el2n, grand

EPS = 2.0**-23
TREES = [np.float32([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]]), np.ones((2, 3), np.float32)]


@pytest.fixture
def batch():
    """Five examples in two dimensions and three classes; the last has no label."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2)).astype(np.float32)
    return {"x": x, "labels": np.int32([0, 2, 1, 2, -100])}


def linear(params, batch):
    return batch["x"] @ params


def cross_entropy(params, batch):
    labels = batch["labels"]
    log = jax.nn.log_softmax(linear(params, batch))
    own = jnp.take_along_axis(log, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(labels == -100, 0.0, -own)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def errors(params, x, labels):
    """The length of softmax - onehot, in float64, by its definition."""
    p = softmax((x @ params).astype(np.float64))
    return np.linalg.norm(p - np.eye(3)[np.maximum(labels, 0)], axis=-1) * (
        labels != -100
    )


def close(found, expected):
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=100 * EPS, atol=10 * EPS)


@pytest.mark.parametrize("params", [TREES[0], TREES], ids=["one", "several"])
def test_a_linear_model_has_scores_in_closed_form(params, batch):
    """The gradient is x (softmax - onehot)^T: its norm is |x| times EL2N."""
    trees = params if isinstance(params, list) else [params]
    error = np.mean([errors(w, batch["x"], batch["labels"]) for w in trees], axis=0)
    length = np.linalg.norm(batch["x"], axis=1)
    for size in (None, 2):
        close(el2n(linear, params, batch, batch_size=size), error)
        close(grand(cross_entropy, params, batch, batch_size=size), length * error)


def test_batches_give_the_scores_of_one_batch(batch):
    parts = [{k: x[i : i + 2] for k, x in batch.items()} for i in (0, 2)]
    whole = {k: x[:4] for k, x in batch.items()}
    for score in (
        functools.partial(el2n, linear, TREES),
        functools.partial(grand, cross_entropy, TREES),
    ):
        close(score(parts), score(whole))


def test_a_sequence_has_the_mean_over_its_labelled_tokens():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 4, 2)).astype(np.float32)
    labels = np.int32([[0, 1, 2, 0], [1, -100, 2, -100], [0, -100, -100, -100]])
    batch, params = {"x": x, "targets": labels}, TREES[0]

    def mean(x, labels):
        each = errors(params, x, labels)
        return each.sum(axis=1) / np.maximum((labels != -100).sum(axis=1), 1)

    found = el2n(linear, params, batch, labels="targets", next_token=False)
    close(found, mean(x, labels))
    found = el2n(linear, params, batch, labels="targets")
    close(found, mean(x[:, :-1], labels[:, 1:]))
    assert found[2] == 0.0


def test_layers_select_what_the_norm_is_of(batch):
    def loss(params, batch):
        return cross_entropy(params["w"], batch) + params["b"]

    params = {"w": TREES[0], "b": np.float32(1)}
    found = grand(loss, params, batch, layers="^w$")
    close(found, grand(cross_entropy, TREES[0], batch))
    close(grand(loss, params, batch, layers="b"), np.ones(5))


def test_misuse_is_refused(batch):
    with pytest.raises(ValueError, match="params is empty"):
        grand(cross_entropy, [], batch)
    with pytest.raises(ValueError, match="labels='y' is not in the batch.*x, labels"):
        el2n(linear, TREES[0], batch, labels="y")
    wrong = {**batch, "labels": batch["labels"][:, None]}
    with pytest.raises(ValueError, match=r"\(5, 3\) for labels of shape \(5, 1\)"):
        el2n(linear, TREES[0], wrong)
