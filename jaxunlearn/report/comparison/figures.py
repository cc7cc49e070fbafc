"""Figures of what happened on the way and in the layers, a line for each run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxunlearn.report.comparison.panel_grid import RETRAINED, look, panels, plain
from jaxunlearn.report.comparison.plane import stretch_axis
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import finite
from jaxunlearn.report.kit.drawing import INK, key, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 4
MOST_TICKS = 14  # names of layers at an axis
LAYERS = {
    "parameter_distance": "relative\nparameter distance",
    "cka_before": "CKA to the\nmodel before",
    "cka_retrained": "CKA to the\nretrained model",
}


def curve_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the names of all curves that any run has."""
    return list(dict.fromkeys(name for run in runs for name in run.curves))


def curve_figure(runs: Sequence[ComparedRun], name: str) -> "Figure":
    """Draw one curve of every run that has it: a panel for each loss, a line a run.

    The retrained model's loss, where it is known, is a dashed green line.

    Args:
      runs: The runs.
      name: Of a curve of any of them.

    Returns:
      The figure. Runs that name the axis differently share the first one's label.
    """
    having = [
        (i, run, run.curves[name]) for i, run in enumerate(runs) if name in run.curves
    ]
    losses = dict.fromkeys(
        loss
        for _, _, curve in having
        for row in curve.rows
        for loss, value in row.items()
        if loss != curve.x and isinstance(value, float | int)  # NaN is drawn as none
    )
    shown = list(losses)[:MOST_PANELS]
    words = [loss.removesuffix("loss").replace("_", " ").strip() for loss in shown]
    labels = [f"{word} loss\n(nats a token)".lstrip() for word in words]
    figure, grid = panels(having[0][2].x_label, labels or [""], height=1.75)
    handles = [key(plain(run.name), **look(i).line()) for i, run, _ in having]
    goals = [
        draw_loss(axes, having, loss) for axes, loss in zip(grid, shown, strict=False)
    ]
    if any(goals):
        handles.append(key("retrained", color=RETRAINED.colour, linestyle="--"))
    legend(figure, handles)
    return figure


def layer_figure(runs: Sequence[ComparedRun]) -> "Figure | None":
    """Draw how much each layer changed: a panel for each measure, a line a run.

    Args:
      runs: Those whose scores file has the block ``layers`` are drawn.

    Returns:
      The figure; None where no run has it.
    """
    having = [(i, run) for i, run in enumerate(runs) if run.block("layers")]
    everything = [row for _, run in having for row in run.block("layers")]
    shown = [m for m in LAYERS if any(finite(row.get(m)) for row in everything)]
    if not shown:
        return None
    names = list(dict.fromkeys(row["layer"] for row in everything))
    places = {name: place for place, name in enumerate(names)}
    figure, grid = panels("layer", [LAYERS[m] for m in shown], height=1.6)
    for axes, measure in zip(grid, shown, strict=True):
        for i, run in having:
            rows = [row for row in run.block("layers") if finite(row.get(measure))]
            axes.plot(
                [places[row["layer"]] for row in rows],
                [row[measure] for row in rows],
                **look(i).line(),
            )
    every = -(-len(names) // MOST_TICKS)
    ticks = range(0, len(names), every)
    crowded = len(ticks) > 5
    grid[-1].set_xticks(ticks, [plain(names[i]) for i in ticks])
    if crowded:
        grid[-1].tick_params(axis="x", rotation=55)
    legend(figure, [key(plain(run.name), **look(i).line()) for i, run in having])
    return figure


def draw_loss(axes: "Axes", having: Sequence[tuple], loss: str) -> bool:
    """Draw one loss of each run; return whether a retrained model's is there."""
    drawn: list[float] = []
    goals: Mapping[float, None] = {}
    for i, run, curve in having:
        rows = [row for row in curve.rows if finite(row.get(loss))]
        style = look(i).line()
        # Markers on a few points only: on all of a long run they would hide it.
        style["markevery"] = max(1, len(rows) // 8)
        axes.plot([row[curve.x] for row in rows], [row[loss] for row in rows], **style)
        drawn += [row[loss] for row in rows]
        goal = run.block("reference").get("scores", {}).get(f"{loss}_loss")
        if finite(goal):
            goals = {**goals, goal: None}
    for goal in goals:
        axes.axhline(goal, color=RETRAINED.colour, linestyle="--", linewidth=1.4)
    if drawn:
        stretch_axis(axes, "y", [*drawn, *goals])
    else:
        note = {"color": INK, "ha": "center", "xycoords": "axes fraction"}
        axes.annotate("no finite value", (0.5, 0.5), **note)
    return bool(goals)
