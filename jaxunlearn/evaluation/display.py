"""How long work tells what it does: nothing here, on a console what commands say."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple


class Display(NamedTuple):
    """Where work tells of itself.

    Attributes:
      line: Takes a line that stays.
      working: Takes a title and gives a context of work in progress, whose value takes
        what is being done.
      spelled: Takes a text of ours that names arguments, and gives the reader's.
      bar: Takes a title and gives a context of counted work, whose value takes
        ``(done, note, total=total)``.
    """

    line: Callable[[str], None]
    working: Callable[[str], AbstractContextManager[Callable[[str], None]]]
    spelled: Callable[[str], str]
    bar: Callable[[str], AbstractContextManager[Callable[..., None]]]


@contextlib.contextmanager
def quiet(_title: str) -> Iterator[Callable[..., None]]:
    """Give a context that tells nothing."""
    yield lambda *_args, **_kwargs: None


SILENT = Display(lambda _text: None, quiet, lambda text: text, quiet)
