"""Files that are whole or not there: written aside, renamed, hashed, locked.

The only place that makes a temporary name and renames it. A temporary name is fresh and
opened exclusively, so nothing is written through a link that somebody left there.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUMS = "checksums.json"
"""The file of a folder that holds the SHA-256 of the folder's other files."""

WRITING = ".writing-"
"""What temporary names begin with."""

LOCK = ".lock"
"""The file of a folder that the process at work there holds locked."""


def write_whole(path: Path | str, write: Callable[[Path], Any]) -> None:
    """Have ``write(temporary)`` write a file, and give it the name ``path`` when whole.

    Args:
      path: Where the file is to stand; folders above it are made.
      write: Writes the file whose path it is given; it has the suffix of ``path``.

    Raises:
      OSError: The disk is full or the folder cannot be written; ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=WRITING, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~current_umask())  # mkstemp lets nobody else read
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` in UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all.

    JSON knows no NaN and no infinity: they are written as null.
    """
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, **settings) -> str:
    """Return ``value`` as JSON that every reader reads: null where no number stands.

    >>> json_text({"a": [1.5, float("nan")], "b": float("-inf")})
    '{"a": [1.5, null], "b": null}'
    """
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, **settings)


def finite(value: Any) -> Any:
    """Return ``value`` with None in place of every float that is no finite number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_arrays(path: Path | str, arrays: Mapping[str, Any]) -> None:
    """Write arrays and strings as an ``.npz``, whole or not at all.

    Each array has a checksum there, which ``numpy.load`` compares.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(path, write)


def read_arrays(path: Path | str, *, remedy: str) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote, all of it, each array by its checksum.

    Args:
      path: The file.
      remedy: What the user is to do where it is damaged; ends the message.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":  # what every .npz begins with
        raise ValueError(f"{path} is damaged, or no .npz file: {remedy}")
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            return dict(archive)
    except Exception as error:  # numpy and zipfile raise many kinds
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): {remedy}"
        ) from error


def write_tensors(
    path: Path | str, tensors: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write a ``.safetensors`` file, whole or not at all.

    Its library writes an array's memory as it lies; so each is first brought into the
    order of rows, and of this machine's bytes, where it is not.
    """
    from safetensors.numpy import save_file

    arrays = {name: row_by_row(array) for name, array in tensors.items()}
    write_whole(path, lambda temporary: save_file(arrays, temporary, dict(metadata)))


def row_by_row(array: Any) -> np.ndarray:
    """Return an array laid out row by row, in this machine's order of bytes."""
    array = np.asarray(array)
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def read_json(path: Path | str, *, infinity: bool = False) -> Any:
    """Read a JSON file; ``infinity`` as in :func:`parse_json`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is no JSON: the message names file, line and reason. A key
        that stands twice in one object and a NaN or Infinity are refused too.
    """
    path = Path(path)
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"), infinity=infinity)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON that can be read: {error}") from None


def parse_json(text: str, *, infinity: bool = False) -> Any:
    """Return what a JSON text holds, refusing what readers disagree on.

    Args:
      text: The text.
      infinity: Let NaN, Infinity and numbers beyond any float through, which the caller
        is to judge: Python's own writer writes them, and so do evaluation tools.

    Raises:
      ValueError: It is no JSON, is nested beyond reason, repeats a key, or holds NaN.
    """
    try:
        value = (LENIENT if infinity else DECODER).decode(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if nested_beyond(value, JSON_LEVELS):
        raise ValueError(TOO_DEEP)
    return value


def nested_beyond(value: Any, levels: int) -> bool:
    """Say whether lists and objects stand in one another more than so many deep."""
    inside: list[Any] = [[value]]
    for _ in range(levels + 1):
        inside = [
            one
            for held in inside
            for one in (held.values() if isinstance(held, dict) else held)
            if isinstance(one, list | dict)
        ]
        if not inside:
            return False
    return True


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; a key that stands twice is an error."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is no JSON number; write null")


def finite_float(digits: str) -> float:
    """Return a number of a JSON text; one that no float reaches would be infinity."""
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is larger than any float")
    return value


JSON_LEVELS = 100
TOO_DEEP = f"nested too deeply (more than {JSON_LEVELS} levels)"
DECODER = json.JSONDecoder(
    object_pairs_hook=unrepeated,
    parse_constant=refuse_constant,
    parse_float=finite_float,
)
LENIENT = json.JSONDecoder(object_pairs_hook=unrepeated)


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def within(directory: Path | str, path: Path | str) -> bool:
    """Say whether ``path`` lies below ``directory``, links followed."""
    return Path(path).resolve().is_relative_to(Path(directory).resolve())


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
    fresh = Path(tempfile.mkdtemp(prefix=WRITING, dir=out.parent))
    try:
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
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_umask() -> int:
    """Return the permissions that this process takes from files it makes."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def writable(directory: Path | str) -> None:
    """Make sure, before long work, that files can be written below a folder.

    Raises:
      OSError: They cannot; the message names the folder.
    """
    nearest = Path(directory).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise OSError(
            f"nothing can be written in {nearest} ({error.strerror}): choose another "
            f"folder, or make room and give yourself the right to write there"
        ) from None
