"""How much each run forgot, against what the rest paid: a plane with a Pareto front."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxunlearn.report.comparison.panel_grid import (
    ORIGINAL,
    RETRAINED,
    Look,
    look,
    plain,
)
from jaxunlearn.report.comparison.pareto import pareto_front
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import finite, interval
from jaxunlearn.report.kit.drawing import INK, PAPER, blank, key, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X, Y = "retain_loss", "forget_loss"
STRETCH = 6  # a largest value so many times the median asks for a logarithmic axis


class Place(NamedTuple):
    """A model in the plane."""

    name: str
    scores: Mapping[str, float | None]
    intervals: Mapping[str, Sequence[float | None]]
    look: Look


def plane_figure(runs: Sequence[ComparedRun]) -> "Figure | None":
    """Draw every run's forget loss over its retain loss.

    Bars are 95 % intervals. A line joins the runs of ``front``, each of them ringed.

    Args:
      runs: The runs; those without both losses, or with one that is not finite, are
        left out.

    Returns:
      The figure; None where no run can be drawn.
    """
    places = [
        Place(run.name, run.scores, run.block("intervals"), look(position))
        for position, run in enumerate(runs)
        if drawable(run.scores)
    ]
    if not places:
        return None
    landmarks = landmark_places(runs)
    figure, axes = blank(
        "loss on the examples to keep (nats a token)",
        "loss on the examples to forget\n(nats a token)",
        height=4.1,
    )
    on_front = front(runs)
    line = [runs[i].scores for i in on_front]
    if len(line) > 1:
        axes.plot(
            [scores[X] for scores in line],
            [scores[Y] for scores in line],
            color=INK,
            linewidth=1,
            alpha=0.6,
            gid="front",
        )
    handles = [draw(axes, place, order=4) for place in places]
    # Below the runs: a run that came out like the retrained model must not be hidden.
    handles += [draw(axes, place, order=3) for place in landmarks]
    ring = {"marker": "o", "linestyle": "none", "markersize": 16, "linewidth": 1}
    ring |= {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
    for scores in line:
        axes.plot(scores[X], scores[Y], zorder=5, **ring)
    if line:
        handles.append(key("no run is better in both", **ring | {"markersize": 9}))
    drawn = [place.scores for place in [*places, *landmarks]]
    axes.margins(0.12)
    stretch_axis(axes, "x", [scores[X] for scores in drawn])
    stretch_axis(axes, "y", [scores[Y] for scores in drawn])
    legend(figure, handles)
    return figure


def front(runs: Sequence[ComparedRun]) -> list[int]:
    """Return the positions of the runs that no other beats in both losses.

    Smaller is better: the retain loss, and how far the forget loss is from the
    retrained model's, above or below. Without a retrained model a higher forget loss
    counts as better.
    """
    points = []
    for run in runs:
        x, y = run.scores.get(X), run.scores.get(Y)
        goal = run.block("reference").get("scores", {}).get(Y)
        if x is None or y is None:
            points.append((float("nan"), float("nan")))
        else:
            points.append((x, -y if goal is None else abs(y - goal)))
    if any(has_goal(run) for run in runs):
        # Distances and plain losses cannot be ranked together.
        points = [
            point if has_goal(run) else (float("nan"), point[1])
            for run, point in zip(runs, points, strict=True)
        ]
    return pareto_front(points)


def drawable(scores: Mapping[str, float | None]) -> bool:
    """Return whether a model has a place in the plane."""
    return finite(scores.get(X)) and finite(scores.get(Y))


def stretch_axis(axes: "Axes", which: str, values: Sequence[float | None]) -> None:
    """Make an axis logarithmic where one model would push the others into a corner."""
    import numpy as np
    from matplotlib.ticker import LogLocator, NullLocator

    known = np.asarray([value for value in values if value is not None])
    if not (known.min() > 0 and known.max() > STRETCH * np.median(known)):
        return
    axes.set(**{f"{which}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    wide = known.max() > 100 * known.min()
    axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def has_goal(run: ComparedRun) -> bool:
    """Return whether the retrained model of a run has a place in the plane."""
    return run.block("reference").get("scores", {}).get(Y) is not None


def landmark_places(runs: Sequence[ComparedRun]) -> list[Place]:
    """Return each different retrained and original model once."""
    places: list[Place] = []
    for block, name, of in (
        ("reference", "retrained", RETRAINED),
        ("original", "original", ORIGINAL),
    ):
        seen: list[tuple] = []
        for run in runs:
            model = run.block(block)
            scores = model.get("scores", {})
            where = (scores.get(X), scores.get(Y))
            if drawable(scores) and where not in seen:
                again = f" (of {run.name})" if seen else ""
                seen.append(where)
                intervals = model.get("intervals") or {}
                places.append(Place(name + again, scores, intervals, of))
    return places


def draw(axes: "Axes", place: Place, *, order: int):
    """Draw a model with its bars; returns its entry in the legend."""
    x, y = place.scores[X], place.scores[Y]
    bars = {}
    for direction, score, value in (("xerr", X, x), ("yerr", Y, y)):
        low, high = interval(place.intervals, score)
        if low is not None and high is not None:
            # A bootstrap interval need not hold the value; bars cannot go inwards.
            bars[direction] = [[max(value - low, 0)], [max(high - value, 0)]]
    if bars:
        style = {"ecolor": place.look.colour, "elinewidth": 1.2, "zorder": order - 0.5}
        axes.errorbar(x, y, fmt="none", **style, **bars)
    size = 17 if place.look.marker == "*" else 7
    style = {**place.look.point(), "linestyle": "none", "markersize": size}
    axes.plot(x, y, zorder=order, color=place.look.colour, **style)
    if place.look.fill != PAPER:
        style["markersize"] = min(size, 11)
    return key(plain(place.name), **style)
