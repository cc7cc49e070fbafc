import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import (
    Limits,
    ascent_direction,
    first_epoch,
)

ANY = Limits(max_retain_nats=None, max_relative_step=None)
EPS = float(np.finfo(np.float32).eps)


def still(_):
    """A retain loss that does not change."""
    return 1.0


@pytest.fixture(scope="module")
def network():
    """Parameters of a tied two-block model, and a recorded gradient on all of them."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def params():
        return {
            "wte": {"embedding": draw(5, 3)},
            "h": {"mlp": {"kernel": draw(2, 3, 3)}},
            "ln_f": {"scale": draw(3)},
        }

    return params(), params() | {"lm_head": {"kernel": draw(5, 3)}}


@pytest.mark.parametrize("layers", ["wte", "h/1/", "ln_f", "."])
def test_only_the_chosen_layers_move(network, square, same_bits, layers):
    params, gradient = network
    mask = tree.select(params, layers, stacked=("h",))
    outcome = first_epoch(
        params,
        gradient,
        layers=layers,
        stacked=("h",),
        forget_loss=square,
        retain_loss=still,
        target=2 * square(params),
        limits=ANY,
    )
    assert outcome.reached
    direction = ascent_direction(gradient, mask)
    for (_, new), (_, old), (_, way), chosen in zip(
        tree.named_leaves(outcome.params),
        tree.named_leaves(params),
        tree.named_leaves(direction),
        jax.tree.leaves(mask),
        strict=True,
    ):
        chosen = np.broadcast_to(chosen, old.shape)
        assert same_bits(np.asarray(new)[~chosen], np.asarray(old)[~chosen])
        assert not np.asarray(way)[~chosen].any()
        np.testing.assert_allclose(
            (new - old)[chosen], outcome.scale * way[chosen], rtol=1e-4, atol=1e-5
        )


def test_the_parts_of_the_embedding_are_chosen(network):
    params, gradient = network
    mask = tree.select(params, "wte|ln_f")
    lookup, head = gradient["wte"]["embedding"], gradient["lm_head"]["kernel"]
    for part, expected in (
        ("tied", lookup + head),
        ("input", lookup),
        ("output", head),
    ):
        direction = ascent_direction(gradient, mask, part)
        np.testing.assert_array_equal(direction["wte"]["embedding"], expected)
        np.testing.assert_array_equal(
            direction["ln_f"]["scale"], gradient["ln_f"]["scale"]
        )
        assert not direction["h"]["mlp"]["kernel"].any()
    with pytest.raises(ValueError, match="part='head': one of tied, input, output"):
        ascent_direction(gradient, mask, "head")


def test_the_relative_step_is_that_of_the_chosen_layers(network, square):
    params, gradient = network
    outcome = first_epoch(
        params,
        gradient,
        layers="ln_f",
        forget_loss=square,
        retain_loss=still,
        target=1.5 * square(params),
        limits=ANY,
    )
    moved = tree.norm(tree.subtract(outcome.params, params))
    share = float(moved / jnp.linalg.norm(params["ln_f"]["scale"]))
    (last,) = [t for t in outcome.trials if t.scale == outcome.scale]
    assert last.relative_step == pytest.approx(share, rel=1e-5)


def test_scale_1_takes_an_example_out_of_a_step_of_gradient_descent():
    """Of one step, the undo is exact: what is left is the step without the example."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    y = jnp.array([0.0, 1.0, 1.0, 0.0])
    start = {"wte": {"embedding": jnp.asarray(rng.normal(size=3), jnp.float32)}}

    def losses(params):
        logits = x @ params["wte"]["embedding"]
        return jax.nn.softplus(logits) - y * logits

    def gradient(i):
        return jax.grad(lambda p: losses(p)[i])(start)

    rate, forget = 0.5, 2
    steps = [tree.scaled(rate / 4, gradient(i)) for i in range(4)]
    trained, without = start, start
    for i, step in enumerate(steps):
        trained = tree.add_scaled(trained, -1.0, step)
        if i != forget:
            without = tree.add_scaled(without, -1.0, step)
    outcome = first_epoch(
        trained,
        steps[forget] | {"lm_head": {"kernel": jnp.zeros(3)}},
        layers=".",
        forget_loss=lambda p: float(losses(p)[forget]),
        retain_loss=lambda p: float(losses(p)[:2].mean()),
        target=float(losses(start)[forget]),
        limits=ANY,
        scale=1.0,
        part="tied",
    )
    np.testing.assert_allclose(
        outcome.params["wte"]["embedding"],
        without["wte"]["embedding"],
        atol=4 * EPS,
    )
    (trial,) = outcome.trials
    assert trial.forget == pytest.approx(float(losses(without)[forget]), rel=1e-5)
    assert trial.forget > float(losses(trained)[forget])  # convex: it goes up
