"""The figure of claim 3: each score's rank correlation with what retraining says."""

from collections.abc import Mapping
from typing import Any

from experiments.paper.panels import labelled, panels
from experiments.paper.score_verdict import (
    CURVATURES,
    DOTS,
    GROUP,
    KEPT_LOSS,
    LOSS,
)
from jaxunlearn.report.kit.drawing import BLUE, INK, PAPER, key

LOOKS = {
    "all": (INK, "o"),
    "forget": ("#d55e00", "v"),
    "near": ("#e69f00", "^"),
    "unseen": ("#009e73", "D"),
    "relearning": (BLUE, "o"),
    "extraction": ("#cc79a7", "s"),
    "behaviour": ("#56b4e9", "D"),
}
TITLES = {
    "examples": "of examples: the change\nby really removing the group",
    "models": "of models: how little is left",
    "matched": "of models at matched\nforget loss: how little is left",
}
NAMES = {
    "all": "all examples",
    "forget": "forgotten",
    "near": "nearest kept",
    "unseen": "unseen",
    "relearning": "held-out relearning",
    "extraction": "extraction",
    "behaviour": "distance from retrained",
}


def drawn(found: Mapping[str, Any]) -> Any:
    """Draw correlations with intervals, a row a setting and a column a level."""
    from matplotlib.patches import Patch

    levels = list(TITLES)
    scores = [*CURVATURES, *DOTS, LOSS, KEPT_LOSS, GROUP]
    figure, grid = panels(len(found), len(levels), row_height=0.7 + 0.31 * len(scores))
    for row, (setting, result) in zip(grid, found.items(), strict=True):
        for axes, level in zip(row, levels, strict=True):
            by_truth = result["correlations"][level]
            for i, (truth, by_score) in enumerate(by_truth.items()):
                shift = 0.17 * (i - (len(by_truth) - 1) / 2)
                for place, score in enumerate(scores):
                    if score in by_score:
                        across(axes, by_score[score], place + shift, *LOOKS[truth])
            first = axes is row[0]
            axes.set_yticks(range(len(scores)), scores if first else [])
            axes.set_ylim(len(scores) - 0.5, -0.5)
            axes.set_xlim(-1.05, 1.05)
            axes.axvline(0, color=INK, linewidth=0.8)
            # The baselines stand apart.
            axes.axhline(len(scores) - 3.5, color=INK, linewidth=0.8, linestyle=":")
            chance = next(iter(reversed(result["chance"][level].values())))
            axes.axvspan(-chance, chance, color=INK, alpha=0.12, linewidth=0)
            labelled(axes, "rank correlation", setting if first else "", TITLES[level])
    handles = [
        key(NAMES[name], color=colour, marker=marker, markersize=4)
        for name, (colour, marker) in LOOKS.items()
    ]
    handles.append(Patch(color=INK, alpha=0.12, label="random scores (99 %)"))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=4,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    return figure


def across(axes: Any, found: Mapping, y: float, colour: str, marker: str) -> None:
    """Draw a mean with its interval along x; hollow where the interval holds 0."""
    if found["mean"] is None:
        return
    clear = False
    if found["low"] is not None:
        axes.plot([found["low"], found["high"]], [y, y], color=colour, linewidth=1)
        clear = found["low"] > 0 or found["high"] < 0
    axes.plot(
        found["mean"],
        y,
        marker=marker,
        color=colour,
        markersize=3.5,
        markerfacecolor=colour if clear else PAPER,
    )
