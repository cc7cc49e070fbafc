"""Tables as CSV for programs and as LaTeX for papers."""

import csv
import io
import numbers
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxunlearn.files import write_text
from jaxunlearn.report.kit.columns import columns_of, is_numeric
from jaxunlearn.report.kit.tables import text_of, visible

MOST_LATEX_ROWS = 200
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "∞": r"$\infty$",
    "\n": " ",
}


def csv_text(rows: Sequence[Mapping]) -> str:
    """Write rows as comma-separated values (RFC 4180).

    Args:
      rows: Dicts with the same keys, which are the first line.

    Returns:
      The text. Numbers have all their digits, so that reading them gives them back;
      None, and what is no finite number, is empty.

    Raises:
      ValueError: There are no rows, or their keys differ.

    >>> print(csv_text([{"run": "a,b", "loss": 0.1, "note": None}]), end="")
    run,loss,note
    "a,b",0.1,
    """
    columns = columns_of(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(visible, columns))
    writer.writerows([csv_cell(row[column]) for column in columns] for row in rows)
    return text.getvalue()


def latex_table(rows: Sequence[Mapping], *, caption: str = "") -> str:
    r"""Write rows as a LaTeX table in the style of booktabs.

    Args:
      rows: Dicts with the same keys. Numbers are given four significant digits.
      caption: The table's caption; without one it is a bare tabular.

    Returns:
      The text; the document needs ``\usepackage{booktabs}``.

    Raises:
      ValueError: There are no rows, or their keys differ.

    >>> print(latex_table([{"run": "a_b", "loss": 0.123456}]), end="")
    % needs \usepackage{booktabs}
    \begin{tabular}{lr}
    \toprule
    run & loss \\
    \midrule
    a\_b & 0.1235 \\
    \bottomrule
    \end{tabular}
    """
    columns = columns_of(rows)
    sides = "".join("r" if is_numeric(rows, column) else "l" for column in columns)
    lines = [r"\begin{tabular}{" + sides + "}", r"\toprule"]
    lines += [latex_line(list(map(visible, columns))), r"\midrule"]
    lines += [latex_line([text_of(row[column]) for column in columns]) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if caption:
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(caption)}}}",
            *lines,
            r"\end{table}",
        ]
    return "\n".join([r"% needs \usepackage{booktabs}", *lines]) + "\n"


def latex_escaped(text: str) -> str:
    r"""Return a text that LaTeX sets as it is.

    >>> print(latex_escaped("50 % of a_b"))
    50 \% of a\_b
    """
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], text)


def write_tables(
    directory: str | os.PathLike[str],
    tables: Mapping[str, Sequence[Mapping]],
    *,
    captions: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write each table that has rows as NAME.csv and NAME.tex, each file whole.

    A table of more than 200 rows, which no page of paper holds, is CSV alone.

    Args:
      directory: The folder, which is made if it does not exist.
      tables: Name -> rows.
      captions: Name -> the caption in LaTeX.

    Returns:
      The paths.

    Raises:
      ValueError: The keys of a table's rows differ.
    """
    texts = {}
    for name, rows in tables.items():
        if rows:
            caption = (captions or {}).get(name, "")
            texts[f"{name}.csv"] = csv_text(rows)
            if len(rows) <= MOST_LATEX_ROWS:
                texts[f"{name}.tex"] = latex_table(rows, caption=caption)
    paths = [Path(directory) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def csv_cell(value: object) -> object:
    """Return a value as a cell of CSV; None where no number stands."""
    if isinstance(value, str):
        return visible(value)
    # Nor one that is too large for a float, as whole numbers may be.
    missing = isinstance(value, numbers.Real) and not abs(value) <= sys.float_info.max
    return None if missing else value


def latex_line(cells: Sequence[str]) -> str:
    """Return a row of a LaTeX table."""
    line = " & ".join(latex_escaped(cell) for cell in cells) + r" \\"
    # LaTeX reads a bracket at the beginning of a row as the previous row's option.
    return "{}" + line if line.startswith("[") else line
