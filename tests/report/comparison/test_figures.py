import dataclasses
import io
import math

import numpy as np
import pytest

from jaxunlearn.report import ComparedRun
from jaxunlearn.report.comparison.attacks import (
    attack_figure,
    attack_names,
    attack_verdicts,
    verdict_sentence,
)
from jaxunlearn.report.comparison.figures import (
    curve_figure,
    curve_names,
    layer_figure,
)
from jaxunlearn.report.comparison.membership import (
    membership_figure,
    membership_line,
    membership_names,
)
from jaxunlearn.report.comparison.panel_grid import look, plain, swatch
from jaxunlearn.report.comparison.plane import front, plane_figure
from jaxunlearn.report.comparison.run import Curve


def _texts(figure):
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def _lines(axes):
    """The points of each line, as lists of (x, y)."""
    return [list(zip(*line.get_data(), strict=True)) for line in axes.lines]


def _drawn(figure):
    """Draws the figure, so that what cannot be drawn fails."""
    figure.savefig(io.BytesIO(), format="svg")
    return figure


def _run(name, forget, retain, goal=None):
    block = {"reference": {"scores": {"forget_loss": goal, "retain_loss": 0.2}}}
    scores = {"forget_loss": forget, "retain_loss": retain}
    return ComparedRun(name, scores, block if goal is not None else {})


def test_every_figure_can_be_drawn(compared_runs):
    for runs in (compared_runs, compared_runs[:1]):
        _drawn(plane_figure(runs))
        _drawn(layer_figure(runs))
        for name in curve_names(runs):
            _drawn(curve_figure(runs, name))
        for name in membership_names(runs):
            _drawn(membership_figure(runs, name))
        for name in attack_names(runs):
            _drawn(attack_figure(runs, name))


def test_looks_differ_for_sixty_runs():
    looks = [look(i) for i in range(60)]
    assert len({(one.colour, one.marker, str(one.dash)) for one in looks}) == 60
    assert len({swatch(one) for one in looks}) == 60
    assert look(60) == look(0)


def test_no_name_is_read_as_mathematics_or_hidden():
    figure = _drawn(plane_figure([_run("$x_1$ <&>", 3.0, 0.2), _run("_y", 2.0, 0.3)]))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == [r"\$x_1\$ <&>", " _y"]
    assert len(plain("a" * 50 + "b" * 50)) <= 26


def test_the_front_prefers_the_forget_loss_of_the_retrained_model():
    runs = [
        _run("beyond", 9.0, 0.20, 3.0),
        _run("near", 3.1, 0.25, 3.0),
        _run("beaten", 3.5, 0.30, 3.0),
        _run("short", 1.0, 0.19, 3.0),
    ]
    assert [runs[i].name for i in front(runs)] == ["short", "near"]
    bare = [_run(run.name, *run.scores.values()) for run in runs]
    assert [bare[i].name for i in front(bare)] == ["short", "beyond"]


def test_runs_without_a_retrained_model_are_not_ranked_with_those_that_have_one():
    runs = [_run("a", 2.0, 0.3, 3.0), _run("b", 3.0, 0.1)]
    assert front(runs) == [0]


def test_the_plane_holds_runs_landmarks_and_the_front(compared_runs):
    figure = plane_figure(compared_runs)
    axes = figure.axes[0]
    places = {points[0] for points in _lines(axes) if len(points) == 1}
    for run in compared_runs:
        assert (run.scores["retain_loss"], run.scores["forget_loss"]) in places
    assert (0.212, 3.05) in places
    assert (0.21, 0.15) in places
    (line,) = (line for line in axes.lines if line.get_gid() == "front")
    on_front = [compared_runs[i].scores for i in front(compared_runs)]
    assert [compared_runs[i].name for i in front(compared_runs)] == [
        "NPO <β=0.1> $x_1$",
        "first-epoch",
    ]
    assert list(line.get_ydata()) == [scores["forget_loss"] for scores in on_front]
    words = _texts(figure)
    assert words.count("retrained") == words.count("original") == 1


def test_intervals_are_bars(compared_runs):
    axes = plane_figure(compared_runs[:1]).axes[0]
    run = compared_runs[0]
    ends = [c.get_segments()[0] for c in axes.collections]
    for score, side in (("retain_loss", 0), ("forget_loss", 1)):
        bars = [bar[:, side] for bar in ends if np.ptp(bar[:, side]) > 0]
        expected = run.block("intervals")[score]
        assert any(np.allclose(bar, expected) for bar in bars)


