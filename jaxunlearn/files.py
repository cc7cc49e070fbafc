"""Files that are whole or not there: written aside, renamed, hashed.

The only place that makes a file's temporary name and renames it (``folders.py`` does so
for folders). A temporary name is fresh and opened exclusively, so nothing is written
through a link that somebody left there.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

WRITING = ".writing-"
"""What temporary names begin with."""


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


def within(directory: Path | str, path: Path | str) -> bool:
    """Say whether ``path`` lies below ``directory``, links followed."""
    return Path(path).resolve().is_relative_to(Path(directory).resolve())


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
