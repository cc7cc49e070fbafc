import dataclasses
import zlib

import jax
import numpy as np
import pytest

from jaxunlearn.data import TokenizedData, in_order, prompt_and_completion, tokenize
from jaxunlearn.evaluation.membership import signals as membership
from jaxunlearn.evaluation.membership.signals import ATTACKS, gradient_norm
from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    token_statistics,
)
from jaxunlearn.tree import named_leaves

EPS = np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def data(small):
    return tokenize(small.records, small.tokenizer, max_length=64)


@pytest.fixture(scope="module")
def texts(small):
    return [prompt_and_completion(record)[1] for record in small.records]


@pytest.fixture(scope="module")
def other(small):
    """The parameters of a reference."""
    return jax.tree.map(lambda x: 0.7 * x, small.params)


def statistics_of(small, params, data, **options):
    return token_statistics(small.model, params, in_order(data, **options))


@pytest.fixture(scope="module")
def statistics(small, data):
    return statistics_of(small, small.params, data, batch_size=3)


@pytest.fixture(scope="module")
def in_numpy(small, data, other):
    """Labels' log-probabilities and the whole distributions' in float64."""
    logits_of = jax.jit(small.model.logits)

    def run(params):
        rows = []
        for example in data.examples:
            ids = np.zeros((1, 40), np.int32)
            ids[0, : len(example.input_ids)] = example.input_ids
            logits = np.asarray(logits_of(params, {"input_ids": ids})[0], np.float64)
            at = np.flatnonzero(example.labels[1:] != -100)
            z = logits[at] - logits[at].max(axis=-1, keepdims=True)
            log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
            rows.append((log_p[np.arange(len(at)), example.labels[at + 1]], log_p))
        return rows

    return run(small.params), run(other)


def close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * EPS * scale)


def test_loss_zlib_and_reference(small, data, texts, statistics, in_numpy, other):
    own, reference = in_numpy
    losses = np.array([-p.mean() for p, _ in own])
    close(membership.loss(statistics), losses)
    sizes = [len(zlib.compress(bytes(text, "utf8"))) for text in texts]
    close(membership.zlib(statistics, texts), losses / sizes)
    theirs = statistics_of(small, other, data)
    expected = losses - [-p.mean() for p, _ in reference]
    close(membership.reference(statistics, theirs), expected)
    assert (membership.reference(statistics, statistics) == 0).all()


