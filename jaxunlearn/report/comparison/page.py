"""Any number of runs compared on one HTML page that needs nothing but itself."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from jaxunlearn.files import write_text
from jaxunlearn.report.comparison import (
    attacks,
    examples,
    figures,
    membership,
    plane,
    scores,
    tables,
    track,
    track_figures,
)
from jaxunlearn.report.comparison.export import CAPTIONS, export_rows
from jaxunlearn.report.comparison.panel_grid import look, swatch
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.kit.drawing import inline_svg, save_figure
from jaxunlearn.report.kit.export import write_tables
from jaxunlearn.report.kit.tables import html_table
from jaxunlearn.report.kit.templates import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
KINDS = ("plane", "curves", "track", "layers", "membership", "attacks")


class Drawn(NamedTuple):
    """A figure of the page.

    Attributes:
      kind: Its section: plane, curves, track, layers, membership or attacks.
      of: What it shows: the name of a curve, an attack or a method; "" where there is
        one.
      stem: Its file's name without extension.
      label: What a screen reader says.
      figure: The figure.
    """

    kind: str
    of: str
    stem: str
    label: str
    figure: "Figure"


def write_comparison(
    runs: Sequence[ComparedRun], out_dir: str | os.PathLike[str]
) -> Path:
    """Write DIR/report.html, its figures in DIR/figures, its tables in DIR/tables.

    The page is one file: style and figures are inside and nothing is fetched. Every
    text is escaped. A section without numbers says which command would make them.

    Args:
      runs: One run or more, as ``read_runs`` returns them.
      out_dir: The folder, which is made if it does not exist. Files of other names
        stay there.

    Returns:
      The path of the page.

    Raises:
      ValueError: There is no run, or two have the same name.
    """
    drawn = draw_comparison(runs)
    page = render_comparison(runs, drawn)
    out_dir = Path(out_dir)
    (out_dir / "figures").mkdir(parents=True, exist_ok=True)
    for one in drawn:
        save_figure(one.figure, out_dir / "figures" / one.stem)
    write_tables(out_dir / "tables", export_rows(runs), captions=CAPTIONS)
    write_text(out_dir / "report.html", page)
    return out_dir / "report.html"


def draw_comparison(runs: Sequence[ComparedRun]) -> list[Drawn]:
    """Draw the figures that there are numbers for, in the page's order.

    Raises:
      ValueError: There is no run, or two have the same name.
    """
    check_runs(runs)
    wanted: list[tuple[str, str, str, Callable[[], Any]]] = [
        ("plane", "", "Forget loss over retain loss", lambda: plane.plane_figure(runs))
    ]
    for name in figures.curve_names(runs):
        label = f"Curves of the losses: {name}"
        wanted.append(
            ("curves", name, label, lambda n=name: figures.curve_figure(runs, n))
        )
    for name in track.method_names(runs):
        label = f"Influence through training: {track.method_label(name)}"
        draw = lambda n=name: track_figures.score_figure(runs, n)  # noqa: E731
        wanted.append(("track", name, label, draw))
    label = "Gradient norms through training"
    draw = lambda: track_figures.norm_figure(runs)  # noqa: E731
    wanted.append(("track", "gradient_norms", label, draw))
    label = "Change of each layer"
    wanted.append(("layers", "", label, lambda: figures.layer_figure(runs)))
    for name in membership.membership_names(runs):
        label = f"Membership scores of {name}, to forget and never seen"
        draw = lambda n=name: membership.membership_figure(runs, n)  # noqa: E731
        wanted.append(("membership", name, label, draw))
    for name in attacks.attack_names(runs):
        label = f"What {name} gets back"
        draw = lambda n=name: attacks.attack_figure(runs, n)  # noqa: E731
        wanted.append(("attacks", name, label, draw))
    drawn: list[Drawn] = []
    for kind, of, label, draw in wanted:
        figure = draw()
        if figure is not None:
            taken = {one.stem for one in drawn}
            drawn.append(Drawn(kind, of, file_stem(kind, of, taken), label, figure))
    return drawn


def check_runs(runs: Sequence[ComparedRun]) -> None:
    """Refuse no runs, and runs that a reader could not tell apart."""
    names = [run.name for run in runs]
    if not names:
        raise ValueError("runs is empty: a comparison needs one run or more")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(
            f"runs: more than one is called {', '.join(sorted(twice))}; give them "
            f"different names"
        )


def render_comparison(runs: Sequence[ComparedRun], drawn: Sequence[Drawn]) -> str:
    """Render the page.

    Args:
      runs: The runs.
      drawn: What ``draw_comparison`` returned for them.

    Returns:
      The HTML text.
    """
    check_runs(runs)
    templates = environment(FOLDER)
    templates.filters.update(short=scores.short)
    templates.globals.update(
        direction=tables.direction_of,
        label_of=scores.label_of,
        look=look,
        attack_label=membership.attack_label,
        membership_of=membership.membership_line,
        swatch=swatch,
        table=rows_table,
        track_label=track.method_label,
        track_of=track_figures.track_line,
        track_sign=lambda name: track.method_sign(runs, name),
        verdicts=lambda name: attacks.attack_verdicts(runs, name),
    )
    leading, others = scores.leading_scores(runs), scores.other_scores(runs)
    shown = examples.compared_examples(runs)
    return templates.get_template("comparison.html.jinja").render(
        runs=runs,
        figures=inline(drawn),
        leading=leading,
        meanings={score: scores.LEADING[score] for score in leading},
        summary=score_table(runs, leading),
        others=score_table(runs, others),
        sentences={run.name: scores.sentence_of(run) for run in runs},
        referenced=[run for run in runs if run.block("reference")],
        retraining=[
            table
            for rows in (tables.retraining_rows(runs), tables.distance_rows(runs))
            if (table := rows_table(rows)) is not None
        ],
        cost=rows_table(tables.cost_rows(runs)),
        versions=rows_table(tables.version_rows(runs)),
        examples=shown[: examples.MOST],
        left_out=max(len(shown) - examples.MOST, 0),
        shown_at_once=examples.SHOWN_AT_ONCE,
        undrawn=[run.name for run in runs if not plane.drawable(run.scores)],
    )


def inline(drawn: Sequence[Drawn]) -> dict[str, list[tuple[str, Markup]]]:
    """For each section its figures: (what of, svg)."""
    found: dict[str, list[tuple[str, Markup]]] = {kind: [] for kind in KINDS}
    for one in drawn:
        svg = inline_svg(one.figure, name=one.stem, label=one.label)
        found[one.kind].append((one.of, Markup(svg)))
    return found


def rows_table(rows: Sequence[Mapping]) -> Markup | None:
    """Return a table of rows, or None where there are none."""
    return html_table(rows) if rows else None


def score_table(runs: Sequence[ComparedRun], columns: Sequence[str]) -> Markup | None:
    """Return the scores' table, under each heading which way is better."""
    if not columns:
        return None
    table = html_table(tables.headed(tables.score_rows(runs, columns)))
    head, end, body = table.partition("</thead>")
    cells = head.split("</th>")
    for place, score in enumerate(columns, 1):
        direction = tables.direction_of(score)
        if direction is not None:
            mark = Markup("<small>{} {}</small>").format(*direction)
            cells[place] = cells[place] + mark
    return Markup(Markup("</th>").join(cells) + end + body)


def file_stem(kind: str, of: str, taken: set[str]) -> str:
    """Return a file's name of letters, digits and underscores that is not taken."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in of.lower())
    stem = "_".join([kind, *words.split()])[:60]
    count, free = 1, stem
    while free in taken:
        count += 1
        free = f"{stem}_{count}"
    return free
