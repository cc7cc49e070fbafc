import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.evaluation.internals.concepts import (
    concept_change,
    concept_vector,
    top_tokens,
)
from jaxunlearn.models import GPT2, GPT2Config

TINY = GPT2Config(vocab_size=97, n_positions=8, n_embd=16, n_layer=2, n_head=2)
MODEL = GPT2(TINY)
CHOSEN = dict(layer=1, dimension=37)


def draw(seed, config=TINY):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: GPT2(config).init(key=jax.random.key(0)))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), shapes
    )


@pytest.fixture(scope="module")
def before():
    return draw(0)


def with_vector(params, vector, *, layer, dimension):
    kernel = params["h"]["mlp"]["c_proj"]["kernel"]
    kernel = kernel.at[layer, dimension].set(vector)
    mlp = {**params["h"]["mlp"]}
    mlp["c_proj"] = {**mlp["c_proj"], "kernel": kernel}
    return {**params, "h": {**params["h"], "mlp": mlp}}


def test_the_vector_is_what_the_unit_writes_into_the_residual_stream(before):
    # The block's output is linear in a unit's output weights: raising them by d must
    # move the residual stream along d, and along nothing else.
    from jaxunlearn.models.states_by_layer import layer_states

    batch = {"input_ids": np.arange(6)[None]}
    direction = np.random.default_rng(1).standard_normal(16).astype(np.float32)
    vector = concept_vector(MODEL, before, **CHOSEN)
    assert vector.shape == (16,)
    raised = with_vector(before, vector + direction, **CHOSEN)
    moved = np.asarray(
        layer_states(MODEL, raised, batch) - layer_states(MODEL, before, batch)
    )
    np.testing.assert_array_equal(moved[:2], 0)
    activation = moved[2, 0] @ direction / (direction @ direction)
    assert np.abs(activation).max() > 0.1
    np.testing.assert_allclose(
        moved[2, 0], activation[:, None] * direction, atol=2e-5 * np.abs(moved).max()
    )


def test_nothing_changed(before):
    found = concept_change(MODEL, before, before, **CHOSEN, tokens=20)
    assert found.cosine == pytest.approx(1)
    assert found.distance == 0.0
    assert found.jaccard == 1.0
    np.testing.assert_array_equal(found.top_before, found.top_after)


def test_the_three_numbers_by_hand(before):
    after = draw(1)
    found = concept_change(MODEL, before, after, **CHOSEN, tokens=20)
    v, w = (
        np.float64(p["h"]["mlp"]["c_proj"]["kernel"])[1, 37] for p in (before, after)
    )
    assert found.cosine == pytest.approx(
        v @ w / np.linalg.norm(v) / np.linalg.norm(w), abs=1e-6
    )
    assert found.distance == pytest.approx(np.linalg.norm(v - w), rel=1e-6)
    tops = []
    for p, x in ((before, v), (after, w)):
        raised = np.float64(p["wte"]["embedding"]) @ x
        tops.append(np.argsort(-raised)[:20])
    np.testing.assert_array_equal(found.top_before, tops[0])
    np.testing.assert_array_equal(found.top_after, tops[1])
    a, b = set(tops[0].tolist()), set(tops[1].tolist())
    assert found.jaccard == pytest.approx(len(a & b) / len(a | b))
    back = concept_change(MODEL, after, before, **CHOSEN, tokens=20)
    assert back[:3] == pytest.approx(found[:3])
    everything = concept_change(MODEL, before, after, **CHOSEN, tokens=97)
    assert everything.jaccard == 1.0


def test_length_alone_does_not_change_what_is_raised(before):
    longer = with_vector(before, 3 * concept_vector(MODEL, before, **CHOSEN), **CHOSEN)
    found = concept_change(MODEL, before, longer, **CHOSEN, tokens=20)
    assert found.cosine == pytest.approx(1)
    assert found.jaccard == 1.0
    assert found.distance > 0
    turned = with_vector(before, -concept_vector(MODEL, before, **CHOSEN), **CHOSEN)
    opposite = concept_change(MODEL, before, turned, **CHOSEN, tokens=20)
    assert opposite.cosine == pytest.approx(-1)
    assert opposite.jaccard == 0.0


def test_an_erased_vector_raises_nothing(before):
    erased = with_vector(before, jnp.zeros(16), **CHOSEN)
    found = concept_change(MODEL, before, erased, **CHOSEN, tokens=20)
    length = float(jnp.linalg.norm(concept_vector(MODEL, before, **CHOSEN)))
    assert (found.cosine, found.jaccard) == (0.0, 0.0)
    assert found.distance == pytest.approx(length)
    assert len(found.top_after) == 0
    assert concept_change(MODEL, erased, erased, **CHOSEN, tokens=20).jaccard == 1.0


def test_misuse(before):
    for layer, dimension, message in [
        (2, 0, "layer=2: 0 to 1"),
        (-1, 0, "layer=-1"),
        (0, 64, "dimension=64: 0 to 63"),
    ]:
        with pytest.raises(ValueError, match=message):
            concept_vector(MODEL, before, layer=layer, dimension=dimension)
    vector = concept_vector(MODEL, before, **CHOSEN)
    for tokens in (0, 98):
        with pytest.raises(ValueError, match=f"tokens={tokens}: 1 to 97"):
            top_tokens(MODEL, before, vector, tokens=tokens)
    wider = draw(2, dataclasses.replace(TINY, n_embd=18))
    with pytest.raises(ValueError, match="vectors of width 16 and 18"):
        concept_change(MODEL, before, wider, **CHOSEN, tokens=20)
