"""What is said of an unlearned 16-bit model is said of the weights that are stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import (
    Limits,
    calibrate,
    changed_leaves,
    explain,
    gradient_ascent,
    iterative_unlearning,
)

ANY = Limits(max_retain_increase=None, max_relative_step=None, max_retain_nats=None)
SIXTEEN = [jnp.bfloat16, jnp.float16]


@pytest.fixture(scope="module")
def weights():
    """A thousand weights around 1, of norm 32."""
    rng = np.random.default_rng(0)
    return {"wte": {"embedding": jnp.asarray(1 + 0.1 * rng.normal(size=(40, 25)))}}


def mean_square(params):
    return float(np.mean(np.asarray(params["wte"]["embedding"], np.float64) ** 2))


def settings(params):
    return {
        "forget_loss": mean_square,
        "retain_loss": lambda _: 1.0,
        "layer_norm": float(tree.norm(params)),
        "limits": ANY,
    }


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("rise", [1e-3, 0.5])
def test_the_target_is_met_by_the_stored_weights(weights, dtype, rise):
    low = tree.cast(weights, dtype)
    target = mean_square(low) + rise
    outcome = calibrate(low, weights, target=target, **settings(low))
    assert outcome.status == "reached"
    last = next(t for t in outcome.trials if t.scale == outcome.scale)
    assert last.forget == mean_square(outcome.params)
    assert target <= last.forget <= target * 1.001
    moved = tree.norm(tree.subtract(outcome.params, low)) / tree.norm(low)
    assert last.relative_step == pytest.approx(float(moved), rel=1e-6)
    (changed,) = changed_leaves(low, outcome.params)
    assert changed["relative_change"] == pytest.approx(float(moved), rel=1e-5)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_a_step_that_is_lost_in_rounding_is_not_said_to_be_done(weights, dtype):
    low = tree.cast(weights, dtype)
    outcome = calibrate(low, weights, target=9.0, scale=1e-12, **settings(low))
    assert (outcome.status, outcome.reached) == ("no_change", False)
    assert outcome.params is low
    assert "no weight changes" in explain(outcome, 9.0, 1.0)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_steps_of_ascent_add_up_that_are_lost_one_by_one(weights, dtype):
    """Each is a hundredth of what bfloat16 holds beside 1."""
    low = tree.cast(weights, dtype)
    options = settings(low)
    del options["layer_norm"]
    outcome = gradient_ascent(
        low,
        gradient=lambda p: tree.scaled(2.0, p),
        target=mean_square(low) * 1.002,
        relative_step=4e-5,
        **options,
    )
    assert outcome.status == "reached"
    assert 20 <= len(outcome.trials) <= 30
    assert outcome.trials[-1].forget == mean_square(outcome.params)
    assert outcome.params["wte"]["embedding"].dtype == dtype


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_steps_of_a_path_add_up_that_are_lost_one_by_one(weights, dtype):
    low = tree.cast(weights, dtype)
    path = iterative_unlearning(
        low,
        examples=["all"],
        rank=lambda _: np.zeros(1),
        direction=lambda *_: weights,
        measure=lambda p: {"forget": mean_square(p), "retain": 1.0},
        stop=lambda _: None,
        step_scale=4e-5,
        layer_norm=float(tree.norm(low)),
        max_rounds=30,
    )
    expected = mean_square(low) * (1 + 30 * 4e-5) ** 2
    assert path.history[-1].forget == mean_square(path.params)
    # Four times what a thousand roundings leave of their noise.
    assert path.history[-1].forget == pytest.approx(expected, rel=5e-4)


def test_untouched_layers_keep_their_bits(same_bits):
    rng = np.random.default_rng(1)
    low = tree.cast(
        {n: {"kernel": jnp.asarray(rng.normal(size=50))} for n in "ab"}, jnp.bfloat16
    )
    direction = {"a": low["a"], "b": jax.tree.map(jnp.zeros_like, low["b"])}
    outcome = calibrate(
        low,
        direction,
        target=1e3,
        scale=0.01,
        forget_loss=lambda p: 0.0,
        retain_loss=lambda _: 1.0,
        layer_norm=1.0,
        limits=ANY,
    )
    assert same_bits(outcome.params["b"], low["b"])
    assert not same_bits(outcome.params["a"], low["a"])
