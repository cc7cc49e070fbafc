"""A checkpoint in 16 bits trains as one in float32: masters, state, saved, replayed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn import tree
from jaxunlearn.data import in_order
from jaxunlearn.training import (
    Recipe,
    loop,
    mean_gradient_of,
    mean_loss_of,
    replayed_gradient,
    train,
)
from jaxunlearn.training.recipe import (
    batch_at,
    compiled_step,
    initial_state,
    optimizer,
    training_bytes,
)
from jaxunlearn.training.together import train_together

SIXTEEN = ("bfloat16", "float16")


def trained(model, params, data, **settings):
    recipe = Recipe(**{"epochs": 10, "batch_size": 4, "seed": 2} | settings)
    return train(model, params, data, recipe)


@pytest.fixture(scope="module")
def loss(model, data):
    return mean_loss_of(model.per_example_loss, in_order(data))


@pytest.fixture(scope="module")
def ends(model, params, data):
    """The end of a run from the same weights, stored in each dtype."""
    start = tree.cast(params, "bfloat16")  # weights that both dtypes hold
    return {
        (dtype, rate): trained(model, tree.cast(start, dtype), data, learning_rate=rate)
        for rate in (1e-5, 1e-3)
        for dtype in ("float32", "bfloat16")
    }


@pytest.mark.parametrize("rate", [1e-5, 1e-3])
def test_bfloat16_trains_as_float32_and_is_saved_as_what_it_learned(ends, loss, rate):
    wide, low = ends["float32", rate], ends["bfloat16", rate]
    assert low.losses == wide.losses  # the same bits: only what is stored differs
    assert {x.dtype for x in jax.tree.leaves(low.params)} == {jnp.bfloat16.dtype}
    learned = loss(tree.cast(wide.params, "float32"))
    assert loss(low.params) == pytest.approx(learned, abs=2e-3)


def test_float16_trains_with_adam(model, params, data, loss):
    """Adam's epsilon and squared gradients are 0 in float16: 0 / 0 in step 2."""
    ends = [
        trained(model, tree.cast(params, dtype), data, learning_rate=1e-3, epochs=2)
        for dtype in ("float32", "float16")
    ]
    wide, low = (loss(end.params) for end in ends)
    assert low == pytest.approx(wide, abs=2e-3)
    assert {x.dtype for x in jax.tree.leaves(ends[1].params)} == {jnp.float16.dtype}


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_weights_state_and_gradients_are_float32(bigram, data, dtype):
    model, params = bigram
    recipe = Recipe(batch_size=4, optimizer="momentum", microbatch_size=2)
    low = tree.cast(params, dtype)
    state = initial_state(low, optimizer(recipe, 3))
    assert jax.tree.map(lambda x: x.dtype, state.params) == jax.tree.map(
        lambda x: x.dtype, params
    )
    state, _ = compiled_step(model, recipe, 3)(state, batch_at(recipe, data, 0))
    for leaf in jax.tree.leaves((state.params, optax.tree.get(state, "trace"))):
        assert leaf.dtype == jnp.float32
    size = params["wte"]["embedding"].nbytes
    assert training_bytes(recipe, low)["weights"] == size
    assert training_bytes(recipe, low)["gradients"] == size
    assert size <= training_bytes(recipe, low)["optimizer"] < size + 16


def test_a_run_of_16_bits_resumes_and_replays_to_the_same_bits(
    bigram, data, same_bits, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    model, params = bigram
    start = tree.cast(params, "bfloat16")
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-4, seed=1)

    class Interrupted(Exception):
        pass

    def stop(progress):
        if progress.step == 4:
            raise Interrupted

    settings = {"evaluate": lambda p: {"norm": float(tree.norm(p))}}
    whole = train(model, start, data, recipe, **settings)
    with pytest.raises(Interrupted):
        train(model, start, data, recipe, directory=tmp_path, on_step=stop, **settings)
    again = train(model, start, data, recipe, directory=tmp_path, **settings)
    assert same_bits(again.params, whole.params)
    assert again[1:] == whole[1:]
    # What is told of the end is of what is stored.
    assert again.evaluations[-1]["norm"] == float(tree.norm(again.params))


def test_a_16_bit_start_is_replayed_as_its_float32_copy(model, params, data, same_bits):
    start = tree.cast(params, "bfloat16")
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1e-2, seed=1)
    low, wide = (
        replayed_gradient(model, recipe, data, s, [3, 8])[0]
        for s in (start, tree.cast(start, "float32"))
    )
    assert same_bits(low, wide)


def test_models_trained_together_are_those_trained_alone(bigram, data, same_bits):
    model, params = bigram
    starts = [tree.cast(params, "bfloat16")] * 2
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-3)
    recipes = [dataclasses.replace(recipe, seed=seed) for seed in (0, 1)]
    together = train_together(model, starts, data, recipes)
    for place, one in enumerate(recipes):
        alone = train(model, starts[0], data, one).params
        found = jax.tree.map(lambda x, i=place: x[i], together)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            assert a.dtype == b.dtype == jnp.bfloat16
            # Float32 rounding may move a weight past the draw that decides it.
            assert np.mean(np.asarray(a) != np.asarray(b)) < 1e-3


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_losses_and_gradients_do_not_depend_on_the_storage(
    model, params, data, loss, distance, dtype
):
    low = tree.cast(params, dtype)
    wide = tree.cast(low, "float32")
    assert loss(low) == loss(wide)
    gradient = mean_gradient_of(model.per_example_loss, in_order(data))
    assert distance(gradient(low), gradient(wide)) < 1e-6
    computed = dataclasses.replace(model.config, dtype="bfloat16")
    rough = mean_loss_of(type(model)(computed).per_example_loss, in_order(data))
    assert 1e-5 < abs(rough(wide) - loss(wide)) < 0.1  # the two dtypes are two things
