import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import (
    kronecker_inverse_vp,
    rotate,
)
from jaxunlearn.gradients.kronecker.query_scores import ekfac_scores
from jaxunlearn.models.gpt2 import GPT2, GPT2Config

EPSILON = float(jnp.finfo(jnp.float32).eps)


def close(a, b, factor=100.0):
    """Equal up to ``factor`` roundings of the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=factor * EPSILON * np.abs(b).max())


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Layers that are stacked, and a language model.


class Stacked(nn.Module):
    scanned: bool

    @nn.compact
    def __call__(self, x):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x):
                return x + nn.tanh(nn.Dense(4)(x)), None

        if self.scanned:
            blocks = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            return blocks(name="h")(x)[0]
        for i in range(3):
            x, _ = Block(name=f"block_{i}")(x)
        return x


CHOSEN = "h/(0|2)/|block_(0|2)"


@pytest.mark.parametrize(("layers", "largest"), [(None, 9), (CHOSEN, 9), (CHOSEN, 2)])
def test_stacked_layers_are_layers(layers, largest):
    x = normal(5, 2, 4)
    batch = {"x": x, "y": normal(5, 2, 4, seed=8)}
    apart = Stacked(False).init(jax.random.key(0), x)["params"]
    stack = {"h": jax.tree.map(lambda *x: jnp.stack(x), *apart.values())}
    vector = jax.tree.map(lambda x: normal(*x.shape), apart)
    vectors = {"h": jax.tree.map(lambda *x: jnp.stack(x), *vector.values())}

    @functools.partial(jax.jit, static_argnums=0)
    def solved(scanned, params, vector):
        def own_loss(params, batch):
            out = Stacked(scanned).apply({"params": params}, batch["x"])
            return ((out - batch["y"]) ** 2).sum(axis=(1, 2))

        own_loss.stacked = ("h",) if scanned else ()
        factors = fit_ekfac(
            own_loss, params, batch, layers=layers, largest_factor=largest
        )
        return kronecker_inverse_vp(factors, vector, damping=0.1)

    found, each = solved(True, stack, vectors), solved(False, apart, vector)
    expected = {"h": jax.tree.map(lambda *x: jnp.stack(x), *each.values())}
    jax.tree.map(functools.partial(close, factor=1000), found, expected)
    if layers is not None:
        assert not found["h"]["Dense_0"]["kernel"][1].any()


@pytest.mark.slow
def test_a_language_model_with_tied_embedding():
    model = GPT2(
        GPT2Config(vocab_size=97, n_positions=6, n_embd=16, n_layer=2, n_head=2)
    )
    start = model.init(key=jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1 * normal(*x.shape), start)
    random = np.random.default_rng(0)
    ids = random.integers(0, 97, (4, 6)).astype(np.int32)
    batch = {
        "input_ids": ids,
        "labels": np.where(random.random((4, 6)) < 0.2, -100, ids),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = jax.jit(functools.partial(fit_ekfac, model.per_example_loss))(
            params, batch
        )
    assert sum(x.size for x in factors.eigenvalues.values()) == sum(
        x.size for x in jax.tree.leaves(params)
    )
    assert factors.bases["wte/embedding"].left is None
    assert factors.bases["h/mlp/c_proj"].left.shape == (2, 65, 65)

    def one(example):
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.grad(lambda p: model.per_example_loss(p, alone)[0])(params)

    @jax.jit
    def slowly(batch, factors):
        own = jax.vmap(one)(batch)
        rows = rotate(factors, own)
        means = {name: (x**2).mean(axis=0) for name, x in rows.items()}
        return means, flat(kronecker_inverse_vp(factors, own)) @ flat(own).T

    means, products = slowly(jax.tree.map(jnp.asarray, batch), factors)
    for name, mean in means.items():
        close(factors.eigenvalues[name], mean, 1000)
    query = {name: x[:2] for name, x in batch.items()}
    scores = ekfac_scores(model.per_example_loss, params, batch, query, batch_size=2)
    close(scores.scores, products[:2], 1000)


def flat(vectors):
    rows = [x.reshape(len(x), -1) for x in jax.tree.leaves(vectors)]
    return jnp.concatenate(rows, axis=1)
