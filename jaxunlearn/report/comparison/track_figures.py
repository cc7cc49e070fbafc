"""Figures of influence through training: scores, and gradient norms part by part."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxunlearn.report.comparison.panel_grid import look, panels, plain, title
from jaxunlearn.report.comparison.plane import stretch_axis
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import short
from jaxunlearn.report.comparison.track import course
from jaxunlearn.report.kit.drawing import BLUE, INK, key, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxunlearn.intervals import Interval

EPOCHS = "epoch (0: before training)"
FEW_BLOCKS = 4  # so many have names of their own in a legend
PARTS = {"wte": ("#e69f00", "s"), "wpe": ("#cc79a7", "D"), "ln_f": ("#d55e00", "^")}


def track_line(run: ComparedRun, method: str) -> str | None:
    """Return a method's scores at the end, of own examples and of all others.

    Returns:
      The text; None where the run was not tracked by the method.
    """
    if run.track is None or method not in run.track.track.scores:
        return None
    found, track = course(run.track, method), run.track.track
    records, size = track.query_losses.shape[1], track.losses.shape[1]
    count = f"{records} records, {size} training examples"
    if found.records < records and method != "hvp":
        count += f" ({found.records} of the records could be counted)"
    text = f"{found.own_name} {ranged(found.own[-1])}"
    text += f", all others {ranged(found.rest[-1])}, difference "
    text += f"{ranged(found.apart[-1])} at the end; {count}"
    covered, of = (track.coverage[name] for name in ("parameters", "of"))
    return text if covered == of else f"{text}; {covered} of {of} parameters"


def score_figure(runs: Sequence[ComparedRun], method: str) -> "Figure":
    """Draw a method's scores through training, a panel a run.

    The records' own training examples are a line in the run's colour, all others a
    thin one of ink; bands are 95 % intervals over the records.

    Args:
      runs: Those that were not tracked by the method are left out.
      method: Its name.

    Returns:
      The figure. Runs have scales of their own: scores of models differ in size.
    """
    having = [
        (position, run, course(run.track, method))
        for position, run in enumerate(runs)
        if run.track is not None and method in run.track.track.scores
    ]
    figure, grid = panels(EPOCHS, ["mean score"] * len(having), height=1.9)
    other = {"color": INK, "linestyle": ":", "linewidth": 1.6}
    for axes, (position, run, found) in zip(grid, having, strict=True):
        title(axes, run.name)
        draw(axes, found.rest, other)
        draw(axes, found.own, look(position).line())
        ends = [x for one in (*found.own, *found.rest) for x in one[:3]]
        ends = [x for x in ends if np.isfinite(x)]
        if ends:
            stretch_axis(axes, "y", ends)
    names = list(dict.fromkeys(found.own_name for _, _, found in having))
    own = look(having[0][0]).line() if len(having) == 1 else {"linestyle": "-"}
    whole_epochs(grid[-1])
    handles = [key(" or ".join(names), **own)]
    legend(figure, [*handles, key("all others", **other)])
    return figure


def norm_figure(runs: Sequence[ComparedRun]) -> "Figure | None":
    """Draw the norms of the records' gradients in each part of the model.

    A panel a run, a line a part: the mean over the records. The blocks are of one
    colour, the first the palest.

    Returns:
      The figure; None where no run was tracked.
    """
    having = [(run, run.track.track) for run in runs if run.track is not None]
    if not having:
        return None
    labels = ["mean norm of a\nrecord’s gradient"] * len(having)
    figure, grid = panels(EPOCHS, labels, height=2.3)
    styles: dict[str, dict] = {}
    for axes, (run, track) in zip(grid, having, strict=True):
        title(axes, run.name)
        means = np.asarray(track.gradient_norms, np.float64).mean(-1)
        own = part_styles(track.groups)
        for part, values in zip(track.groups, means.T, strict=True):
            axes.plot(np.where(np.isfinite(values), values, np.nan), **own[part])
        known = means[np.isfinite(means)]
        if len(known) and known.min() > 0 and known.max() > 10 * known.min():
            logarithmic(axes, wide=known.max() > 100 * known.min())
        styles = {**own, **styles}
    whole_epochs(grid[-1])
    blocks = [part for part in styles if part not in PARTS]
    shown = styles
    if len(blocks) > FEW_BLOCKS:
        ends = (blocks[0], blocks[-1])
        shown = {k: v for k, v in styles.items() if k in PARTS or k in ends}
    legend(figure, [key(plain(part), **style) for part, style in shown.items()])
    return figure


def ranged(one: "Interval") -> str:
    """Return a value with its interval, where it has one."""
    if not np.isfinite(one.low):
        return short(one.value)
    return f"{short(one.value)} [{short(one.low)}, {short(one.high)}]"


def draw(axes: "Axes", line: "Sequence[Interval]", style: dict) -> None:
    """Draw a line and the band around it."""
    value, low, high = np.array([one[:3] for one in line], np.float64).T
    epochs = np.arange(len(line))
    axes.plot(epochs, value, **style)
    if np.isfinite(low).all():
        band = axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15)
        band.set_linewidth(0)


def whole_epochs(axes: "Axes") -> None:
    """Mark whole epochs alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))


def logarithmic(axes: "Axes", *, wide: bool) -> None:
    """Make the vertical axis logarithmic."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def part_styles(groups: Sequence[str]) -> dict[str, dict]:
    """Return how the parts of a model are drawn."""
    blocks = [part for part in groups if part not in PARTS]
    styles = {}
    for part in groups:
        style = {"linewidth": 1.6, "markersize": 4.5, "color": BLUE}
        if part in PARTS:
            style["color"], style["marker"] = PARTS[part]
        else:
            place = (blocks.index(part) + 1) / len(blocks)
            style["alpha"] = 0.3 + 0.7 * place
        styles[part] = style
    return styles
