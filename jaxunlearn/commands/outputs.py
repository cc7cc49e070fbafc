"""The files that a command writes: refused before the work, not after it."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jaxunlearn.files import read_json, writable


def check_output(
    option: str,
    path: Path | None,
    suffix: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    kind: str | None = None,
    ours: Callable[[Any], bool] | None = None,
) -> None:
    """Refuse a file that could not be written once the work is done, or should not be.

    Args:
      option: What the path was given by, without dashes.
      path: The file; None is nothing to check.
      suffix: What its name must end in.
      inputs: Option -> path or paths that the command reads; it may be none of them.
      kind: What the command writes, "scores" say: a file that is there is replaced
        only if it is of this kind, by its own word or that of ``ours``; None replaces
        any.
      ours: Says of JSON whether it is of this kind.

    Raises:
      ValueError: It is a folder, an input, another's file, or of another kind; or
        nothing can be written there.
    """
    if path is None:
        return
    if path.suffix != suffix:
        raise ValueError(f"--{option} {path}: must end in {suffix}, a {suffix} file")
    if path.is_dir():
        raise ValueError(f"--{option} {path} is a directory: name a file")
    for other, given in (inputs or {}).items():
        for one in paths_of(given):
            if same(path, one):
                raise ValueError(
                    f"--{option} {path} is the file of --{other}, which would be lost: "
                    f"name another"
                )
    if kind is not None and path.exists():
        if not readable_as(path, ours or is_form(f"jaxunlearn {kind}")):
            raise ValueError(
                f"--{option} {path} is no {kind} file, or damaged: name another"
            )
    check_folder(option, path.parent)


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder in which nothing could be written."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--{option} {folder} is a file: name a directory")
    try:
        writable(folder)
    except OSError as error:
        raise ValueError(f"--{option} {folder}: {error}") from error


def readable_as(path: Path, ours: Callable[[Any], bool]) -> bool:
    """Say whether a file holds JSON that ``ours`` knows."""
    try:
        return ours(read_json(path, infinity=True))
    except ValueError:
        return False


def is_form(form: str) -> Callable[[Any], bool]:
    """Return the check that a file says of itself that it is of a form."""

    def check(value: Any) -> bool:
        about = value.get("about") if isinstance(value, dict) else None
        return isinstance(about, dict) and about.get("format") == form

    return check


def paths_of(given: Any) -> Iterable[str | Path]:
    """Return the paths of an option that takes none, one or several."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str | Path) else given


def same(one: str | Path, other: str | Path) -> bool:
    """Say whether two names are of one file, links followed."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return Path(one).absolute() == Path(other).absolute()


OUTPUTS = ("out", "page", "retrained", "write_logs", "keep_texts")
"""Options that name what a command writes."""


def check_outputs(values: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Make sure, before any work, that what a command is to write can be written.

    Raises:
      OSError: A disk is full, or a folder cannot be written; names the option.
    """
    for holder in [*values, SimpleNamespace(**named)]:
        for name in OUTPUTS:
            path = getattr(holder, name, None)
            if not isinstance(path, Path):
                continue
            try:
                writable(path.parent if path.is_file() else path)
            except OSError as error:
                option = name.replace("_", "-")
                raise OSError(f"--{option} {path}: {error}") from error
