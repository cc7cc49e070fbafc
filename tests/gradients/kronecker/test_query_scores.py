import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.kronecker import query_scores as module
from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import (
    MEAN_EIGENVALUE,
    Damping,
    damping_of,
    kronecker_inverse_vp,
)
from jaxunlearn.gradients.kronecker.query_scores import ekfac_scores

EPSILON = float(jnp.finfo(jnp.float32).eps)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.tanh(nn.Dense(8, name="dense")(x)), None


class Network(nn.Module):
    """An embedding, looked up and multiplied by, around stacked layers."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(11, 8, name="embed")
        blocks = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        x, _ = blocks(name="h")(embed(ids), None)
        return embed.attend(nn.LayerNorm(name="norm")(x))


def LOSS(params, batch):
    logits = Network().apply({"params": params}, batch["ids"])
    scores = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(scores, batch["labels"][..., None], 2).sum((1, 2))


LOSS.stacked = ("h",)


def make_batch(count, seed):
    random = np.random.default_rng(seed)
    return {
        "ids": random.integers(0, 11, (count, 6)).astype(np.int32),
        "labels": random.integers(0, 11, (count, 6)).astype(np.int32),
        "weight": random.uniform(0.5, 2.0, count).astype(np.float32),
    }


TRAIN, QUERY = make_batch(5, 0), make_batch(3, 1)


@pytest.fixture(scope="module")
def params():
    random = np.random.default_rng(2)
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.asarray(random.normal(size=x.shape), jnp.float32),
        Network().init(jax.random.key(0), TRAIN["ids"])["params"],
    )


@pytest.fixture(scope="module")
def slow(params):
    """Scores by vmap(grad) and fitted factors; and these."""

    def one(example):
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.grad(lambda p: LOSS(p, alone)[0])(params)

    factors = jax.jit(functools.partial(fit_ekfac, LOSS))(params, TRAIN)
    gradients = jax.jit(jax.vmap(one))
    solved = kronecker_inverse_vp(factors, gradients(QUERY))
    return flat(solved) @ flat(gradients(TRAIN)).T, factors


def flat(vectors):
    rows = [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(vectors)]
    return np.concatenate(rows, axis=1)


def close(a, b, factor=1000.0):
    """Equal up to ``factor`` roundings of the largest entry."""
    atol = factor * EPSILON * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def found(params):
    steps = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = ekfac_scores(
            LOSS,
            params,
            TRAIN,
            QUERY,
            batch_size=2,
            by_layer=True,
            progress=lambda done, total: steps.append((done, total)),
        )
    return scores, steps


def test_one_pass_gives_the_scores_of_the_slow_way(found, slow):
    scores, steps = found
    assert scores.passes == 1
    assert scores.scores.shape == (3, 5)
    close(scores.scores, slow[0])
    assert steps == [(i + 1, 5) for i in range(5)]


def test_layers_add_up_and_tell_their_damping(found, slow):
    scores, factors = found[0], slow[1]
    close(sum(scores.by_layer.values()), scores.scores)
    assert set(scores.by_layer) == set(scores.damping)
    added = damping_of(factors, MEAN_EIGENVALUE)
    for layer in range(2):
        here = scores.damping[f"h/{layer}/dense"]
        np.testing.assert_allclose(here, float(added["h/dense"][layer, 0, 0]), 1e-4)
    np.testing.assert_allclose(
        scores.damping["embed/embedding"], float(added["embed/embedding"][0, 0]), 1e-4
    )


def test_without_room_for_the_gradients_they_are_formed_twice(
    found, params, monkeypatch
):
    monkeypatch.setattr(module, "ROTATED_BYTES", 1)
    scores = ekfac_scores(LOSS, params, TRAIN, QUERY, batch_size=2)
    close(scores.scores, found[0].scores)


@pytest.mark.slow
def test_small_caches_take_more_passes_or_none(found, params):
    score = functools.partial(
        ekfac_scores, LOSS, params, TRAIN, QUERY, batch_size=2, layers="dense"
    )
    parts = [v for k, v in found[0].by_layer.items() if "dense" in k]
    # 5 microbatches of 2 examples of 6 tokens, 8 numbers in and 8 out, 2 layers.
    each = 5 * 2 * 6 * 16 * 4
    for cache, passes in [(2 * each, 1), (each, 2), (each - 1, 3)]:
        scores = score(cache_bytes=cache)
        assert scores.passes == passes
        close(scores.scores, sum(parts))
        assert sorted(scores.damping) == ["h/0/dense", "h/1/dense"]
    with pytest.raises(ValueError, match="cache_bytes=10 even in 3 passes"):
        score(cache_bytes=10, by_layer=True)


def test_bfloat16_keeps_scores_to_its_own_precision(found, params):
    half = ekfac_scores(
        LOSS,
        params,
        TRAIN,
        QUERY,
        batch_size=2,
        layers="h/1/dense",
        cache_dtype="bfloat16",
    )
    exact = found[0].by_layer["h/1/dense"]
    error = np.abs(half.scores - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 8 * float(jnp.finfo(jnp.bfloat16).eps)


def test_batches_and_another_loss_for_queries(found, params):
    parts = [{k: v[i : i + 1] for k, v in TRAIN.items()} for i in range(5)]
    double = ekfac_scores(
        LOSS,
        params,
        parts,
        QUERY,
        query_loss=lambda params, batch: 2 * LOSS(params, batch),
        layers="norm",
        damping=Damping("mean_eigenvalue", 0.1),
    )
    single = sum(v for k, v in found[0].by_layer.items() if "norm" in k)
    close(double.scores, 2 * single)


def test_misuse_is_named(params):
    with pytest.raises(ValueError, match="cache_dtype='int8'"):
        ekfac_scores(LOSS, params, TRAIN, QUERY, cache_dtype="int8")
    with pytest.raises(ValueError, match="batch_size=0"):
        ekfac_scores(LOSS, params, TRAIN, QUERY, batch_size=0)
    with pytest.raises(ValueError, match="damping rule 'none'"):
        ekfac_scores(LOSS, params, TRAIN, QUERY, damping=Damping("none", 0.0))
