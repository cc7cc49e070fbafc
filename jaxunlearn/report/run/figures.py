"""The figures of a run.

The colours are Okabe and Ito's, which colour-blind readers can tell apart, and dashes
or marker shapes say the same again.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxunlearn.report.kit.drawing import BLUE, INK, PAPER, blank, key, legend
from jaxunlearn.report.run.outcome import BEFORE, RETRAINED, TRAINED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"forget": "#d55e00", "retain": BLUE, "unseen": "#009e73"}
METHOD_COLOURS = ("#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
METHOD_MARKERS = ("D", "s", "P", "X")
DASHED = (0, (4, 2))
MAX_BARS = 20
FAR_APART = 20  # times; then bars stand on a logarithmic axis


def loss_curves(
    evaluation: Sequence[Mapping],
    *,
    retraining: Sequence[Mapping] = (),
    training: Sequence[Mapping] = (),
    target: float | None = None,
) -> "Figure":
    """Draw the forget, retain and unseen loss over the training steps.

    Args:
      evaluation: ``{"step", "forget", "retain", "unseen"}``, nats per token.
      retraining: The same of the run without the examples to forget, dashed.
      training: ``{"step", "epoch"}``; the first epoch is shaded.
      target: The forget loss to reach, dotted.

    Returns:
      The figure.
    """
    figure, axes = blank("training step", "loss (nats a token)", height=3.8)
    names = [name for name in COLOURS if name in evaluation[0]]
    handles = [key("trained on everything", linestyle="-")]
    draw_losses(axes, evaluation, names, "-")
    if retraining:
        handles.append(key("retrained without them", linestyle=DASHED))
        draw_losses(axes, retraining, names, DASHED)
    if target is not None:
        axes.axhline(target, color=INK, linestyle=":", linewidth=1.3)
        handles.append(key("target forget loss", linestyle=":"))
    axes.margins(x=0)
    axes.set_ylim(bottom=0)
    shade_first_epoch(axes, training)
    label_ends(axes, {name: evaluation[-1][name] for name in names})
    legend(figure, handles)
    return figure


def forget_retain_plane(
    losses: Mapping[str, Mapping],
    *,
    target: float,
    retain_tolerance: float,
    calibration: Mapping[str, Sequence[Mapping]] | None = None,
) -> "Figure":
    """Draw each model as a point: how much was forgotten, and what the rest paid.

    The frame holds the models after training. The one before training, which would push
    all others into a corner, is named at the edge where it lies outside.

    Args:
      losses: ``results["losses"]``.
      target: The forget loss to reach, a dotted line.
      retain_tolerance: The rise of the retain loss that counts as kept, in nats, a
        band.
      calibration: For each method the trials ``{"scale", "forget", "retain"}``; a path
        from the trained model in the order of their scales.

    Returns:
      The figure.
    """
    figure, axes = blank(
        "loss on the examples to keep (nats a token)",
        "loss on the examples to forget",
        height=4.1,
    )
    start = losses[TRAINED]
    allowed = start["retain"] + retain_tolerance
    band = axes.axvspan(start["retain"], allowed, color=COLOURS["retain"], alpha=0.18)
    band.set_linewidth(0)
    axes.axhline(target, color=INK, linestyle=":", linewidth=1.3)
    handles = []
    methods = [name for name in losses if name not in (BEFORE, TRAINED, RETRAINED)]
    looks = {
        BEFORE: {"color": INK, "marker": "x"},
        TRAINED: {"color": INK, "marker": "o", "markerfacecolor": PAPER},
        RETRAINED: {"color": COLOURS["unseen"], "marker": "*", "markersize": 13},
    }
    for position, method in enumerate(methods):
        look = position % len(METHOD_COLOURS)
        colour, marker = METHOD_COLOURS[look], METHOD_MARKERS[look]
        looks[method] = {"color": colour, "marker": marker, "markeredgecolor": INK}
        trials = (calibration or {}).get(method, ())
        path = [start, *sorted(trials, key=lambda trial: trial["scale"])]
        axes.plot(
            [trial["retain"] for trial in path],
            [trial["forget"] for trial in path],
            color=colour,
            linewidth=1.5,
            marker=".",
            markersize=6,
        )
    for name, point in losses.items():
        look = {"markersize": 9, "linestyle": "none", "zorder": 4, **looks[name]}
        axes.plot(point["retain"], point["forget"], **look)
        handles.append(key(name, **look))
    frame_plane(axes, losses, target, allowed)
    handles.append(key("target forget loss", linestyle=":"))
    band_name = f"kept: up to +{retain_tolerance:g} nats"
    handles.append(
        key(band_name, color=COLOURS["retain"], alpha=0.3, linestyle="-", linewidth=7)
    )
    legend(figure, handles)
    return figure


def relative_changes(changed: Mapping[str, Sequence[Mapping]]) -> "Figure":
    """Draw how much each method changed each leaf of the parameters.

    Args:
      changed: For each method ``{"leaf", "relative_change"}``, the norm of the change
        over the norm of the leaf. Of more than 20 leaves those that differ only in
        the number of their layer share a bar, the largest change among them.

    Returns:
      The figure. Its axis is logarithmic where changes differ much, so that a small
      one is not lost beside a large one; a leaf that was not changed has no bar.
    """
    bars = {method: by_leaf(rows) for method, rows in changed.items()}
    leaves = list(dict.fromkeys(leaf for rows in bars.values() for leaf in rows))
    merged = any("*" in leaf for leaf in leaves)
    label = "norm of the change / norm of the leaf (%)"
    figure, axes = blank(
        f"{label},\nthe largest of all layers" if merged else label,
        "",
        height=1.3 + 0.24 * max(len(leaves), 4),
    )
    thickness = 0.8 / len(bars)
    for position, (method, rows) in enumerate(bars.items()):
        offset = (position - (len(bars) - 1) / 2) * thickness
        axes.barh(
            [row + offset for row in range(len(leaves))],
            [100 * rows.get(leaf, 0) for leaf in leaves],
            height=thickness,
            color=METHOD_COLOURS[position % len(METHOD_COLOURS)],
            label=method,
        )
    stretch_bars(axes, [100 * x for rows in bars.values() for x in rows.values()])
    axes.set_yticks(range(len(leaves)), leaves)
    axes.set_ylim(len(leaves) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_losses(axes: "Axes", rows: Sequence[Mapping], names, linestyle) -> None:
    """Draw the curves of the sets."""
    # The examples to forget and to keep are learned alike: a thin line on a thick one
    # shows both where they coincide.
    for name, width in (("retain", 3.6), ("unseen", 2.6), ("forget", 1.5)):
        if name in names:
            axes.plot(
                [row["step"] for row in rows],
                [row[name] for row in rows],
                color=COLOURS[name],
                linestyle=linestyle,
                linewidth=width,
            )


def shade_first_epoch(axes: "Axes", training: Sequence[Mapping]) -> None:
    """Shade the first epoch, if there are more."""
    first = min((row["epoch"] for row in training), default=0)
    steps = [row["step"] for row in training if row["epoch"] == first]
    if not 0 < len(steps) < len(training):
        return
    axes.axvspan(0, max(steps), color=INK, alpha=0.1, linewidth=0)
    place = ("data", "axes fraction")
    style = {"xytext": (3, 4), "textcoords": "offset points", "fontsize": 9}
    axes.annotate("first epoch", (0, 0), xycoords=place, color=INK, **style)


def label_ends(axes: "Axes", ends: Mapping[str, float]) -> None:
    """Name the lines at their right ends, pushed apart where they meet."""
    low, high = axes.get_ylim()
    gap = 0.055 * (high - low)
    height = -math.inf
    finite = [(name, end) for name, end in ends.items() if math.isfinite(end)]
    for name, end in sorted(finite, key=lambda item: item[1]):
        height = max(end, height + gap)
        axes.annotate(
            name,
            (1.015, height),
            xycoords=("axes fraction", "data"),
            color=COLOURS[name],
            fontsize=10,
            fontweight="bold",
            va="center",
        )


def frame_plane(axes: "Axes", losses: Mapping, target: float, allowed: float) -> None:
    """Limits around the trained models; a logarithmic axis where they lie far apart."""
    from matplotlib.ticker import LogLocator, NullLocator

    points = [point for name, point in losses.items() if name != BEFORE]
    x = [point["retain"] for point in points if math.isfinite(point["retain"])]
    y = [point["forget"] for point in points if math.isfinite(point["forget"])]
    low, high, top = min(*x, allowed), max(*x, allowed), 1.15 * max(*y, target)
    if low > 0 and high > 8 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        low, high = low / 1.2, high * 1.3
    else:
        low, high = low - 0.12 * (high - low), high + 0.15 * (high - low)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.04 * top, top)  # a marker at zero is not cut
    before = losses.get(BEFORE, {"retain": low, "forget": top})
    if before["retain"] > high or before["forget"] > top:
        note = f"before training lies outside,\nat {before['retain']:.3g} and "
        style = {"ha": "right", "va": "bottom", "color": INK, "fontsize": 9}
        note += f"{before['forget']:.3g}"
        axes.annotate(note, (0.99, 0.02), xycoords="axes fraction", **style)


def stretch_bars(axes: "Axes", lengths: Sequence[float]) -> None:
    """Return a logarithmic axis where the longest bar would hide the shortest."""
    seen = [x for x in lengths if math.isfinite(x) and x > 0]
    if not seen or max(seen) < FAR_APART * min(seen):
        return
    axes.set_xscale("log")
    axes.set_xlim(min(seen) / 3, max(seen) * 1.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"{axes.get_xlabel()}\nno bar: not changed")


def by_leaf(rows: Sequence[Mapping]) -> dict[str, float]:
    """Return the largest change of each leaf, of all layers together where many."""
    merge = len(rows) > MAX_BARS
    bars: dict[str, float] = {}
    for row in rows:
        leaf = re.sub(r"/\d+/", "/*/", row["leaf"]) if merge else row["leaf"]
        bars[leaf] = max(bars.get(leaf, 0.0), row["relative_change"])
    return bars
