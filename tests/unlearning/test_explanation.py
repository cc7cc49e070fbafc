"""A refusal names the limit, how far one could go, and the argument that lifts it."""

import jax.numpy as jnp
import pytest

from jaxunlearn.unlearning import Limits, Outcome, Status, Trial, calibrate, explain
from jaxunlearn.unlearning.explanation import judged_trial

NAN = float("nan")
NEAR = Trial(1.0, 1.5, 3.01, 0.02)
NEARER = Trial(2.0, 1.75, 3.015, 0.03)
FAR = Trial(4.0, 2.01, 3.3, 0.08)


def refused(status, trials, **limits):
    """What is said of a refusal on the way from retain loss 3 to forget loss 2."""
    outcome = Outcome({}, status, 0, tuple(trials), limits=Limits(**limits))
    return explain(outcome, 2.0, 3.0)


@pytest.mark.parametrize(
    ("status", "limits", "name", "value"),
    [
        ("retain_limit", {}, "max_retain_nats", "0.02 nats a token"),
        (
            "retain_limit",
            {"max_retain_nats": None, "max_retain_increase": 0.05},
            "max_retain_increase",
            "5 % of the retain loss",
        ),
        (
            "step_limit",
            {"max_retain_nats": None, "max_relative_step": 0.04},
            "max_relative_step",
            "0.04 of the layers",
        ),
    ],
)
def test_a_refusal_tells_the_limit_and_the_furthest_within(status, limits, name, value):
    told = refused(Status(status), [NEAR, NEARER, FAR], **limits)
    before, after = told.split("Within the limits one could go so far:")
    assert f"{name} ({value}) is passed: at forget loss 2.010 (target 2.000)" in before
    assert "+0.3000 nats (+10.00 %) and the layers by 8.0 %" in before
    assert "at forget loss 1.750 (target 2.000)" in after
    assert "+0.0150 nats (+0.50 %) and the layers by 3.0 %" in after
    assert f"Allow more with {name}, lower the target, or" in after
    others = {"max_retain_nats", "max_retain_increase", "max_relative_step"} - {name}
    assert not any(other in told for other in others)


def test_where_nothing_keeps_within_this_is_said():
    told = refused(Status.RETAIN_LIMIT, [FAR])
    assert "Nothing that was tried keeps within the limits." in told


def test_a_way_may_end_before_the_step_that_would_pass():
    told = refused(Status.RETAIN_LIMIT, [NEAR, NEARER])
    assert "a further step would pass max_retain_nats (0.02 nats a token)" in told
    assert "so far: at forget loss 1.750" in told


def test_a_loss_that_is_no_number_is_no_limit_s_fault():
    told = refused(Status.RETAIN_LIMIT, [NEAR, Trial(8.0, NAN, NAN, 0.2)])
    assert "a loss is no finite number any more" in told
    assert "so far: at forget loss 1.500" in told
    assert "Allow more" not in told


def test_the_search_itself_tells_its_limits():
    params, away = {"w": jnp.array([1.0])}, {"w": jnp.array([1.0])}
    outcome = calibrate(
        params,
        away,
        forget_loss=lambda p: float(p["w"][0]),
        retain_loss=lambda p: 2.0 + 0.1 * (float(p["w"][0]) - 1.0),
        target=3.0,
        layer_norm=1.0,
    )
    told = explain(outcome, 3.0, 2.0)
    assert outcome.status == Status.RETAIN_LIMIT
    assert "max_retain_nats (0.02 nats a token) is passed" in told
    within = [t for t in outcome.trials if t.retain <= 2.02]
    furthest = max(within, key=lambda t: t.forget)
    assert f"so far: at forget loss {furthest.forget:.3f}" in told
    assert judged_trial(outcome, 3.0).retain > 2.02


def test_what_falls_short_of_its_target_is_not_said_to_have_none():
    short = Outcome({}, Status.SHORT, 0, (Trial(1.0, 0.5, 3.1, 0.0),))
    told = explain(short, 2.0, 3.0)
    assert short.reached
    assert "short of the target: at forget loss 0.500 (target 2.000)" in told
    assert "No target" not in told
    applied = short._replace(status=Status.APPLIED)
    assert "No target was set; at forget loss 0.500 retain" in explain(
        applied, None, 3.0
    )


def test_what_has_no_length_is_told_without():
    replayed = Outcome({}, Status.APPLIED, 1, (Trial(1.0, 0.5, 3.1, NAN),))
    assert "nan" not in explain(replayed, None, 3.0)
