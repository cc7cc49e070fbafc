"""Tables that an experiment keeps in a Markdown file, between two marks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.files import write_text


def write_table(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows in place of what stands from ``<!-- name -->`` to ``<!-- /name -->``.

    Raises:
      ValueError: The file has no such marks.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(r.values()) for r in rows)]
    table = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{path} has no place for the table: {start!r} to {end!r}")
    write_text(path, pattern.sub(lambda _: start + table + end, text))