def test_an_interval_beside_its_value_is_drawn(compared_runs):
    run = compared_runs[0]
    blocks = {**run.blocks, "intervals": {"forget_loss": [9.0, 9.5]}}
    _drawn(plane_figure([dataclasses.replace(run, blocks=blocks)]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_loss_that_is_not_finite_leaves_its_run_out(bad):
    runs = [_run("broken", bad, 0.3, 3.0), _run("sound", 2.0, 0.2, 3.0)]
    assert "broken" not in _texts(_drawn(plane_figure(runs)))
    assert plane_figure(runs[:1]) is None


def test_a_run_that_is_far_off_does_not_squeeze_the_others():
    near = [_run(str(i), 3.0 + i / 10, 0.2, 3.0) for i in range(3)]
    axes = plane_figure(near).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    axes = _drawn(plane_figure([*near, _run("far", 3.0, 40.0, 3.0)])).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_curves_are_the_rows_and_the_goal(compared_runs):
    figure = curve_figure(compared_runs, "losses")
    assert len(figure.axes) == 2
    for axes, loss in zip(figure.axes, ("forget", "retain"), strict=True):
        lines = _lines(axes)
        for run in compared_runs[:3]:
            rows = run.curves["losses"].rows
            assert [(row["step"], row[loss]) for row in rows] in lines
        goal = {"forget": 3.05, "retain": 0.212}[loss]
        assert [(0, goal), (1, goal)] in lines
        assert len(lines) == 4  # the three runs have the same goal


def test_a_curve_without_a_finite_value_says_so():
    rows = [{"step": 0, "forget": math.nan}, {"step": 1, "forget": math.inf}]
    run = ComparedRun("x", curves={"losses": Curve("step", "step", rows)})
    assert "no finite value" in _texts(_drawn(curve_figure([run], "losses")))


def test_layers_are_drawn_at_their_names(compared_runs):
    figure = layer_figure(compared_runs)
    assert len(figure.axes) == 3
    rows = compared_runs[0].block("layers")
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == [row["layer"] for row in rows]
    for axes, key in zip(
        figure.axes, ("parameter_distance", "cka_before", "cka_retrained"), strict=True
    ):
        assert _lines(axes)[0] == [(i, row[key]) for i, row in enumerate(rows)]


def test_a_layer_without_a_number_is_passed_over():
    rows = [
        {"layer": "wte", "parameter_distance": None},
        {"layer": "h/0", "parameter_distance": 0.5},
    ]
    run = ComparedRun("x", blocks={"layers": rows})
    figure = _drawn(layer_figure([run]))
    assert [_lines(axes) for axes in figure.axes] == [[[(1, 0.5)]]]
    assert layer_figure([ComparedRun("x", blocks={"layers": rows[:1]})]) is None


def test_many_layers_do_not_crowd_the_axis():
    rows = [{"layer": f"h/{i}", "cka_before": 1.0} for i in range(48)]
    figure = _drawn(layer_figure([ComparedRun("x", blocks={"layers": rows})]))
    assert len(figure.axes[0].get_xticks()) <= 14


def test_histograms_are_shares_of_all_examples(compared_runs):
    figure = membership_figure(compared_runs, "loss")
    assert len(figure.axes) == 3
    limits = set()
    for axes in figure.axes:
        limits.add((axes.get_xlim(), axes.get_ylim()))
        heights = [patch.get_data().values for patch in axes.patches]
        assert len(heights) == 2
        for values in heights:
            assert np.isclose(values.sum(), 100)
            assert values.max() <= axes.get_ylim()[1]
    assert len(limits) == 1


@pytest.mark.parametrize("values", [[1.0, 1.0], [None, 2.0], [math.inf, 1.0], [3.0]])
def test_odd_membership_scores_can_be_drawn(values):
    block = {"membership": {"loss": {"forget": values, "holdout": [1.0]}}}
    _drawn(membership_figure([ComparedRun("x", blocks=block)], "loss"))


def test_no_finite_membership_score_is_no_figure():
    block = {"membership": {"loss": {"forget": [None], "holdout": []}}}
    run = ComparedRun("x", blocks=block)
    assert membership_figure([run], "loss") is None
    assert membership_line(run, "loss") == "no AUC"
    assert membership_line(run, "zlib") is None


def test_attacks_are_drawn_beside_the_retrained_and_the_original(compared_runs):
    figure = attack_figure(compared_runs, "relearning")
    assert len(figure.axes) == 3
    for axes, run in zip(figure.axes, compared_runs, strict=False):
        curves = run.attacks[0]["curves"]
        expected = [
            [(p["x"], p["value"]) for p in points] for points in curves.values()
        ]
        assert sorted(_lines(axes)) == sorted(expected)
        assert len(axes.collections) == 3  # a band each


def test_strengths_that_are_names_stand_side_by_side():
    points = [{"x": x, "value": i, "low": 0, "high": 3} for i, x in enumerate("ab")]
    mixed = [{"x": "b", "value": 1.0}, {"x": 8, "value": math.inf}]
    curves = {"model": points, "reference": mixed}
    attack = {"name": "a", "x": "prefix", "metric": "m", "curves": curves}
    axes = _drawn(attack_figure([ComparedRun("x", attacks=[attack])], "a")).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "8"]
    assert sorted(_lines(axes)) == [[(0, 0), (1, 1)], [(1, 1.0)]]


def test_verdicts_say_what_the_file_says(compared_runs):
    found = attack_verdicts(compared_runs, "relearning")
    assert [one.recovers for one in found] == [False, True, True]
    assert found[0].sentence.startswith("It is not shown that more comes")
    assert "0.29 (interval 0.23 to 0.35)" in found[1].sentence
    assert found[0].note == "Batches of 8, learning rate 1e-4."


def test_an_attack_without_an_excess_is_not_judged():
    assert verdict_sentence({"metric": "m"}) == "Not judged: no excess was computed."
    found = {"metric": "m", "recovers": True, "excess": {"value": 0.5}}
    assert verdict_sentence({**found, "added": {"value": 0.25}}).endswith(
        "the largest excess of m is 0.5; the attack itself adds 0.25."
    )
