import math

import pytest

from jaxunlearn.report import ComparedRun, sentence_of
from jaxunlearn.report.comparison.scores import (
    LEADING,
    best,
    compared,
    leading_scores,
    other_scores,
)
from jaxunlearn.report.comparison.tables import landmarks


def _run(name, reference=None, **scores):
    block = None if reference is None else {"reference": {"scores": reference}}
    return ComparedRun(name, scores, block or {})


def test_the_distance_is_measured_in_half_widths_of_the_references_interval():
    retrained = {"scores": {"a": 2.0}, "intervals": {"a": [1.9, 2.3]}}
    blocks = {"reference": retrained, "intervals": {"a": [0.5, 1.5]}}
    found = compared(ComparedRun("x", {"a": 1.0}, blocks), "a")
    assert found == (1.0, 0.5, 1.5, 2.0, -1.0, pytest.approx(1 / 0.2))


@pytest.mark.parametrize("ends", [None, [2.0, 2.0], [None, 3.0], [math.nan, 3.0], []])
def test_without_a_width_there_are_no_half_widths(ends):
    retrained = {"scores": {"a": 2.0}, "intervals": {} if ends is None else {"a": ends}}
    found = compared(ComparedRun("x", {"a": 1.0}, {"reference": retrained}), "a")
    assert found.difference == -1.0
    assert found.half_widths is None


def test_a_score_without_a_reference_is_not_compared():
    assert compared(_run("x", a=1.0), "a") == (1.0, None, None, None, None, None)
    assert compared(_run("x", {"a": 1.0}), "a").difference is None


@pytest.mark.parametrize(
    ("score", "values", "expected"),
    [
        ("forget_loss", (2.5, 3.2, 9.0), {"b"}),  # nearest to 3, not highest
        ("retain_loss", (0.3, 0.2, 0.25), {"b"}),
        ("model_utility", (0.3, 0.2, 0.3), {"a", "c"}),
        ("privleak", (-3.0, 2.0, 40.0), {"b"}),
        ("model_utility", (0.3, math.nan, None), set()),  # one alone is not best
        ("model_utility", (0.3, 0.3, 0.3), set()),
        ("unheard_of", (1.0, 2.0, 3.0), set()),
    ],
)
def test_best_goes_by_the_direction_of_the_score(score, values, expected):
    runs = [
        _run(name, {"forget_loss": 3.0}, **{score: value})
        for name, value in zip("abc", values, strict=True)
    ]
    assert best(runs, score) == expected


def test_nearness_is_to_each_runs_own_reference():
    runs = [
        _run("a", {"forget_loss": 1.0}, forget_loss=1.1),
        _run("b", {"forget_loss": 5.0}, forget_loss=4.0),
    ]
    assert best(runs, "forget_loss") == {"a"}


def test_every_score_is_in_one_of_the_tables(compared_runs):
    leading, others = leading_scores(compared_runs), other_scores(compared_runs)
    assert leading == [score for score in LEADING if score in leading]
    assert not set(leading) & set(others)
    known = {s for run in compared_runs for s, v in run.scores.items() if v is not None}
    assert set(leading) | set(others) == known


def test_sentences_count_what_lies_within_and_name_what_is_furthest():
    retrained = {
        "scores": {"forget_loss": 3.0, "retain_loss": 0.2, "forget_quality": 1.0},
        "intervals": {
            "forget_loss": [2.9, 3.1],
            "retain_loss": [0.18, 0.22],
            "forget_quality": [0.99, 1.0],  # is itself a comparison: not counted
        },
    }
    scores = {"forget_loss": 3.05, "retain_loss": 0.3, "forget_quality": 0.0}
    attacks = [
        {"name": "relearning", "recovers": True},
        {"name": "prefix", "recovers": False},
        {"name": "sampling"},
    ]
    run = ComparedRun("x", scores, {"reference": retrained}, attacks)
    assert sentence_of(run) == (
        "1 of 2 scores lie within the retrained model’s 95 % interval; furthest from "
        "it is retain loss, 5 half-widths away. 1 of 2 attacks get more out of it than "
        "out of the retrained model: relearning."
    )


def test_a_broken_model_is_called_broken():
    assert "Not a finite number: forget loss" in sentence_of(
        _run("x", forget_loss=math.nan)
    )


def test_landmarks_stand_once_for_each_different_model():
    runs = [
        _run("a", {"x": 1.0}),
        _run("b", {"x": 2.0}),
        _run("c", {"x": 1.0}),
        _run("d"),
    ]
    found = landmarks(runs, "reference")
    assert [(m["scores"]["x"], names) for m, names in found] == [
        (1.0, ["a", "c"]),
        (2.0, ["b"]),
    ]
