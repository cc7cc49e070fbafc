import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import Limits, calibrate, explain
from jaxunlearn.unlearning.limits import highest_retain_loss

EPS = float(np.finfo(np.float32).eps)
NAN, INF = float("nan"), float("inf")
ANY = Limits(max_retain_nats=None, max_relative_step=None)
ALONG = {
    "h": {"kernel": jnp.array([0.5, 2.0])},
    "wte": {"embedding": jnp.array([[1.0]])},
}


def still(_):
    """A retain loss that does not change."""
    return 1.0


def run(point, loss, direction=ALONG, *, retain=still, target=2.0, norm=1.0, **options):
    return calibrate(
        point,
        direction,
        forget_loss=loss,
        retain_loss=retain,
        target=target,
        layer_norm=norm,
        **options,
    )


def analytic(point, target):
    """The least s with |theta + s d|^2 = target, where |theta|^2 = 1."""
    a, b = float(tree.vdot(ALONG, ALONG)), 2 * float(tree.vdot(point, ALONG))
    return (-b + math.sqrt(b * b - 4 * a * (1 - target))) / (2 * a)


@pytest.mark.parametrize("target", [1.0001, 1.5, 2.0, 30.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_the_scale_is_the_analytic_one(point, square, target, tolerance):
    limits = ANY._replace(tolerance=tolerance)
    outcome = run(point, square, target=target, limits=limits)
    assert outcome.status == "reached"
    assert outcome.reached
    assert analytic(point, target) <= outcome.scale * (1 + 1e-6)
    assert outcome.scale <= analytic(point, target * (1 + tolerance)) * (1 + 1e-6)
    moved = tree.add_scaled(point, outcome.scale, ALONG)
    np.testing.assert_array_equal(outcome.params["h"]["kernel"], moved["h"]["kernel"])
    assert target <= square(outcome.params) <= target * (1 + tolerance)


def test_it_doubles_from_a_thousandth_until_the_target_is_passed_then_halves(
    point, square
):
    outcome = run(point, square, limits=ANY, norm=4.0)
    steps = np.array([t.relative_step for t in outcome.trials])
    forget = np.array([t.forget for t in outcome.trials])
    scales = np.array([t.scale for t in outcome.trials])
    doublings = int(np.argmax(forget >= 2.0)) + 1
    expected = 1e-3 * 2.0 ** np.arange(doublings)
    np.testing.assert_allclose(steps[:doublings], expected, atol=EPS)
    length = float(tree.norm(ALONG))
    np.testing.assert_allclose(steps, scales * length / 4.0, atol=EPS)
    low, high = scales[doublings - 2], scales[doublings - 1]
    for scale, loss in zip(scales[doublings:], forget[doublings:], strict=True):
        assert scale == (low + high) / 2
        low, high = (low, scale) if loss >= 2.0 else (scale, high)
    assert outcome.scale == high


def test_the_length_of_the_direction_does_not_matter(point, square):
    long = run(point, square, tree.scaled(1024.0, ALONG), limits=ANY)
    short = run(point, square, limits=ANY)
    assert short.scale == 1024 * long.scale
    np.testing.assert_allclose(
        long.params["h"]["kernel"], short.params["h"]["kernel"], rtol=1e-6
    )
    assert [t.forget for t in long.trials] == [t.forget for t in short.trials]


def test_at_the_target_nothing_is_done(point, square, same_bits):
    for target in (1.0, 0.5, -1.0):
        outcome = run(point, square, target=target)
        assert outcome.status == "already"
        assert outcome.reached
        assert same_bits(outcome.params, point)
        assert outcome.trials == ()
        assert outcome.scale == 0


REFUSALS = {
    "retain_limit": {
        "retain": "square",
        "limits": ANY._replace(max_retain_increase=0.5),
    },
    "step_limit": {"limits": ANY._replace(max_relative_step=0.4)},
    "no_ascent": {
        "direction": tree.scaled(-0.1, ALONG),
        "limits": ANY._replace(max_relative_step=0.2),
    },
    "trials": {"limits": ANY._replace(max_trials=4)},
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_returns_the_parameters_as_they_came(
    point, square, same_bits, status
):
    options = dict(REFUSALS[status])
    if options.get("retain") == "square":
        options["retain"] = square
    outcome = run(point, square, **options)
    assert outcome.status == status
    assert not outcome.reached
    assert outcome.scale == 0
    assert same_bits(outcome.params, point)
    assert outcome.trials
    sentence = explain(outcome, 2.0, 1.0)
    assert ("Not finished" if status == "trials" else "Refused") in sentence
    assert "target 2.000" in sentence


def test_the_limit_is_judged_at_the_target_not_at_the_doubling_beyond_it(point, square):
    # At the target the retain loss has risen by 100 %, two doublings on by far more.
    refused = run(
        point, square, retain=square, limits=ANY._replace(max_retain_increase=0.99)
    )
    assert refused.status == "retain_limit"
    reached = run(
        point, square, retain=square, limits=ANY._replace(max_retain_increase=1.01)
    )
    assert reached.status == "reached"
    assert max(t.retain for t in reached.trials) > 2.01
    need = analytic(point, 2.0) * float(tree.norm(ALONG))
    assert (
        run(point, square, limits=ANY._replace(max_relative_step=need * 0.99)).status
        == "step_limit"
    )
    assert (
        run(point, square, limits=ANY._replace(max_relative_step=need * 1.01)).status
        == "reached"
    )


def test_given_a_scale_there_is_no_search_but_the_limits_hold(point, square, same_bits):
    far = run(point, square, scale=3.0, limits=ANY)
    assert (far.status, far.scale, len(far.trials)) == ("reached", 3.0, 1)
    near = run(point, square, scale=1e-3)
    assert (near.status, near.reached) == ("given_scale", True)
    assert square(near.params) > square(point)
    assert "The given scale was applied" in explain(near, 2.0, 1.0)
    refused = run(point, square, scale=3.0)
    assert refused.status == "step_limit"
    assert not refused.reached
    assert same_bits(refused.params, point)
    refused = run(
        point,
        square,
        retain=square,
        scale=0.5,
        limits=ANY._replace(max_retain_increase=0.1),
    )
    assert refused.status == "retain_limit"
    assert same_bits(refused.params, point)


@pytest.mark.parametrize("limits", [Limits(), ANY])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("which", ["forget", "retain"])
@pytest.mark.parametrize("scale", [None, 0.2])
def test_a_loss_that_is_no_number_passes_no_limit(
    point, square, same_bits, limits, bad, which, scale
):
    def spoiled(loss):
        return lambda params: bad if square(params) > 1.001 else loss(params)

    outcome = run(
        point,
        spoiled(square) if which == "forget" else square,
        retain=spoiled(still) if which == "retain" else still,
        limits=limits,
        scale=scale,
    )
    assert outcome.status == "retain_limit"
    assert same_bits(outcome.params, point)


def test_a_retain_loss_that_was_never_a_number_passes_no_limit(
    point, square, same_bits
):
    calls = iter([NAN])
    outcome = run(point, square, retain=lambda _: next(calls, 1.0))
    assert outcome.status == "retain_limit"
    assert same_bits(outcome.params, point)


@pytest.mark.parametrize("value", [0.0, NAN, INF])
def test_a_direction_without_length_is_an_error(point, square, value):
    direction = {**ALONG, "h": {"kernel": jnp.array([value, value])}}
    if value == 0:
        direction = tree.zeros_like(ALONG)
    with pytest.raises(ValueError, match=r"direction has norm .* choose other layers="):
        run(point, square, direction)


def test_numbers_that_are_none_are_errors(point, square):
    with pytest.raises(ValueError, match="target=nan is not a number"):
        run(point, square, target=NAN)
    for scale in (0.0, -1.0, NAN, INF):
        with pytest.raises(ValueError, match=f"scale={scale}: must be .* above 0"):
            run(point, square, scale=scale)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (n, v)
            for n in ("max_retain_increase", "max_retain_nats")
            for v in (-1, NAN)
        ),
        ("max_relative_step", -0.1),
        ("max_relative_step", NAN),
        ("tolerance", -1e-3),
        ("tolerance", NAN),
        ("max_trials", 0),
    ],
)
def test_limits_that_mean_nothing_are_errors(point, square, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be at least"):
        run(point, square, limits=Limits()._replace(**{name: value}))


@pytest.mark.parametrize("loss", [0.01, 0.07, 1.0, 12.0])
def test_the_default_price_is_the_same_factor_of_perplexity_at_every_loss(
    point, square, loss
):
    def rising(by):
        return lambda params: loss + by * (square(params) - 1)

    # At the target (|theta|^2 is 2) the retain loss has risen by `by` nats.
    options = {"limits": Limits(max_relative_step=None, tolerance=1e-6)}
    assert run(point, square, retain=rising(0.0199), **options).status == "reached"
    far = run(point, square, retain=rising(0.0201), **options)
    assert far.status == "retain_limit"
    assert "+0.02" in explain(far, 2.0, loss)
    assert math.exp(0.02) == pytest.approx(1.02, abs=1e-3)


def test_both_limits_hold_where_both_are_given():
    both = Limits(max_retain_increase=0.5, max_retain_nats=0.1)
    assert highest_retain_loss(0.07, both) == pytest.approx(0.105)
    assert highest_retain_loss(3.0, both) == pytest.approx(3.1)
    assert highest_retain_loss(3.0, ANY) == INF


def test_what_the_direction_does_not_touch_stays_bit_equal(point, square, same_bits):
    direction = {**ALONG, "wte": {"embedding": jnp.zeros((1, 1))}}
    outcome = run(point, square, direction, limits=ANY)
    assert outcome.reached
    assert same_bits(outcome.params["wte"], point["wte"])
    assert not same_bits(outcome.params["h"], point["h"])


def test_reached_is_said_in_one_sentence(point, square):
    assert explain(run(point, square, limits=ANY), 2.0, 1.0).endswith("at its target.")
    assert "No step" not in explain(run(point, square, target=0.5), 0.5, 1.0)


def test_the_parameters_keep_their_dtype(point, square):
    half = tree.cast(point, jnp.bfloat16)
    outcome = run(half, square, limits=ANY)
    assert outcome.reached
    assert outcome.params["h"]["kernel"].dtype == jnp.bfloat16
