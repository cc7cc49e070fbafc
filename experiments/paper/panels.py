"""Figures of several panels, and intervals over seeds in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxunlearn.report.kit.drawing import INK, PAPER, plain_axes

WIDTH = 7.2  # inches: as wide as a page of text


def panels(rows: int, columns: int, *, row_height: float = 2.5):
    """Return a figure and its axes, an array [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(WIDTH, row_height * rows + 0.6),
        layout="constrained",
        facecolor=PAPER,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        plain_axes(axes, label_size=8)
    return figure, grid


def labelled(axes, x_label: str, y_label: str, title: str = "") -> None:
    """Name a panel and its axes."""
    axes.set_xlabel(x_label, color=INK, fontsize=8.5)
    axes.set_ylabel(y_label, color=INK, fontsize=8.5)
    axes.set_title(title, color=INK, fontsize=9, loc="left")


def with_intervals(
    axes, x: Sequence[float], found: Sequence[Mapping[str, Any]], *, times=1.0, **look
) -> None:
    """Draw ``results.summary`` values with their intervals; absent ones are left out.

    Args:
      axes: Where.
      x: A place each.
      found: A summary each.
      times: A factor, 100 for per cent.
      look: As for ``axes.errorbar``.
    """
    there = [(at, s) for at, s in zip(x, found, strict=True) if s["mean"] is not None]
    means = [times * s["mean"] for _, s in there]
    reach = [
        [
            abs(times * s[end] - mean) if s[end] is not None else 0.0
            for (_, s), mean in zip(there, means, strict=True)
        ]
        for end in ("low", "high")
    ]
    axes.errorbar(
        [at for at, _ in there],
        means,
        yerr=reach,
        **{"markersize": 4, "linewidth": 1.2, "capsize": 2, **look},
    )
