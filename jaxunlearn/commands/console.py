"""What the subcommands show while they work."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jaxunlearn.report.kit.tables import visible

# What is printed is data: brackets and colons in a folder's name mean nothing.
console = Console(markup=False, emoji=False)

FIRST_LINE, LINE_EVERY = 5.0, 30.0
"""Seconds to the first line of progress, and between two, where no terminal is."""


def say(text: str) -> None:
    """Print a text as it is: no signs in it are markup, none command the terminal."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar; yields ``update(done, note="", total=total)``.

    Into a file or a pipe goes a line now and then instead.
    """
    if not console.is_terminal:
        yield progress_lines(title, total)
        return
    columns = (
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(done: int, note: str = "", total: int = total) -> None:
            bar.update(task, completed=done, note=note, total=total)

        yield update


def progress_lines(
    title: str, total: int, *, clock: Callable[[], float] = time.monotonic
) -> Callable[..., None]:
    """Return an ``update`` that prints a line after 5 s and then every 30 s.

    How long the rest takes is told from the second update of a stage on: what comes
    before the first one is compilation for the most part, and does not come again.
    """
    started, last = clock(), 0
    first: tuple[int, float] | None = None
    due = started + FIRST_LINE

    def update(done: int, note: str = "", total: int = total) -> None:
        nonlocal due, started, last, first
        now = clock()
        if done < last:  # a new stage
            started, first = now, None
        last = done
        if first is None and done:
            first = done, now
        if now < due:
            return
        due = now + LINE_EVERY
        seconds = now - started
        left = ""
        if first is not None and done > first[0]:
            each = (now - first[1]) / (done - first[0])
            left = f", about {each * (total - done):.0f} s left"
        told = f"{title}: {done} of {total} after {seconds:.0f} s{left}"
        console.print(f"{told}. {note}".removesuffix(". "))

    return update


@contextlib.contextmanager
def stages_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for work in stages; yields ``update(done, total)``.

    Each stage begins anew, with a total of its own.
    """
    with progress_bar(title, 1) as update:
        yield lambda done, total: update(done, total=max(total, done))


@contextlib.contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done; yields ``update(text)``.

    Into a file or a pipe goes the title, and then a text now and then.
    """
    if not console.is_terminal:
        console.print(f"{title} ...")
        due = time.monotonic() + LINE_EVERY

        def tell(text: str) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + LINE_EVERY
                console.print(text)

        yield tell
        return
    with console.status(Text(title)) as status:
        yield lambda text: status.update(Text(text))


@contextlib.contextmanager
def steps_shown() -> Iterator[Callable[[Any], None]]:
    """Show the progress of a method: a bar where the steps are known beforehand."""
    with contextlib.ExitStack() as stack:
        updates: dict[str, Any] = {}

        def tell(progress: Any) -> None:
            if progress.doing not in updates:
                stack.pop_all().close()
                updates.clear()
                begin = working if progress.total is None else progress_bar
                given = () if progress.total is None else (progress.total,)
                updates[progress.doing] = stack.enter_context(
                    begin(progress.doing, *given)
                )
            if progress.total is not None:
                updates[progress.doing](progress.step)
                return
            loss = "" if progress.forget is None else f": loss {progress.forget:.3f}"
            updates[progress.doing](f"{progress.doing}, step {progress.step}{loss}")

        yield tell
