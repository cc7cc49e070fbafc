"""Folders that are whole or not there: swapped in one step, their files hashed."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from jaxunlearn.files import (
    WRITING,
    current_umask,
    read_json,
    sha256_of,
    sync,
    write_json,
)
from jaxunlearn.locks import LOCK

CHECKSUMS = "checksums.json"
"""The file of a folder that holds the SHA-256 of the folder's other files."""


@contextlib.contextmanager
def replaced_folder(out: Path | str) -> Iterator[Path]:
    """Give a fresh folder to fill, which takes the place of ``out`` when it is whole.

    Whatever fails or is killed inside, ``out`` holds either all that it held before or
    all that was written. What stood there is kept until the new folder stands.

    Yields:
      The folder to fill, beside ``out`` (so on the same disk).
    """
    out = Path(out).absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    previous = out.with_name(f".{out.name}.previous")
    if previous.exists() and not out.exists():
        os.rename(previous, out)  # killed between the two renames below
    sweep_dead(out.parent)
    with held_folder(out.parent) as fresh, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, fresh, ignore_errors=True)
        yield fresh
        fresh.chmod(0o777 & ~current_umask())
        for name in file_names(fresh):
            sync(fresh / name)
        if not exchanged(fresh, out):
            shutil.rmtree(previous, ignore_errors=True)
            if out.exists():
                os.rename(out, previous)
            os.rename(fresh, out)
            shutil.rmtree(previous, ignore_errors=True)


@contextlib.contextmanager
def held_folder(parent: Path) -> Iterator[Path]:
    """Give a fresh folder with a temporary name, locked while this process lives."""
    while True:
        fresh = Path(tempfile.mkdtemp(prefix=WRITING, dir=parent))
        # Another process may sweep it before it is locked: then the next one is ours.
        try:
            descriptor = os.open(fresh, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if fresh.exists():
            break
        os.close(descriptor)
    try:
        yield fresh
    finally:
        os.close(descriptor)


def sweep_dead(parent: Path) -> None:
    """Delete the temporary folders in ``parent`` whose writers do not live any more.

    What is written there at this time by others is held by them, and stays.
    """
    for path in parent.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError):  # held, or gone
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def sweep(directory: Path | str) -> None:
    """Delete what killed writers left below a folder; nobody else may write there."""
    for path in sorted(Path(directory).rglob(f"{WRITING}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def exchanged(one: Path, other: Path) -> bool:
    """Give two folders each other's names in one step, and say whether that was done.

    It is where both stand, on Linux and most of its file systems.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = [os.fsencode(one), os.fsencode(other)]
    return rename is not None and not rename(here, names[0], here, names[1], exchange)


def write_checksums(
    directory: Path | str, names: Collection[str] | None = None
) -> None:
    """Write ``checksums.json`` into a folder: the SHA-256 of files below it.

    Args:
      directory: The folder.
      names: The files, by relative path; None is all of them.
    """
    directory = Path(directory)
    names = file_names(directory) if names is None else sorted(names)
    found = {name: sha256_of(directory / name) for name in names}
    write_json(directory / CHECKSUMS, {"sha256": found})


def named_checksums(directory: Path | str) -> set[str]:
    """Return the files that a folder's ``checksums.json`` names; none without one."""
    return set(read_checksums(Path(directory), "restore it, or delete it"))


def check_checksums(
    directory: Path | str, *, remedy: str, only: Callable[[str], bool] | None = None
) -> bool:
    """Compare the files below a folder with its ``checksums.json``.

    Args:
      directory: The folder.
      remedy: What the user is to do where a file is damaged; ends the message.
      only: Says by relative path which of the files that it names are compared; None
        compares all.

    Returns:
      Whether there was a ``checksums.json``; files that it does not name are not looked
      at, so that a user may add some.

    Raises:
      ValueError: A file that it names is missing, or is not the one that was written.
    """
    directory = Path(directory)
    for name, expected in read_checksums(directory, remedy).items():
        file = directory / name
        if only is not None and not only(name):
            continue
        if not file.is_file():
            raise ValueError(f"{file} is missing: {remedy}")
        if sha256_of(file) != expected:
            raise ValueError(
                f"{file} is damaged or was changed (its SHA-256 is not the one in "
                f"{CHECKSUMS}): {remedy}"
            )
    return (directory / CHECKSUMS).exists()


def read_checksums(directory: Path, remedy: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a folder's ``checksums.json`` names."""
    path = directory / CHECKSUMS
    if not path.exists():
        return {}
    written = read_json(path)
    written = written.get("sha256") if isinstance(written, dict) else None
    if not isinstance(written, dict):
        raise ValueError(f"{path} is damaged: {remedy}")
    for name in written:
        # By its letters: a file itself may be a link, as in the hub's cache.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{path} names {name!r}, outside its folder: {remedy}")
    return written


def file_names(directory: Path) -> list[str]:
    """Return the files below a folder by relative path, without checksums and lock."""
    found = (path.relative_to(directory) for path in directory.rglob("*"))
    return sorted(
        name.as_posix()
        for name in found
        if name.name not in (CHECKSUMS, LOCK) and (directory / name).is_file()
    )
