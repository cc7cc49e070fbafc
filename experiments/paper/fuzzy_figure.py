"""The figure of claim 5: how far each way goes, and how fast it is relearned."""

from collections.abc import Mapping
from typing import Any

from experiments.paper.fuzzy_verdict import ASCENT, EXACT, ITERATIVE, LOOSEST
from experiments.paper.panels import labelled, panels
from jaxunlearn.report.kit.drawing import BLUE, INK, PAPER, key

# What is drawn as a curve, and its look.
CURVES = {
    "original": {"color": INK, "linestyle": ":"},
    EXACT: {"color": BLUE, "marker": "o"},
    LOOSEST: {"color": "#d55e00", "marker": "s"},
    ASCENT: {"color": "#009e73", "marker": "D"},
    ITERATIVE: {"color": "#cc79a7", "marker": "^"},
}


def drawn(results: Mapping[str, Any]) -> Any:
    """Draw distances (left) and relearning (right), a row for each world."""
    settings = results["settings"]
    figure, grid = panels(len(settings), 2, row_height=2.7)
    for (setting, result), (left, right) in zip(settings.items(), grid, strict=True):
        distances(left, result["ways"])
        labelled(left, "distance (1: original to retrained)", "", setting)
        for name, look in CURVES.items():
            shown(right, result["relearning steps"], result["ways"][name], look)
        steps = result["relearning steps"]
        right.set_xscale("symlog", base=2, linthresh=1)
        right.set_xticks(steps, map(str, steps))
        right.axhline(0, color=INK, linewidth=0.8)
        labelled(
            right,
            "steps of relearning one half",
            "loss of the other half,\nless the retrained model's (nats)",
        )
    handles = [key(name, **look) for name, look in CURVES.items()]
    hollow = {"marker": "o", "linestyle": "none", "markerfacecolor": PAPER}
    handles.append(key("left, filled: to the original", marker="o", linestyle="none"))
    handles.append(key("left, hollow: to the retrained", **hollow))
    place = {"loc": "outside upper left", "ncols": 4, "frameon": False}
    figure.legend(handles=handles, fontsize=7.5, labelcolor=INK, **place)
    return figure


def distances(axes: Any, ways: Mapping) -> None:
    """Draw the distances of each way with their intervals."""
    names = [name for name in ways if name not in ("original", "retrained")]
    for row, name in enumerate(names):
        colour = CURVES.get(name, {"color": INK})["color"]
        for kind, fill in (("to_trained", colour), ("to_retrained", PAPER)):
            found = ways[name][kind]
            if found["mean"] is None:
                continue
            if found["low"] is not None:
                axes.plot([found["low"], found["high"]], [row, row], color=colour)
            look = {"marker": "o", "color": colour, "markerfacecolor": fill}
            axes.plot(found["mean"], row, markersize=5, **look)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks([0.03, 0.1, 0.3, 1], ["0.03", "0.1", "0.3", "1"])
    axes.minorticks_off()


def shown(axes: Any, steps: list[int], way: Mapping, look: Mapping) -> None:
    """Draw a relearning curve with its band."""
    there = [(x, y) for x, y in zip(steps, way["gap"], strict=True)]
    there = [(x, y) for x, y in there if y["mean"] is not None]
    if not there:
        return
    x, y = zip(*there, strict=True)
    axes.plot(x, [s["mean"] for s in y], markersize=3.5, linewidth=1.4, **look)
    if all(s["low"] is not None for s in y):
        low, high = ([s[end] for s in y] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)
