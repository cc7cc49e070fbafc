"""Folders and files that one process alone works on: its lock ends with it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxunlearn.files import writable

LOCK = ".lock"
"""The file of a folder that the process at work there holds locked."""


@contextlib.contextmanager
def locked(directory: Path | str) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process.

    The folder is made if it is not there, and is gone again if nothing came into it.

    Raises:
      ValueError: Another process holds it; the message names that process.
      OSError: Nothing can be written there.
    """
    directory = Path(directory)
    writable(directory)
    above = [directory, *directory.absolute().parents]
    made = [folder for folder in above if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with held(directory / LOCK, directory):
            yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


@contextlib.contextmanager
def locked_file(path: Path | str) -> Iterator[None]:
    """Hold a file that is to be written, as :func:`locked` holds a folder."""
    path = Path(path)
    writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name[:80]}.lock"), path):
        yield


@contextlib.contextmanager
def held(lock: Path, of: Path) -> Iterator[None]:
    """Hold ``lock``, the lock file of ``of``, and delete it afterwards."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.ExitStack() as stack:
        while True:
            descriptor = os.open(lock, flags, 0o666)
            file = stack.enter_context(os.fdopen(descriptor, "r+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = file.read().strip() or "another process"
                raise ValueError(
                    f"{of} is in use by {holder}: wait until it has ended, stop it, or "
                    f"choose another place"
                ) from None
            if same_file(file, lock):  # else its holder deleted it in between
                break
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if same_file(file, lock):
                lock.unlink()


def same_file(file: Any, path: Path) -> bool:
    """Say whether an open file is the one that has the name ``path`` now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