@pytest.mark.parametrize("k", [0.01, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("drop", [False, True])
def test_min_k_and_min_k_plus_plus(statistics, in_numpy, k, drop):
    plain, standard = [], []
    for p, log_p in in_numpy[0]:
        p, log_p = (p[:-1], log_p[:-1]) if drop else (p, log_p)
        count = max(1, int(len(p) * k))
        plain.append(-np.sort(p)[:count].mean())
        mean = (np.exp(log_p) * log_p).sum(axis=-1)
        variance = (np.exp(log_p) * log_p**2).sum(axis=-1) - mean**2
        z = (p - mean) / np.sqrt(np.maximum(variance, 1e-6))
        standard.append(-np.sort(z)[:count].mean())
    close(membership.min_k(statistics, k=k, drop_last=drop), plain)
    close(membership.min_k_plus_plus(statistics, k=k, drop_last=drop), standard)


def test_min_k_of_all_tokens_is_the_loss(statistics):
    np.testing.assert_allclose(
        membership.min_k(statistics, k=1.0), membership.loss(statistics)
    )
    assert (membership.min_k(statistics, k=0.2) >= membership.loss(statistics)).all()


def test_a_certain_token_has_the_floor_for_variance():
    zeros = np.zeros(1, np.float32)
    one = TokenStatistics(zeros, np.float32([-0.5]), zeros, zeros, zeros)
    found = membership.min_k_plus_plus([one], variance_floor=1e-4)
    assert found[0] == pytest.approx(50)
    with pytest.raises(ValueError, match="variance of 0"):
        membership.min_k_plus_plus([one], variance_floor=0)
    with pytest.raises(ValueError, match="variance_floor=-1"):
        membership.min_k_plus_plus([one], variance_floor=-1)


def test_a_member_scores_lower(small, data, statistics):
    """One example learned by heart: all its scores fall."""

    @jax.jit
    def step(params):
        gradient = jax.grad(lambda p: small.model.per_example_loss(p, batch).sum())
        return jax.tree.map(lambda x, g: x - 0.1 * g, params, gradient(params))

    batch = {
        "input_ids": data.examples[0].input_ids[None],
        "labels": data.examples[0].labels[None],
    }
    params = small.params
    for _ in range(30):
        params = step(params)
    learned = statistics_of(small, params, data, batch_size=3)
    for name in ("loss", "min_k", "min_k_pp"):
        assert ATTACKS[name](learned)[0] < ATTACKS[name](statistics)[0]
    assert membership.loss(learned)[0] < 0.5
    assert membership.reference(learned, statistics)[0] < 0


@pytest.fixture(scope="module")
def one_by_one(small, data):
    """The definition: an example's gradient alone, tensor by tensor as torch has."""
    # Away from the model's own padding: none for the longest example.
    length = data.length
    gradient_of = jax.jit(
        jax.grad(lambda p, b: small.model.per_example_loss(p, b).sum())
    )

    def score(ids, labels):
        rest = (0, length - len(ids))
        batch = {
            "input_ids": np.pad(ids, rest)[None],
            "labels": np.pad(labels, rest, constant_values=-100)[None],
        }
        norms = []
        for name, leaf in named_leaves(gradient_of(small.params, batch)):
            layers = leaf if name.startswith("h/") else [leaf]
            norms += [np.linalg.norm(np.float64(layer)) for layer in layers]
        assert len(norms) == 4 + 12 * small.model.config.n_layer
        return np.mean(norms)

    return score


@pytest.mark.slow
def test_gradient_norm_is_the_mean_over_torchs_tensors(small, data, one_by_one):
    assert small.model.config.resid_pdrop > 0  # which must not make it random
    expected = [one_by_one(e.input_ids, e.labels) for e in data.examples]
    # Padding, batches and the padding token change nothing.
    for pad_id, options in (
        (5, {"batch_size": 3, "length": 48}),
        (0, {"batch_size": 7}),
    ):
        padded = dataclasses.replace(data, pad_id=pad_id)
        found = gradient_norm(
            small.model.per_example_loss, small.params, in_order(padded, **options)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_gradient_norm_leaves_the_end_of_text_out(small, data, one_by_one):
    end, example = small.tokenizer.eos_token_id, data.examples[0]
    assert example.labels[-1] == end
    labels = example.labels.copy()
    labels[-1] = -100
    expected = one_by_one(example.input_ids, labels)
    pair = TokenizedData((example, example._replace(labels=labels)), 0, 0)
    for options in ({}, {"drop_last": True, "end_of_text": end}):
        found = gradient_norm(
            small.model.per_example_loss,
            small.params,
            in_order(pair, batch_size=7, length=data.length),
            **options,
        )
        np.testing.assert_allclose(found[1], expected, rtol=1e-4)
        same = np.isclose(found[0], expected, rtol=1e-4)
        assert same == bool(options)
    assert example.labels[-1] == end  # the data stay as they are


def test_scores_do_not_depend_on_batch_size_or_padding(small, data, texts, statistics):
    padded = dataclasses.replace(data, pad_id=5)
    again = statistics_of(small, small.params, padded, batch_size=7, length=48)
    for name in ("loss", "min_k", "min_k_pp"):
        close(ATTACKS[name](again), ATTACKS[name](statistics))
    close(ATTACKS["zlib"](again, texts), ATTACKS["zlib"](statistics, texts))


def test_bad_input_is_refused(small, data, texts, statistics):
    for function in (membership.loss, membership.min_k, membership.min_k_plus_plus):
        with pytest.raises(ValueError, match="no example"):
            function([])
    for function in (membership.min_k, membership.min_k_plus_plus):
        for k in (0, 1.1, np.nan):
            with pytest.raises(ValueError, match="k="):
                function(statistics, k=k)
        with pytest.raises(ValueError, match="pass both"):
            function(statistics, end_of_text=0)
    nan = TokenStatistics(*(np.full(2, np.nan, np.float32) for _ in range(5)))
    for function in (membership.loss, membership.min_k, membership.min_k_plus_plus):
        with pytest.raises(ValueError, match="NaN of example 1"):
            function([statistics[0], nan])
    with pytest.raises(ValueError, match="6 texts for 7"):
        membership.zlib(statistics, texts[:6])
    with pytest.raises(ValueError, match="same data"):
        membership.reference(statistics, statistics[:6])
    with pytest.raises(ValueError, match="same data"):
        membership.reference(statistics, statistics[::-1])
    with pytest.raises(TypeError):
        membership.reference(statistics)


def test_bad_data_for_gradient_norms_are_refused(small, data):
    def run(examples, **options):
        part = TokenizedData(tuple(examples), 0, 0)
        gradient_norm(
            small.model.per_example_loss, small.params, in_order(part), **options
        )

    with pytest.raises(ValueError, match="data is empty"):
        run([])
    with pytest.raises(ValueError, match="pass both"):
        run(data.examples, end_of_text=0)
    first = data.examples[0]
    bare = first._replace(labels=np.full_like(first.labels, -100))
    with pytest.raises(ValueError, match="example 1 has no token with loss"):
        run([first, bare])
    single = bare.labels.copy()
    single[-1] = first.input_ids[-1]
    with pytest.raises(ValueError, match="example 0 has no token with loss"):
        run([first._replace(labels=single)], drop_last=True)
