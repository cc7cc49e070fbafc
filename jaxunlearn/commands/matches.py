"""The records that a request means, shown before work begins."""

from jaxunlearn.commands.console import console
from jaxunlearn.commands.removal import Found
from jaxunlearn.data import record_text
from jaxunlearn.report import console_table

SHOWN, SHOWN_LETTERS = 12, 90
"""Matches that are shown before work begins, and letters of each."""


def show_matches(found: Found, *, full: bool) -> None:
    """List what is to be forgotten, with scores; in full, or enough to recognise it."""
    rows = [
        {"record": m.index, "score": f"{m.score:.2f}", "text": m.text}
        for m in found.matches
    ]
    title = f"{len(rows)} training records match"
    if not rows:
        rows = [
            {"record": i, "text": record_text(r)} for i, r in enumerate(found.records)
        ]
        title = f"{len(rows)} records to forget"
    if not full:
        rows = [row | {"text": shortened(row["text"])} for row in rows[:SHOWN]]
    console.print(console_table(rows, title=title))
    more = len(found.records) - len(rows)
    if more > 0:
        console.print(f"... and {more} more; --list-matches shows all of them in full.")


def shortened(text: str) -> str:
    """Return a text on one line, cut with an ellipsis where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "…"
