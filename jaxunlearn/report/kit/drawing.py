"""How figures look, and how they are written: with matplotlib's objects, no pyplot.

Frames and text are drawn in ``INK`` on ``PAPER``. ``inline_svg`` exchanges these
colours for the page's own, so that a figure inside a page follows light and dark.
"""

import functools
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxunlearn.files import write_whole

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, PAPER, BLUE = "#333f48", "#fefefe", "#0072b2"
# Inside a page these follow its light or dark scheme; on a dark ground the blue of
# Okabe and Ito is hard to read.
PAGE_COLOURS = {INK: "currentColor", PAPER: "var(--card)", BLUE: "var(--retain)"}
WIDTH = 4.5  # inches: legible at half a desktop's and at a phone's width


def blank(x_label: str, y_label: str, *, height: float) -> "tuple[Figure, Axes]":
    """Make a figure of ``height`` inches with empty axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: "Axes", *, label_size: float = 9) -> None:
    """Give axes the look of all figures: a light grid, no frame above and right."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, labelsize=label_size)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(color=INK, alpha=0.15, linewidth=0.7)
    axes.set_axisbelow(True)


def key(name: str, **look) -> "Line2D":
    """Return an entry for ``legend`` that looks like a line drawn with ``look``."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, **{"color": INK, "linewidth": 1.6, **look})


def legend(figure: "Figure", handles: "Sequence[Artist]") -> None:
    """Put a legend above the axes, where it hides nothing."""
    columns = 2 if len(handles) > 1 else 1
    # Two columns of long names fit only in smaller letters.
    longest = max(len(str(handle.get_label())) for handle in handles)
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9 if longest <= 24 else 8,
        labelcolor=INK,
        columnspacing=1.2,
    )


def save_figure(figure: "Figure", stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a figure as STEM.png and STEM.svg.

    Args:
      figure: What to write.
      stem: The path without its extension; its folder has to exist.

    Returns:
      The paths of both files.
    """
    paths = Path(f"{os.fspath(stem)}.png"), Path(f"{os.fspath(stem)}.svg")
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        save = functools.partial(
            figure.savefig, dpi=200, facecolor=PAPER, metadata=metadata
        )
        with deterministic("path"):
            write_whole(path, save)
    return paths


def inline_svg(figure: "Figure", *, name: str, label: str) -> str:
    """Return a figure as an SVG element to put into a page.

    Its text is text, its background is transparent, and its ``INK``, ``PAPER`` and
    ``BLUE`` are the page's text colour and its variables ``--card`` and ``--retain``.

    Args:
      figure: What to draw.
      name: A prefix that makes the element's ids differ from another figure's.
      label: What a screen reader says.

    Returns:
      The ``<svg>`` element.
    """
    from markupsafe import escape

    text = io.StringIO()
    with deterministic("none"):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<=\bid=")', f"{name}-", svg)
    svg = re.sub(r'(?<=url\(#)|(?<=xlink:href="#)', f"{name}-", svg)
    # The viewBox stays, so that the page decides the size.
    svg = re.sub(r'<svg ([^>]*?)\bwidth="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)\bheight="[^"]*"', r"<svg \1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    for colour, of_page in PAGE_COLOURS.items():
        svg = svg.replace(colour, of_page)
    return svg.strip()


def deterministic(fonttype: str):
    """Return the settings under which the same figure gives the same bytes."""
    import matplotlib

    return matplotlib.rc_context(
        {"svg.fonttype": fonttype, "svg.hashsalt": "jaxunlearn"}
    )
