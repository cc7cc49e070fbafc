"""What the subcommands show while they work."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar; yields ``update(done, note="", total=total)``."""
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(done: int, note: str = "", total: int = total) -> None:
            bar.update(task, completed=done, note=note, total=total)

        yield update


@contextlib.contextmanager
def stages_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for work in stages; yields ``update(done, total)``.

    Each stage begins anew, with a total of its own.
    """
    with progress_bar(title, 1) as update:
        yield lambda done, total: update(done, total=max(total, done))
