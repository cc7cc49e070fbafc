"""How a comparison's figures look: a colour, a marker and a dash for each run.

The colours are those of Okabe and Ito that are left beside the retrained model's green
and the original's ink. With markers and dashes, 60 runs can be told apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from jaxunlearn.report.kit.drawing import BLUE, INK, PAPER, WIDTH, plain_axes
from jaxunlearn.report.kit.tables import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, "#e69f00", "#cc79a7", "#d55e00")
MARKERS = ("o", "s", "D", "^", "v")
DASHES = ("-", (0, (6, 1.5)), (0, (3, 1.2, 1, 1.2)))
LONGEST = 26  # characters of a name in a figure


class Look(NamedTuple):
    """What a model is drawn with."""

    colour: str
    marker: str
    dash: Any  # as matplotlib takes it
    fill: str

    def line(self) -> dict:
        """Return arguments for a line with markers."""
        return {
            "color": self.colour,
            "linestyle": self.dash,
            "linewidth": 1.6,
            **self.point(),
            "markersize": 5,
        }

    def point(self) -> dict:
        """Return arguments for a marker."""
        return {
            "marker": self.marker,
            "markerfacecolor": self.fill,
            "markeredgecolor": self.colour if self.fill == PAPER else INK,
            "markeredgewidth": 1.3 if self.fill == PAPER else 0.6,
        }


RETRAINED = Look("#009e73", "*", (0, (4, 2)), "#009e73")
ORIGINAL = Look(INK, "o", ":", PAPER)


def look(position: int) -> Look:
    """Return the look of the run at ``position``; it comes again after 60."""
    colour = COLOURS[position % len(COLOURS)]
    marker = MARKERS[position % len(MARKERS)]
    return Look(colour, marker, DASHES[position % len(DASHES)], colour)


def panels(
    x_label: str, y_labels: Sequence[str], *, height: float, share_y: bool = False
) -> "tuple[Figure, list[Axes]]":
    """Make a figure of empty axes, one above the other, with one x axis.

    Args:
      x_label: Of the lowest.
      y_labels: One for each, from the top.
      height: Of each, in inches.
      share_y: Whether they also have the same y axis.

    Returns:
      The figure and its axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    count = len(y_labels)
    size = (WIDTH, height * count + 0.5)
    figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
    grid = figure.subplots(count, 1, sharex=True, sharey=share_y, squeeze=False)
    for axes, label in zip(grid[:, 0], y_labels, strict=True):
        plain_axes(axes)
        axes.set_ylabel(label, color=INK, fontsize=9)
    grid[-1, 0].set_xlabel(x_label, color=INK)
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    return figure, list(grid[:, 0])


def title(axes: "Axes", text: str) -> None:
    """Write a panel's title at its left."""
    axes.set_title(plain(text), loc="left", color=INK, fontsize=9.5, fontweight="bold")


def plain(text: str) -> str:
    """Return a text that matplotlib draws as it is, a long one without its middle.

    >>> print(plain("cost $5"), plain("a/very/long/path/to/some/run/of/mine"))
    cost \\$5 a/very/long/p…/run/of/mine
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 + 1 :]}"
    text = visible(text).replace("\n", " ").replace("$", r"\$")
    return " " + text if text.startswith("_") else text  # "_" hides from legends


def swatch(of: Look) -> Markup:
    """Return the beginning of a line in a run's look, to stand beside its name."""
    shapes = {
        "o": '<circle cx="14" cy="6" r="4"/>',
        "s": '<path d="M10 2h8v8h-8z"/>',
        "D": '<path d="M14 1l5 5-5 5-5-5z"/>',
        "^": '<path d="M14 1.5l5 9h-10z"/>',
        "v": '<path d="M14 10.5l5-9h-10z"/>',
        "*": '<path d="M14 0l1.6 4.3 4.4.1-3.5 2.8 1.3 4.5-3.8-2.6-3.8 2.6 '
        '1.3-4.5L8 4.4l4.4-.1z"/>',
    }
    dash = {"-": "none", ":": "1.5 2"}.get(str(of.dash)) or " ".join(
        f"{1.3 * length:.3g}" for length in of.dash[1]
    )
    colours = {BLUE: "var(--retain)", INK: "currentColor", PAPER: "var(--card)"}
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" stroke="{}" '
        'fill="{}"><path d="M0 6h28" fill="none" stroke-width="2" '
        'stroke-dasharray="{}"/>{}</svg>'
    ).format(
        colours.get(of.colour, of.colour),
        colours.get(of.fill, of.fill),
        dash,
        Markup(shapes[of.marker]),
    )
