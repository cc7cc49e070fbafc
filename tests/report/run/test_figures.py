import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from jaxunlearn.report.kit import drawing
from jaxunlearn.report.run import figures


def _plane(results, **changes):
    arguments = {
        "target": 2.1,
        "retain_tolerance": 0.02,
        "calibration": results["calibration"],
        **changes,
    }
    return figures.forget_retain_plane(results["losses"], **arguments)


def _texts(figure):
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def _curves(results):
    return figures.loss_curves(
        results["evaluation"],
        retraining=results["retraining"],
        training=results["training"],
        target=2.1,
    )


def _paths(axes):
    """The points of each line, as lists of (x, y)."""
    return [list(zip(*line.get_data(), strict=True)) for line in axes.lines]


def test_curves_draw_each_loss_of_both_runs(results):
    axes = _curves(results).axes[0]
    for rows, style in ((results["evaluation"], "-"), (results["retraining"], "--")):
        for name, colour in figures.COLOURS.items():
            (line,) = (
                line
                for line in axes.lines
                if line.get_color() == colour and line.get_linestyle() == style
            )
            assert list(line.get_xdata()) == [row["step"] for row in rows]
            assert list(line.get_ydata()) == [row[name] for row in rows]


def test_curves_shade_the_first_epoch_only_if_there_is_a_second(results):
    assert "first epoch" in _texts(_curves(results))
    results["training"] = results["training"][:2]
    assert "first epoch" not in _texts(_curves(results))
    results["training"] = []
    assert "first epoch" not in _texts(_curves(results))


def test_labels_of_lines_that_meet_are_pushed_apart(results):
    from matplotlib.text import Annotation

    axes = _curves(results).axes[0]
    low, high = axes.get_ylim()
    labels = [text for text in axes.findobj(Annotation) if text.get_text() != ""]
    heights = sorted(
        text.xy[1] for text in labels if text.get_text() in figures.COLOURS
    )
    assert len(heights) == 3
    for below, above in zip(heights, heights[1:], strict=False):
        assert above - below >= 0.05 * (high - low)


def test_a_run_that_broke_is_drawn_as_far_as_it_went(results, tmp_path):
    results["evaluation"][-1]["forget"] = math.nan
    figure = _curves(results)
    assert "forget" not in _texts(figure)
    drawing.save_figure(figure, tmp_path / "curves")


def test_the_plane_draws_every_model_and_the_paths_from_the_trained_one(results):
    paths = _paths(_plane(results).axes[0])
    for losses in results["losses"].values():
        assert [(losses["retain"], losses["forget"])] in paths
    # In the order of the scales, not of the trials.
    assert [(0.2, 0.1), (0.201, 1.0), (0.202, 2.1)] in paths


def test_the_plane_frames_the_trained_models_and_names_the_untrained(results):
    figure = _plane(results)
    axes = figure.axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for name, losses in results["losses"].items():
        inside = left < losses["retain"] < right and bottom < losses["forget"] < top
        assert inside == (name != "before training")
    assert any("lies outside" in text for text in _texts(figure))
    del results["losses"]["before training"]
    assert not any("lies outside" in text for text in _texts(_plane(results)))


def test_far_apart_models_get_a_logarithmic_axis(results):
    assert _plane(results).axes[0].get_xscale() == "linear"
    results["losses"]["gradient ascent"]["retain"] = 5.0
    assert _plane(results).axes[0].get_xscale() == "log"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_model_does_not_break_the_plane(results, bad, tmp_path):
    results["losses"]["gradient ascent"] = {"forget": bad, "retain": bad}
    saved = drawing.save_figure(_plane(results, calibration=None), tmp_path / "plane")
    assert all(path.stat().st_size > 0 for path in saved)


def test_changes_draw_a_bar_for_each_leaf_and_method(results):
    axes = figures.relative_changes(results["changed"]).axes[0]
    widths = [[bar.get_width() for bar in group] for group in axes.containers]
    assert widths == [pytest.approx([1.0, 2.0]), pytest.approx([3.0, 0.0])]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == ["wte/embedding", "ln_f/scale"]


def test_the_layers_of_many_leaves_share_a_bar_with_their_largest_change():
    rows = [{"leaf": f"h/{n}/ln/bias", "relative_change": n / 100} for n in range(21)]
    axes = figures.relative_changes({"method": rows}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20.0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["h/*/ln/bias"]
    assert "largest" in axes.get_xlabel()


def test_saving_writes_png_and_svg_and_nothing_else(results, tmp_path):
    png, svg = drawing.save_figure(_curves(results), tmp_path / "curves")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert sorted(tmp_path.iterdir()) == [png, svg]


def test_the_same_figure_is_the_same_bytes(results, tmp_path):
    for stem in ("a", "b"):
        drawing.save_figure(_plane(results), tmp_path / stem)
    for suffix in ("png", "svg"):
        first, second = (tmp_path / f"{stem}.{suffix}" for stem in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_the_inline_figure_follows_the_page(results):
    svg = drawing.inline_svg(_plane(results), name="plane", label='a "b" <c>')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "b" <c>'
    assert root.get("viewBox")
    assert root.get("width") is root.get("height") is None
    assert "currentColor" in svg
    assert not re.search("|".join((drawing.INK, drawing.PAPER, drawing.BLUE)), svg)
    assert "first-epoch unlearning" in "".join(root.itertext())
    assert "metadata" not in svg


def test_the_inline_figures_references_lead_to_its_own_ids(results):
    svg = drawing.inline_svg(_curves(results), name="curves", label="")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    used = re.findall(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"', svg)
    assert used
    assert all(name.startswith("curves-") for name in ids)
    assert {name for pair in used for name in pair if name} <= set(ids)


def test_drawing_leaves_pyplot_alone():
    program = (
        "import sys; from jaxunlearn.report.run import figures;"
        "assert 'matplotlib' not in sys.modules;"
        "figures.relative_changes({'m': [{'leaf': 'a', 'relative_change': 1.0}]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
