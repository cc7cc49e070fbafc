"""Iterative unlearning on parameters that are the losses of their examples."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import (
    Limits,
    calibrate,
    exposures,
    iterative_first_epoch,
    iterative_unlearning,
    recorded_then_fresh,
    retain_limit,
    target_reached,
)

ANY = Limits(max_retain_nats=None, max_relative_step=None)
START = {"wte": jnp.array([0.5, 0.2, 0.4, -0.0])}


def losses(params):
    return np.asarray(params["wte"], np.float64)[:3]


def unit(i):
    return {"wte": jnp.eye(4)[i]}


def run(**options):
    """The example with the lowest loss goes up its own axis by 0.5 a round."""
    given = {
        "examples": [0, 1, 2],
        "rank": lambda params: -losses(params),
        "direction": lambda params, i, used: unit(i),
        "measure": lambda params: {"forget": losses(params).mean(), "retain": 1.0},
        "stop": target_reached(1.0),
        "step_scale": 0.5,
        "layer_norm": 2.0,
        "max_rounds": 9,
    }
    if "calibrated" in options:
        given["step_scale"] = None
    return iterative_unlearning(START, **(given | options))


def test_each_round_takes_what_the_new_ranking_puts_first():
    path = run(max_rounds=4, stop=target_reached(2.0))
    assert [p.example for p in path.history] == [None, 1, 2, 0, 1]
    values, expected = np.array([0.5, 0.2, 0.4]), []
    for _ in range(4):  # the slow way
        expected.append(values.copy())
        values[values.argmin()] += 0.5
    np.testing.assert_allclose(path.rankings, -np.array([*expected, values]), rtol=1e-6)
    np.testing.assert_allclose(losses(path.params), values, rtol=1e-6)
    assert path.reason == "rounds"
    assert exposures(path.history) == {0: 1, 1: 2, 2: 1}
    moved = float(tree.norm(tree.subtract(path.params, START))) / 2
    assert path.history[-1].relative_step == pytest.approx(moved)
    assert [p.scores["rank"] for p in path.history] == list(path.rankings.max(axis=1))


def test_the_stopping_rule_ends_it_where_it_is():
    path = run()
    assert path.reason.startswith("target")
    assert not path.refused
    assert path.history[-1].forget >= 1.0
    assert all(p.forget < 1.0 for p in path.history[:-1])
    np.testing.assert_allclose(losses(path.params).mean(), path.history[-1].forget)


def test_a_refused_round_is_undone(same_bits):
    def measure(params):
        total = losses(params).sum()
        return {"forget": total / 3, "retain": 1.0 + total}

    short = run(measure=measure, max_rounds=1)
    path = run(measure=measure, refuse=retain_limit(0.4))
    assert path.refused
    assert path.reason.startswith("retain")
    assert len(path.history) == len(path.rankings) == 3
    assert same_bits(path.params, short.params)


def test_no_round_and_scale_0_leave_every_bit(same_bits):
    everywhere = {"wte": jnp.ones(4)}  # 0 times it would turn -0.0 into 0.0
    still = run(step_scale=0.0, direction=lambda *_: everywhere, max_rounds=3)
    assert len(still.history) == 4
    assert still.history[-1].relative_step == 0
    assert {p.forget for p in still.history} == {still.history[0].forget}
    for path in (still, run(max_rounds=0), run(stop=lambda history: "at once")):
        assert same_bits(path.params, START)
    assert run(max_rounds=0).reason == "rounds"


def test_calibrated_rounds_are_those_of_iterative_first_epoch(same_bits):
    asked = {
        "retain_loss": lambda params: 1.0,
        "target": 1.0,
        "layer_norm": 2.0,
        "limits": ANY,
    }

    def step(params, direction, i):
        own = functools.partial(lambda i, p: float(losses(p)[i]), i)
        return calibrate(params, direction, forget_loss=own, **asked)

    path = run(calibrated=step, stop=target_reached(1.0))
    outcome = iterative_first_epoch(
        START,
        recorded_direction=unit,
        fresh_direction=lambda params, i: unit(i),
        examples=[0, 1, 2],
        example_losses=losses,
        **asked,
    )
    assert same_bits(path.params, outcome.params)
    assert [p.forget for p in path.history[1:]] == [t.forget for t in outcome.trials]
    down = run(
        calibrated=lambda *given: step(*given)._replace(status="no_ascent"),
    )
    assert down.reason == "calibration: no_ascent"
    assert same_bits(down.params, START)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_recorded_directions_are_used_so_often(allowed):
    seen = []

    def recorded(i):
        seen.append("recorded")
        return unit(i)

    def fresh(params, i):
        assert losses(params)[i] == pytest.approx(0.2 + 0.5 * len(seen))
        seen.append("fresh")
        return unit(i)

    direction = recorded_then_fresh(recorded, fresh, max_exposures=allowed)
    run(
        examples=[1],
        rank=lambda params: -losses(params)[1:2],
        direction=direction,
        max_rounds=3,
        stop=lambda history: None,
    )
    assert seen == ["recorded"] * allowed + ["fresh"] * (3 - allowed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": []}, "examples is empty"),
        ({"step_scale": None}, "exactly one"),
        ({"calibrated": print, "step_scale": 1.0}, "exactly one"),
        ({"step_scale": float("inf")}, "step_scale=inf"),
        ({"max_rounds": -1}, "max_rounds=-1"),
        ({"layer_norm": 0.0}, "layer_norm=0.0"),
        ({"rank": lambda p: np.zeros(2)}, r"rank returned \[0. 0.\]"),
        ({"rank": lambda p: np.full(3, np.nan)}, r"rank returned \[nan"),
        ({"measure": lambda p: {"forget": 1.0}, "stop": len}, "no retain"),
        (
            {"direction": lambda p, i, n: {"wte": jnp.full(4, jnp.nan)}},
            "direction of example 1 holds NaN",
        ),
    ],
)
def test_misuse_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_max_exposures_is_no_negative():
    with pytest.raises(ValueError, match="max_exposures=-1"):
        recorded_then_fresh(unit, lambda p, i: unit(i), max_exposures=-1)
