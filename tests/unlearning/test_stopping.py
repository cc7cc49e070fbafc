import functools
import itertools

import numpy as np
import pytest

from jaxunlearn.unlearning import (
    PathPoint,
    Trial,
    all_of,
    any_of,
    exposure_limit,
    exposures,
    false_stop,
    first_stop,
    held,
    history_of,
    membership_at_chance,
    no_progress,
    retain_limit,
    score_below,
    target_reached,
)

RULES = {
    "target": target_reached(1.0),
    "held": held(target_reached(1.0), 2),
    "score": score_below(0.1, "dot"),
    "membership": membership_at_chance(),
    "retain": retain_limit(0.1),
    "exposures": exposure_limit(1),
    "progress": no_progress(2),
}
NAN = float("nan")


def path(forgets, **others):
    """A path of forget losses; other fields as lists of the same length."""
    return [
        PathPoint(i, forget, **{"retain": 1.0, **{k: v[i] for k, v in others.items()}})
        for i, forget in enumerate(forgets)
    ]


def test_nothing_measured_stops_nothing():
    for rule in (*RULES.values(), any_of(*RULES.values()), all_of(*RULES.values())):
        assert rule([]) is None
        assert first_stop([], rule) is None


def test_a_target_counts_from_where_it_is():
    history = path([0.0, 0.999, 1.0, 0.5])
    assert first_stop(history, RULES["target"]).position == 2
    assert RULES["target"](history) is None  # the last point alone decides
    assert RULES["target"](path([NAN])) is None


@pytest.mark.parametrize("checks", [1, 2, 3])
def test_held_is_so_many_hits_in_a_row(checks):
    for hits in itertools.product([0.0, 1.0], repeat=6):
        stop = first_stop(path(hits), held(target_reached(1.0), checks))
        text = "".join(str(int(hit)) for hit in hits)
        found = text.find("1" * checks)
        assert (stop is None) == (found < 0)
        if stop is not None:
            assert stop.position == found + checks - 1


def test_a_score_falls_to_a_share_of_its_start():
    scores = [{"dot": x} for x in (4.0, 0.41, 0.4, -1.0)]
    stop = first_stop(path([0] * 4, scores=scores), RULES["score"])
    assert stop.position == 2
    assert "10.0%" in stop.reason
    with pytest.raises(ValueError, match="'dot' is 0.0 at the start"):
        RULES["score"](path([0], scores=[{"dot": 0.0}]))
    with pytest.raises(ValueError, match="'dot' was not measured at step 0"):
        RULES["score"](path([0]))


@pytest.mark.parametrize(
    ("area", "stops", "past"),
    [(0.6, False, 0), (0.52, True, 0), (0.48, True, 0), (0.3, True, 1)],
)
def test_membership_at_chance_and_past_it(area, stops, past):
    reason = RULES["membership"](path([0], membership=[area]))
    assert (reason is not None) == stops
    assert ("past chance" in (reason or "")) == past
    with pytest.raises(ValueError, match="membership was not measured"):
        RULES["membership"](path([0]))


def test_the_retain_limit_is_relative_to_the_start():
    history = path([0] * 4, retain=[2.0, 2.19, 1.0, 2.21])
    assert first_stop(history, RULES["retain"]).position == 3
    for broken in ({"retain": [1.0, NAN]}, {"retain": [1.0, float("inf")]}):
        assert RULES["retain"](path([0, 1], **broken)) is not None
    assert RULES["retain"](path([0, NAN])) is not None


def test_no_progress_looks_at_the_best_so_far():
    assert first_stop(path([0, 1, 2, 3, 4]), no_progress(2)) is None
    # After 2 at position 2, neither 1.5 nor 2 is more.
    assert first_stop(path([0, 1, 2, 1.5, 2.0, 9]), no_progress(2)).position == 4
    assert (
        first_stop(path([0, 1, 2, 2.1, 2.2]), no_progress(1, least=0.2)).position == 3
    )


def test_exposures_are_counted_by_example():
    history = path([0] * 5, example=[None, "a", "b", "a", "a"])
    assert exposures(history) == {"a": 3, "b": 1}
    assert exposures([]) == {}
    stop = first_stop(history, RULES["exposures"])
    assert stop.position == 3
    assert "a (2 times)" in stop.reason


def test_any_is_the_first_and_all_the_last():
    draw = np.random.default_rng(0)
    for _ in range(40):
        history = path(draw.uniform(0, 2, 6), retain=draw.uniform(0.8, 1.2, 6))
        one, two = target_reached(1.2), retain_limit(0.05)
        for n in range(1, 7):
            fired = [r(history[:n]) for r in (one, two)]
            assert any_of(one, two)(history[:n]) == (fired[0] or fired[1])
            both = "; ".join(filter(None, fired)) if all(fired) else None
            assert all_of(one, two)(history[:n]) == both


def test_a_false_stop_is_one_while_the_truth_says_known():
    # The loss jumps over the target in an optimum that still knows, falls, and rises.
    history = path([0, 1.5, 0.7, 1.2, 1.3, 1.4])
    known = [1.0, 0.9, 0.9, 0.4, 0.1, 0.1]
    early = false_stop(history, target_reached(1.0), known, threshold=0.2)
    assert early[0] == 1
    assert early[2:] == (0.9, 4)
    assert "1.5" in early.reason
    assert false_stop(history, RULES["held"], known, threshold=0.2) is None
    assert false_stop(history, target_reached(9.0), known, threshold=0.2) is None
    never = [1.0, 0.9, 0.1, 0.1, 0.1, 0.9]
    found = false_stop(history, target_reached(1.0), never, threshold=0.2)
    assert found.forgotten_from is None
    # Steps to relearn: fewer is known.
    steps = [1, 2, 2, 8, 10, 10]
    asked = functools.partial(false_stop, history, target_reached(1.0), steps)
    assert asked(threshold=9, higher_is_known=False)[2:] == (2.0, 4)
    assert asked(threshold=2, higher_is_known=False) is None
    assert false_stop([], target_reached(1.0), [], threshold=1) is None
    with pytest.raises(ValueError, match="2 values for 6 points"):
        false_stop(history, target_reached(1.0), [1, 2], threshold=0)
    with pytest.raises(ValueError, match="truth holds NaN"):
        false_stop(history, target_reached(1.0), [NAN] * 6, threshold=0)
    with pytest.raises(ValueError, match="threshold=nan"):
        false_stop(history, target_reached(1.0), known, threshold=NAN)


def test_trials_become_a_path():
    trials = [Trial(0.5, 1.0, 2.0, 0.1), Trial(0.7, 1.5, 2.1, 0.2)]
    history = history_of(trials, forget=0.3, retain=1.9)
    assert [p.forget for p in history] == [0.3, 1.0, 1.5]
    assert [p.step for p in history] == [0, 1, 2]
    assert history[2].relative_step == 0.2
    assert first_stop(history, target_reached(1.2)).position == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: target_reached(NAN), "target=nan"),
        (lambda: held(target_reached(1), 0), "checks=0"),
        (lambda: score_below(1.1, "dot"), "share=1.1"),
        (lambda: membership_at_chance(0.5), "tolerance=0.5"),
        (lambda: retain_limit(-0.1), "max_increase=-0.1"),
        (lambda: exposure_limit(0), "most=0"),
        (lambda: no_progress(0), "checks=0"),
        (lambda: no_progress(1, least=-1), "least=-1"),
        (any_of, "number of rules=0"),
        (all_of, "number of rules=0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
