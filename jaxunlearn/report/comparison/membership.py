"""How well an attacker tells forgotten examples from ones that were never seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxunlearn.report.comparison.panel_grid import look, panels, title
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.scores import interval, short
from jaxunlearn.report.kit.drawing import INK, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_BINS, MOST_BINS = 6, 24
LABELS = {
    "loss": "Loss",
    "zlib": "Loss over zlib size",
    "min_k": "Min-K",
    "min_k_pp": "Min-K++",
    "gradient_norm": "Gradient norm",
    "reference": "Loss beyond the retrained model’s",
}


def attack_label(attack: str) -> str:
    """Return an attack's name for readers."""
    return LABELS.get(attack, attack.replace("_", " "))


def membership_line(run: ComparedRun, attack: str) -> str | None:
    """Return an attack's AUC and true-positive rate on a run, with 95 % intervals.

    Returns:
      The text; None where the run has no such attack.
    """
    found = run.block("membership").get(attack)
    if found is None:
        return None
    parts = []
    for key, ends, name in (
        ("auc", "auc_interval", "AUC"),
        ("tpr_at_1_fpr", "tpr_interval", "TPR at 1 % FPR"),
    ):
        if found.get(key) is not None:
            low, high = interval(found, ends)
            range_ = "" if low is None else f" [{short(low)}, {short(high)}]"
            parts.append(f"{name} {short(found[key])}{range_}")
    return ", ".join(parts) or "no AUC"


def membership_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the attacks that any run has scores of."""
    return list(dict.fromkeys(name for run in runs for name in run.block("membership")))


def membership_figure(runs: Sequence[ComparedRun], attack: str) -> "Figure | None":
    """Draw an attack's scores of forgotten and never-seen examples, a panel a run.

    The panels have the same axes, so that runs can be compared; each histogram is a
    share of its own examples. The higher a score, the less likely a member.

    Args:
      runs: The runs; those without the attack are left out.
      attack: Its name.

    Returns:
      The figure; None where there is no finite score.
    """
    having = []
    for position, run in enumerate(runs):
        found = run.block("membership").get(attack)
        if found is not None:
            sides = tuple(finite(found[side]) for side in ("forget", "holdout"))
            having.append((position, run, sides))
    everything = np.concatenate([x for _, _, sides in having for x in sides] or [[]])
    if not everything.size:
        return None
    low, high = everything.min(), everything.max()
    # Few examples in many bins would be a comb.
    fewest = min(len(x) for _, _, sides in having for x in sides if len(x))
    bins = int(np.clip(2 * np.sqrt(fewest), FEWEST_BINS, MOST_BINS))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    figure, grid = panels(
        f"{attack_label(attack)}\n(higher: less likely a member)",
        ["share of the\nexamples (%)"] * len(having),
        height=1.45,
        share_y=True,
    )
    for axes, (position, run, sides) in zip(grid, having, strict=True):
        title(axes, run.name)
        forget, holdout = (shares(values, edges) for values in sides)
        axes.stairs(forget, edges, fill=True, color=look(position).colour, alpha=0.65)
        axes.stairs(holdout, edges, color=INK, linewidth=1.6)
    grid[0].set_ylim(bottom=0)  # of all panels, which share the axis
    legend(figure, handles(look(having[0][0]).colour, one_run=len(having) == 1))
    return figure


def handles(colour: str, *, one_run: bool) -> list:
    """Return the legend of a histogram of both sets."""
    from matplotlib.patches import Patch

    if not one_run:
        colour = INK
    line = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.6}
    return [
        Patch(label="to forget (filled)", facecolor=colour, alpha=0.65),
        Patch(label="never seen (line)", **line),
    ]


def finite(values: Sequence[float | None]) -> np.ndarray:
    """Return the finite ones of values."""
    array = np.asarray([np.nan if x is None else x for x in values], np.float64)
    return array[np.isfinite(array)]


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Per cent of the values in each bin."""
    return 100 * np.histogram(values, edges)[0] / max(len(values), 1)
