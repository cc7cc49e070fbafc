"""The figure of claim 2: what each group of layers moves, and what that costs."""

from collections.abc import Mapping
from typing import Any

from experiments.paper.panels import labelled, panels
from jaxunlearn.report.kit.drawing import BLUE, INK, PAPER, key

LOOKS = ((BLUE, "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "^"))


def drawn(results: Mapping[str, Any]) -> Any:
    """Draw the share of the effect, and the price at matched forget loss, by group."""
    settings = results["settings"]
    names = list(next(iter(settings.values()))["groups"])
    figure, grid = panels(1, 2, row_height=0.6 + 0.34 * len(names))
    left, right = grid[0]
    handles = []
    for i, (setting, result) in enumerate(settings.items()):
        colour, marker = LOOKS[i % len(LOOKS)]
        handles.append(key(setting, color=colour, marker=marker, linestyle="-"))
        for row, name in enumerate(names):
            at = row + 0.17 * (i - (len(settings) - 1) / 2)
            group = result["groups"][name]
            across(left, group["literal"], at, colour, marker)
            across(left, group["common"], at, colour, marker, markerfacecolor=PAPER)
            if "matched" in group:
                rise = group["matched"]["retain_rise"]
                across(right, rise, at, colour, marker)
    left.set_yticks(range(len(names)), names)
    right.set_yticks(range(len(names)), [])
    for axes in (left, right):
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=0.8)
    labelled(left, "share of what everything moves (%)", "")
    labelled(right, "rise of the kept loss at matched forget loss (%)", "")
    hollow = {"linestyle": "none", "marker": "o", "markerfacecolor": PAPER}
    handles.append(key("filled: literal scale", linestyle="none", marker="o"))
    handles.append(key("hollow: everything reaches the target", **hollow))
    place = {"loc": "outside upper left", "ncols": 3, "frameon": False}
    figure.legend(handles=handles, fontsize=8, labelcolor=INK, **place)
    return figure


def across(axes: Any, found: Mapping, y: float, colour: str, marker: str, **look):
    """Draw a mean with its interval, in per cent, along x."""
    if found["mean"] is None:
        return
    if found["low"] is not None:
        ends = [100 * found["low"], 100 * found["high"]]
        axes.plot(ends, [y, y], color=colour, linewidth=1)
    axes.plot(
        100 * found["mean"], y, marker=marker, color=colour, markersize=3.5, **look
    )
