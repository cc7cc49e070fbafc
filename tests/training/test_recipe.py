import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn import tree
from jaxunlearn.data import collate, step_indices
from jaxunlearn.training import Recipe
from jaxunlearn.training.recipe import (
    OPTIMIZERS,
    batch_at,
    compiled_step,
    example_shares,
    initial_state,
    learning_rate,
    optimizer,
    step_key,
    steps_per_epoch,
    update_weights,
)

EPS = float(np.finfo(np.float32).eps)
SGD = Recipe(epochs=1, batch_size=4, learning_rate=1.0, optimizer="sgd", seed=5)


def change(recipe, **settings):
    return dataclasses.replace(recipe, **settings)


def one_step(model, recipe, params, batch):
    state = initial_state(jax.tree.map(jnp.copy, params), optimizer(recipe, 3))
    return compiled_step(model, recipe, 3)(state, batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be a whole number from 1 to 2147483647"),
        ({"epochs": "6"}, "epochs='6': must be a whole number"),
        ({"epochs": 2.0}, "epochs=2.0: must be a whole number"),
        ({"epochs": None}, "epochs=None"),
        ({"epochs": True}, "epochs=True"),
        ({"batch_size": 0}, "batch_size=0: must be a whole number from 1 to 1048576"),
        ({"batch_size": 10**9}, "batch_size=1000000000"),
        ({"warmup_steps": -1}, "warmup_steps=-1: must be a whole number from 0"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1: must be a number from 0 to"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3'"),
        ({"learning_rate": 10**400}, "learning_rate=1000"),
        ({"learning_rate": 1e39}, "learning_rate=1e[+]39"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: must be a number from 0"),
        ({"weight_decay": 0.1, "optimizer": "sgd"}, "weight_decay=0.1 does nothing"),
        ({"clip_norm": 0.0}, "clip_norm=0.0: must be a number .*, or None"),
        ({"clip_norm": float("nan")}, "clip_norm=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296: must be .* from 0 to 4294967295$"),
        ({"seed": 2**70}, "seed=1180591620717411303424"),
        ({"optimizer": "lion"}, "optimizer='lion': one of adamw, adam, sgd, momentum"),
        ({"schedule": "step"}, "schedule='step': one of constant, linear, cosine"),
        ({"reduction": "sum"}, "reduction='sum': one of token, example"),
        ({"batch_size": 6, "microbatch_size": 4}, "microbatch_size=4 does not divide"),
        ({"microbatch_size": 0}, "microbatch_size=0: must be .*, or None"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_schedules_have_their_closed_forms():
    steps = np.arange(11)

    def rates(**settings):
        schedule = learning_rate(Recipe(learning_rate=2.0, **settings), 10)
        return np.array([float(schedule(s)) for s in steps])

    np.testing.assert_allclose(rates(), 2.0)
    np.testing.assert_allclose(rates(schedule="linear"), 2 - steps / 5, atol=EPS)
    cosine = 1 + np.cos(np.pi * steps / 10)
    np.testing.assert_allclose(rates(schedule="cosine"), cosine, atol=4 * EPS)
    warmed = rates(schedule="linear", warmup_steps=4)
    np.testing.assert_allclose(warmed[:5], [0, 0.5, 1, 1.5, 2], atol=EPS)
    np.testing.assert_allclose(warmed[4:], 2 - np.arange(7) / 3, atol=4 * EPS)


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_shares_sum_to_one_and_padding_has_none(data, reduction):
    recipe = change(SGD, reduction=reduction)
    for step in range(3):
        batch = batch_at(recipe, data, step)
        shares = np.asarray(example_shares(recipe, batch))
        real = batch["index"] >= 0
        assert shares.sum() == pytest.approx(1, abs=4 * EPS)
        assert not shares[~real].any()
        count = (batch["labels"][:, 1:] != -100).sum(axis=1)
        expected = count / count.sum() if reduction == "token" else real / real.sum()
        np.testing.assert_allclose(shares, expected, rtol=2 * EPS)
    assert real.tolist() == [True, True, False, False]  # 10 = 4 + 4 + 2


@pytest.mark.parametrize("kind", ["token", "example in parts"])
def test_a_step_takes_the_weighted_sum_of_the_examples_gradients(
    model, params, data, slow_gradient, distance, truncated_run, kind
):
    recipe = SGD if kind == "token" else truncated_run.recipe
    for step in (0, 2):  # a full batch, and one whose second half is padding
        batch = batch_at(recipe, data, step)
        state, _ = one_step(model, recipe, params, batch)
        if recipe.optimizer == "adamw":  # its first moment, which began at 0
            found = tree.scaled(10.0, optax.tree.get(state.opt_state, "mu"))
        else:  # learning rate 1: the step, up to the rounding of the parameters
            found = tree.subtract(params, state.params)
        shares = np.asarray(example_shares(recipe, batch))
        expected = tree.zeros_like(params)
        for index, share in zip(batch["index"], shares, strict=True):
            if index >= 0:
                one = slow_gradient(model, params, int(index))
                expected = tree.add_scaled(expected, share, one)
        assert distance(found, expected) < 100 * EPS


def test_padding_changes_nothing(model, params, data, distance):
    batch = batch_at(SGD, data, 0)
    state, metrics = one_step(model, SGD, params, batch)
    indices = step_indices(SGD.seed, 0, n=10, batch_size=4)
    batch = collate(data, indices, batch_size=6, length=15)
    padded, padded_metrics = one_step(model, SGD, params, batch)
    np.testing.assert_allclose(metrics, padded_metrics, rtol=20 * EPS)
    step = tree.subtract(state.params, params)
    assert distance(tree.subtract(padded.params, params), step) < 100 * EPS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning_rate_0_leaves_the_parameters_bit_equal(bigram, data, same_bits, name):
    model, params = bigram
    recipe = change(SGD, optimizer=name, learning_rate=0.0, clip_norm=0.5)
    if name == "adamw":
        recipe = change(recipe, weight_decay=0.1)
    batch = batch_at(recipe, data, 0)
    state, metrics = one_step(model, recipe, params, batch)
    assert same_bits(state.params, params)
    assert int(state.step) == 1
    assert float(metrics.gradient_norm) > 0


def test_plain_sgd_takes_each_example_with_its_update_weight(bigram, data, distance):
    model, params = bigram
    recipe = change(SGD, schedule="linear", warmup_steps=2)
    gradient = jax.jit(
        jax.grad(lambda p, b, i: model.per_example_loss(p, b)[i]), static_argnums=2
    )
    state = initial_state(jax.tree.map(jnp.copy, params), optimizer(recipe, 3))
    for step in range(3):
        batch = batch_at(recipe, data, step)
        before = jax.tree.map(jnp.copy, state.params)
        weights = update_weights(recipe, batch, step, 3)
        expected = before
        for row, weight in enumerate(weights):
            one = gradient(before, batch, row)
            expected = tree.add_scaled(expected, -float(weight), one)
        state, _ = compiled_step(model, recipe, 3)(state, batch)
        np.testing.assert_allclose(
            state.params["wte"]["embedding"],
            expected["wte"]["embedding"],
            atol=8 * EPS,
        )
        assert weights.sum() == pytest.approx((0.0, 0.5, 1.0)[step], abs=EPS)


def test_the_norm_is_told_before_clipping_and_the_step_is_clipped(bigram, data):
    model, params = bigram
    batch = batch_at(SGD, data, 0)
    _, free = one_step(model, SGD, params, batch)
    limit = float(free.gradient_norm) / 4
    state, clipped = one_step(model, change(SGD, clip_norm=limit), params, batch)
    assert float(clipped.gradient_norm) == pytest.approx(float(free.gradient_norm))
    moved = tree.norm(tree.subtract(state.params, params))
    assert float(moved) == pytest.approx(SGD.learning_rate * limit, rel=1e-4)


def test_weight_decay_is_for_kernels_and_embeddings():
    ones = jnp.ones(3)
    params = {
        "wte": {"embedding": ones},
        "h": {"c_fc": {"kernel": ones, "bias": ones}, "ln_1": {"scale": ones}},
    }
    recipe = Recipe(epochs=1, learning_rate=0.5, weight_decay=0.2)
    transform = optimizer(recipe, 1)
    zeros = tree.zeros_like(params)
    updates, _ = transform.update(zeros, transform.init(params), params)
    for (name, update), (_, leaf) in zip(
        tree.named_leaves(updates), tree.named_leaves(params), strict=True
    ):
        decay = 0.1 if name.endswith(("kernel", "embedding")) else 0.0
        np.testing.assert_allclose(update, -decay * leaf, rtol=4 * EPS, err_msg=name)


def test_an_epoch_passes_each_example_once_in_an_order_of_its_own(data):
    assert steps_per_epoch(SGD, 10) == 3
    orders = []
    for epoch in range(2):
        batches = [batch_at(SGD, data, 3 * epoch + s) for s in range(3)]
        order = np.concatenate([b["index"] for b in batches])
        assert sorted(order[order >= 0]) == list(range(10))
        orders.append(order.tolist())
    assert orders[0] != orders[1]


def test_dropout_has_a_key_a_step_and_none_without_dropout(model, dropout_model):
    assert step_key(SGD, model, 0) is None
    keys = [
        jax.random.key_data(step_key(recipe, dropout_model, step)).tolist()
        for recipe in (SGD, change(SGD, seed=6))
        for step in (0, 1)
    ]
    assert len({tuple(key) for key in keys}) == 4
