import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import Limits, gradient_ascent

ANY = Limits(max_retain_nats=None, max_relative_step=None)
NAN = float("nan")


def still(_):
    """A retain loss that does not change."""
    return 1.0


def slope(params):
    """The gradient of ``|theta|^2``."""
    return tree.scaled(2.0, params)


def run(
    point, loss, *, layers=".", gradient=slope, retain=still, target=2.0, **options
):
    return gradient_ascent(
        point,
        gradient=gradient,
        layers=layers,
        forget_loss=loss,
        retain_loss=retain,
        target=target,
        **options,
    )


@pytest.mark.parametrize("learning_rate", [None, 0.003, 7.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_the_target_is_met_to_the_tolerance(point, square, learning_rate, tolerance):
    limits = ANY._replace(tolerance=tolerance)
    steps = {"relative_step": 0.05} if learning_rate is None else {}
    outcome = run(point, square, learning_rate=learning_rate, limits=limits, **steps)
    assert outcome.status == "reached"
    assert 2.0 <= square(outcome.params) <= 2.0 * (1 + tolerance)
    # Along its gradient |theta|^2 is climbed radially.
    for name in ("h/kernel", "wte/embedding"):
        new, old = (dict(tree.named_leaves(p))[name] for p in (outcome.params, point))
        np.testing.assert_allclose(new, old * 2**0.5, rtol=tolerance)
    assert outcome.steps == len(outcome.trials)
    assert outcome.scale is None
    assert outcome.trials[-1].relative_step == pytest.approx(
        2**0.5 - 1, rel=2 * tolerance, abs=1e-6
    )


def test_steps_have_a_constant_relative_length(point, square):
    seen = []
    outcome = run(point, square, relative_step=0.1, limits=ANY, on_step=seen.append)
    assert tuple(seen) == outcome.trials
    steps = [t.relative_step for t in outcome.trials]
    np.testing.assert_allclose(steps[:-1], 0.1 * np.arange(1, len(steps)), rtol=1e-5)
    assert steps[-1] < 0.1 * len(steps)  # the last one is shortened


def test_a_learning_rate_is_that_of_plain_ascent(point, square):
    outcome = run(point, square, learning_rate=0.01, target=100.0, max_steps=3)
    lengths = [1 + t.relative_step for t in outcome.trials]
    np.testing.assert_allclose(lengths, 1.02 ** np.arange(1, 4), rtol=1e-5)


def test_only_the_chosen_layers_move(point, square, same_bits):
    outcome = run(point, square, layers="wte", relative_step=0.05, limits=ANY)
    assert outcome.reached
    assert same_bits(outcome.params["h"], point["h"])
    # sqrt(0.8^2 + 1): the length is relative to the chosen layers.
    assert outcome.trials[-1].relative_step == pytest.approx(
        (1.64**0.5 - 0.8) / 0.8, rel=2e-3
    )


def test_at_the_target_nothing_is_done(point, square, same_bits):
    outcome = run(point, square, target=1.0)
    assert outcome.status == "already"
    assert same_bits(outcome.params, point)
    assert outcome.trials == ()


@pytest.mark.parametrize(
    ("status", "limits"),
    [
        ("retain_limit", ANY._replace(max_retain_increase=0.3)),
        ("step_limit", ANY._replace(max_relative_step=0.2)),
    ],
)
def test_a_limit_returns_the_parameters_as_they_came(
    point, square, same_bits, status, limits
):
    outcome = run(point, square, retain=square, relative_step=0.03, limits=limits)
    assert outcome.status == status
    assert same_bits(outcome.params, point)
    # All trials but the last kept the limit.
    if status == "retain_limit":
        kept = [t.retain <= 1.3 for t in outcome.trials]
    else:
        kept = [t.relative_step <= 0.2 for t in outcome.trials]
    assert kept == [True] * (len(kept) - 1) + [False]


def test_limits_at_the_target_are_judged_there(point, square):
    # One leap goes far beyond; the shortened one is within the limits.
    outcome = run(
        point,
        square,
        retain=square,
        learning_rate=50.0,
        limits=ANY._replace(max_retain_increase=1.01, max_relative_step=0.42),
    )
    assert outcome.status == "reached"
    assert len(outcome.trials) == 1


def test_too_few_steps_return_the_parameters_as_they_came(point, square, same_bits):
    outcome = run(point, square, max_steps=4)
    assert outcome.status == "trials"
    assert len(outcome.trials) == 4
    assert same_bits(outcome.params, point)


@pytest.mark.parametrize("limits", [Limits(), ANY])
@pytest.mark.parametrize("which", ["forget", "retain"])
def test_a_loss_that_is_no_number_passes_no_limit(
    point, square, same_bits, limits, which
):
    def spoiled(params):
        return NAN if square(params) > 1.02 else 1.0

    outcome = run(
        point,
        (lambda p: spoiled(p) * square(p)) if which == "forget" else square,
        retain=spoiled if which == "retain" else still,
        limits=limits,
    )
    assert outcome.status == "retain_limit"
    assert same_bits(outcome.params, point)


@pytest.mark.parametrize("value", [0.0, NAN, float("inf")])
def test_a_gradient_without_length_is_an_error(point, square, value):
    def flat(params):
        return {
            "h": {"kernel": jnp.full(2, value)},
            "wte": {"embedding": params["wte"]["embedding"]},
        }

    with pytest.raises(ValueError, match=r"norm (0.0|nan|inf) after 0 steps"):
        run(point, square, gradient=flat, layers="h/" if value == 0 else ".")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.1, "relative_step": 1e-3}, "does not go with learning_r"),
        *(({"learning_rate": x}, f"learning_rate={x}") for x in (0.0, -1.0, NAN)),
        *(({"relative_step": x}, f"relative_step={x}") for x in (0.0, -1.0, NAN)),
        ({"max_steps": 0}, "max_steps=0"),
        ({"target": NAN}, "target=nan"),
        ({"limits": Limits(max_retain_nats=-1.0)}, "max_retain_nats=-1.0"),
    ],
)
def test_what_makes_no_sense_is_an_error(point, square, options, message):
    with pytest.raises(ValueError, match=message):
        run(point, square, **options)
