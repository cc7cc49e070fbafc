"""Tables for the terminal and for the page, from the same rows.

A row is a dict from column to value; the keys of the first row are the columns. Numbers
have four significant digits and stand at the right, percentages too; None is a dash.
"""

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from jaxunlearn.report.kit.columns import columns_of, is_numeric

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "–"
SHORT_TITLE = 40
"""Cells of a title that a table is made wide enough for; longer ones break."""

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
SIGNS: dict[int, str] = {
    **dict.fromkeys([*range(0x7F, 0xA0), *range(0x202A, 0x202F)], "\ufffd"),
    **dict.fromkeys([*range(0x2066, 0x206A), *range(0xD800, 0xE000)], "\ufffd"),
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
}


def console_table(rows: Sequence[Mapping], *, title: str | None = None) -> "Table":
    """Make a table that a rich console prints.

    Args:
      rows: Dicts with the same keys.
      title: A line above the table.

    Returns:
      The table. Square brackets in its text are text, not rich's markup.

    Raises:
      ValueError: If there are no rows or their keys differ.
    """
    import rich.box
    from rich.table import Table
    from rich.text import Text

    columns = columns_of(rows)
    heading = None if title is None else Text(visible(title), style="bold")
    short = heading is not None and heading.cell_len <= SHORT_TITLE
    table = Table(
        title=heading,
        min_width=heading.cell_len if heading is not None and short else None,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )
    for column in columns:
        justify = "right" if is_numeric(rows, column, percent=True) else "left"
        table.add_column(Text(visible(column)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text_of(row[column])) for column in columns))
    return table


def html_table(rows: Sequence[Mapping], *, caption: str | None = None) -> Markup:
    """Make an HTML table, with everything escaped.

    The first column is the header of its row; every other cell carries its column's
    name in ``data-label``, so that a style sheet can stack the cells on a narrow
    screen, and the class ``number`` or ``absent``.

    Args:
      rows: Dicts with the same keys. A ``markupsafe.Markup`` value is taken as it is.
      caption: The table's caption.

    Returns:
      The ``<table>`` element.

    Raises:
      ValueError: If there are no rows or their keys differ.

    >>> print(html_table([{"model": "trained", "loss": 0.25}]))
    <table> <thead><tr><th scope="col">model</th><th scope="col"
    class="number">loss</th></tr></thead> <tbody> <tr><th scope="row">trained</th><td
    data-label="loss" class="number">0.25</td></tr> </tbody> </table>"""  # noqa: E501
    columns = columns_of(rows)
    classes = {
        column: Markup(' class="number"')
        if is_numeric(rows, column, percent=True)
        else ""
        for column in columns
    }
    lines = [Markup("<table>")]
    if caption is not None:
        lines.append(Markup("<caption>{}</caption>").format(visible(caption)))
    heads = (
        Markup('<th scope="col"{}>{}</th>').format(classes[column], visible(column))
        for column in columns
    )
    lines.append(Markup("<thead><tr>{}</tr></thead>").format(Markup("").join(heads)))
    lines.append(Markup("<tbody>"))
    for row in rows:
        cells = (
            Markup('<td data-label="{}"{}>{}</td>').format(
                visible(column),
                Markup(' class="absent"') if row[column] is None else classes[column],
                text_of(row[column]),
            )
            for column in columns[1:]
        )
        head = Markup('<th scope="row">{}</th>').format(text_of(row[columns[0]]))
        lines.append(Markup("<tr>{}{}</tr>").format(head, Markup("").join(cells)))
    lines.append(Markup("</tbody>\n</table>"))
    return Markup("\n").join(lines)


def text_of(value: object) -> str:
    """Return a cell's text.

    >>> text_of(0.123456), text_of(3), text_of(True), text_of(None), text_of("a")
    ('0.1235', '3', 'yes', '–', 'a')
    >>> text_of(12345.6), text_of(0.00001234)
    ('12,346', '1.234e-05')
    >>> text_of(float("nan")), text_of(float("-inf")), text_of("a\x1b[0m")
    ('–', '−∞', 'a␛[0m')
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, numbers.Real):
        if math.isnan(value):
            return ABSENT
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return visible(value if isinstance(value, str) else str(value))


def visible(text: str) -> str:
    r"""Return a text without characters that command a terminal or turn what is shown.

    Control characters are shown by their signs, and what reverses the direction of the
    text around it, or is half a character, by a replacement sign. Line ends and
    tabulators stay.

    >>> visible("a\x1b[31m\x7f\u202eb\n")
    'a␛[31m␡�b\n'
    """
    return text.translate(SIGNS) if HIDDEN.search(text) else text
