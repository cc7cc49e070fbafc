import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.models import GPT2
from jaxunlearn.models.states_by_layer import (
    continue_from,
    layer_states,
    state_names,
)

EPS = np.finfo(np.float32).eps


def close(a, b, *, ulps=64, where=True):
    """Equal to so many rounding errors of the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    scale = np.abs(b).max()
    np.testing.assert_array_less(np.abs(np.where(where, a - b, 0)), ulps * EPS * scale)


@pytest.fixture(scope="module")
def compiled(tiny):
    """Jitted states, continuation and hidden states of the tiny model."""
    model, _ = tiny
    return (
        jax.jit(lambda params, batch: layer_states(model, params, batch)),
        jax.jit(
            lambda params, states, layer, batch: continue_from(
                model, params, states, layer, batch
            )
        ),
        jax.jit(model.hidden_states),
    )


@pytest.fixture(scope="module")
def other(tiny):
    """Parameters of another model."""
    rng = np.random.default_rng(7)
    return jax.tree.map(
        lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), tiny[1]
    )


def test_the_last_states_normalised_are_the_hidden_states(tiny, batch, compiled):
    model, params = tiny
    states, _, hidden = compiled
    found = states(params, batch)
    assert found.shape == (3, 3, 12, 16)
    close(model.final_norm(params, found[-1]), hidden(params, batch))


def test_layer_0_is_token_plus_position(tiny, batch, compiled):
    _, params = tiny
    expected = (
        np.asarray(params["wte"]["embedding"])[batch["input_ids"]]
        + np.asarray(params["wpe"]["embedding"])[:12]
    )
    np.testing.assert_array_equal(compiled[0](params, batch)[0], expected)
    moved = {**batch, "position_ids": np.arange(3, 15)[None]}
    close(
        tiny[0].final_norm(tiny[1], compiled[0](params, moved)[-1]),
        compiled[2](params, moved),
    )


def test_going_on_from_its_own_states_changes_nothing(tiny, batch, compiled):
    _, params = tiny
    states, go_on, hidden = compiled
    own, expected = states(params, batch), hidden(params, batch)
    for layer in range(3):
        close(go_on(params, own[layer], layer, batch), expected)


def test_the_layer_may_be_a_number_or_an_array(tiny, batch, compiled):
    model, params = tiny
    states, go_on, _ = compiled
    own = states(params, batch)
    fixed = jax.jit(lambda p, s: continue_from(model, p, s, 1, batch))
    close(fixed(params, own[1]), go_on(params, own[1], jnp.int32(1), batch))


def test_other_states_take_the_place_of_its_own(tiny, other, batch, compiled):
    model, params = tiny
    states, go_on, hidden = compiled
    theirs = states(other, batch)
    # From the embeddings on: a model with their embeddings and its own blocks.
    mixed = {**params, "wte": other["wte"], "wpe": other["wpe"]}
    close(go_on(params, theirs[0], 0, batch), hidden(mixed, batch))
    # From the middle on: their first block, its own second.
    blocks = jax.tree.map(lambda a, b: jnp.stack([b[0], a[1]]), params["h"], other["h"])
    close(go_on(params, theirs[1], 1, batch), hidden({**mixed, "h": blocks}, batch))
    # From the last on, only the normalisation is its own.
    close(go_on(params, theirs[2], 2, batch), model.final_norm(params, theirs[2]))


def test_states_do_not_depend_on_padding_or_the_other_rows(tiny, batch, compiled):
    _, params = tiny
    whole = np.asarray(compiled[0](params, batch))
    padded = {
        "input_ids": np.pad(batch["input_ids"][1:], ((0, 0), (0, 5))),
        "attention_mask": np.pad(batch["attention_mask"][1:], ((0, 0), (0, 5))),
    }
    seen = batch["attention_mask"][1:, :, None] == 1
    close(compiled[0](params, padded)[:, :, :12], whole[:, 1:], where=seen)
    # What stands in the padding does not reach the tokens.
    ids = np.where(batch["attention_mask"] == 1, batch["input_ids"], 1)
    changed = compiled[0](params, {**batch, "input_ids": ids})
    np.testing.assert_array_equal(
        np.asarray(changed)[:, 1:] * seen, whole[:, 1:] * seen
    )


def test_keep_chooses_before_stacking(tiny, batch, compiled):
    model, params = tiny
    whole = compiled[0](params, batch)
    kept = jax.jit(
        lambda p: layer_states(
            model, p, batch, keep=lambda x: {"first": x[:, 0], "mean": x.mean(1)}
        )
    )(params)
    close(kept["first"], whole[:, :, 0])
    close(kept["mean"], whole.mean(2))


def test_there_is_no_dropout_and_the_dtype_is_the_computations(tiny, batch):
    model, params = tiny
    assert model.config.resid_pdrop > 0
    half = GPT2(dataclasses.replace(model.config, dtype="bfloat16"))
    states = layer_states(half, params, batch)
    assert states.dtype == jnp.bfloat16
    on = continue_from(half, params, states[1].astype(jnp.float32), 1, batch)
    assert on.dtype == jnp.bfloat16
    expected = half.hidden_states(params, batch).astype(jnp.float32)
    np.testing.assert_allclose(
        on.astype(jnp.float32), expected, atol=0.05 * float(jnp.abs(expected).max())
    )


def test_names(tiny):
    assert state_names(tiny[0]) == ["wte", "h/0", "h/1"]


def test_misuse(tiny, batch):
    model, params = tiny
    states = jnp.zeros((3, 12, 16))
    for layer in (-1, 3, np.int64(3)):
        with pytest.raises(ValueError, match=f"layer={layer}: 0 .* to 2"):
            continue_from(model, params, states, layer, batch)
    with pytest.raises(ValueError, match=r"states_BTD has shape \(3, 11, 16\)"):
        continue_from(model, params, states[:, 1:], 1, batch)
    long = {"input_ids": np.zeros((1, 25), np.int32)}
    with pytest.raises(ValueError, match="25 tokens, the model has n_positions=24"):
        layer_states(model, params, long)
