import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import in_order, tokenize
from jaxunlearn.evaluation.text import token_pass as module
from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    batch_statistics,
    logit_statistics,
    mean_losses,
    token_statistics,
)
from jaxunlearn.gradients.batching import compiled
from jaxunlearn.training import example_losses

EPS = np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def data(small):
    return tokenize(small.records, small.tokenizer, max_length=64)


@pytest.fixture(scope="module")
def found(small, data):
    return token_statistics(
        small.model, small.params, in_order(data, batch_size=4, length=40)
    )


def test_statistics_equal_those_of_one_example_alone_in_float64(small, data, found):
    for example, one in zip(data.examples, found, strict=True):
        logits = small.model.logits(
            small.params, {"input_ids": example.input_ids[None]}
        )
        logits = np.asarray(logits[0, :-1], np.float64)
        labels = example.labels[1:]
        at = np.flatnonzero(labels != -100)
        top = logits.max(axis=-1, keepdims=True)
        log_p = logits - top
        log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
        p = np.exp(log_p)
        mean = (p * log_p).sum(axis=-1)
        variance = (p * log_p**2).sum(axis=-1) - mean**2
        scale = 64 * EPS * np.abs(log_p).max() ** 2
        assert (one.token == labels[at]).all()
        assert one.token[-1] == small.tokenizer.eos_token_id
        np.testing.assert_allclose(
            one.log_probability, log_p[at, labels[at]], atol=scale
        )
        np.testing.assert_array_equal(
            one.correct, logits[at].argmax(axis=-1) == labels[at]
        )
        np.testing.assert_allclose(one.mean_log_probability, mean[at], atol=scale)
        np.testing.assert_allclose(
            one.variance_log_probability, variance[at], atol=scale
        )


def test_nothing_depends_on_batch_size_padding_or_chunks(
    small, data, found, monkeypatch
):
    for batch_size, length, chunk in ((2, 48, 1024), (7, None, 1024), (4, 40, 12)):
        monkeypatch.setattr(module, "CHUNK_TOKENS", chunk)
        compiled.clear_cache()
        again = token_statistics(
            small.model,
            small.params,
            in_order(
                dataclasses.replace(data, pad_id=3),
                batch_size=batch_size,
                length=length,
            ),
        )
        for one, other in zip(found, again, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    compiled.clear_cache()


def test_a_second_call_compiles_nothing(small, data, monkeypatch):
    batches = in_order(data, batch_size=4, length=40)
    token_statistics(small.model, small.params, batches)
    traced, statistics = [], module.logit_statistics
    monkeypatch.setattr(
        module, "logit_statistics", lambda *x: traced.append(x) or statistics(*x)
    )
    # Neither an equal model nor other parameters are another program; a shape is.
    again = type(small.model)(small.model.config)
    params = jax.tree.map(lambda x: -x, small.params)
    token_statistics(again, params, batches)
    assert not traced
    token_statistics(again, params, in_order(data, batch_size=4, length=44))
    assert traced


def test_mean_losses_are_the_losses_of_training(small, data, found):
    losses = example_losses(small.model.per_example_loss, small.params, in_order(data))
    np.testing.assert_allclose(mean_losses(found), losses, rtol=16 * EPS)


def test_certain_predictions_have_no_variance_and_no_nan():
    logits = jnp.array([[[0.0, 1e4, -1e4]]])
    log_p, correct, mean, variance = jax.jit(logit_statistics)(logits, jnp.array([[1]]))
    assert (float(log_p[0, 0]), bool(correct[0, 0])) == (0.0, True)
    assert (float(mean[0, 0]), float(variance[0, 0])) == (0.0, 0.0)


def test_logits_are_never_held_for_the_whole_batch(small):
    batch = {
        "input_ids": jnp.zeros((64, 33), jnp.int32),
        "labels": jnp.zeros((64, 33), jnp.int32),
    }
    jaxpr = str(
        jax.make_jaxpr(lambda p: batch_statistics(small.model, p, batch))(small.params)
    )
    assert "f32[64,32,290]" not in jaxpr
    assert "f32[64,16,290]" in jaxpr


def test_an_example_without_labels_or_no_example_is_refused():
    with pytest.raises(ValueError, match="no example"):
        mean_losses([])
    empty = np.zeros(0, np.float32)
    with pytest.raises(ValueError, match=r"examples \[0\]"):
        mean_losses([TokenStatistics(empty, empty, empty, empty, empty)])
