"""JSON files that describe: sealed with a hash of themselves, read field by field."""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxunlearn.files import (
    finite,
    json_text,
    parse_json,
    read_json,
    write_json,
    write_text,
)

T = TypeVar("T")

SEAL = "sha256"
"""The key of a sealed file's hash, which is over all its other keys."""


class UncheckedWarning(UserWarning):
    """What is read holds no hashes, so that damage to it cannot be seen."""


def write_sealed(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write an object as JSON with its own hash under ``SEAL``, whole or not at all."""
    # As it will be read: with lists for tuples and null where no number stands.
    plain = json.loads(json.dumps(finite(dict(value))))
    write_json(path, plain | {SEAL: seal_of(plain)})


def seal_of(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object, whatever the order and the layout of its keys.

    >>> seal_of({"a": 1, "b": None})[:12] == seal_of({"b": None, "a": 1})[:12]
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_sealed(
    path: Path | str,
    form: Callable[[dict[str, Any]], T] = dict,
    *,
    remedy: str,
    unsealed: Callable[[dict[str, Any]], bool] = lambda found: False,
    warn: bool = True,
) -> T:
    """Read what :func:`write_sealed` wrote.

    Args:
      path: The file.
      form: From what the file holds, without the seal, to what it means; raises a
        ValueError that names a wrong field, as :func:`typed` does.
      remedy: What the user is to do where it is damaged; ends the message.
      unsealed: Whether a file without a seal is one of an earlier version, which wrote
        none: it is read with an ``UncheckedWarning``.
      warn: Whether to warn of that.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: A field is unknown, missing, or of another type; the file is damaged,
        or was edited. The message names the file and, where it can, the field.
    """
    path = Path(path)
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        seal = found.pop(SEAL, None)
        value = form(dict(found))
        old = seal is None and unsealed(found)
        if not old and seal != seal_of(found):
            raise ValueError(
                "its hash is not that of its contents: a bit was lost, or it was edited"
            )
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    if old and warn:
        unchecked(path)
    return value


def write_sealed_lines(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write objects as JSON Lines, the last line the hash of those before."""
    text = "".join(json_text(row) + "\n" for row in rows)
    seal = json_text({SEAL: hashlib.sha256(text.encode()).hexdigest()})
    write_text(path, f"{text}{seal}\n")


def read_sealed_lines(
    path: Path | str, *, remedy: str, warn: bool = True
) -> list[dict[str, dict]]:
    """Read what :func:`write_sealed_lines` wrote, each line an object of objects.

    Lines of an earlier version, which wrote no hash, come with an ``UncheckedWarning``
    unless ``warn`` is false.

    Raises:
      ValueError: The file is damaged; names file, line and remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error.reason}): {remedy}") from error
    *lines, rest = text.split("\n")
    seal, rows = None, []
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            found = parse_json(line)
            if number == len(lines) and isinstance(found, dict) and [*found] == [SEAL]:
                seal = found[SEAL]
            else:
                rows.append(typed(found, dict[str, dict[str, Any]]))
        except ValueError as error:
            raise ValueError(
                f"{path}: line {number} is cut off or damaged ({error}): {remedy}"
            ) from error
    if seal is None and warn:
        unchecked(path)
    before = "".join(line + "\n" for line in lines[:-1])
    if seal not in (None, hashlib.sha256(before.encode()).hexdigest()):
        raise ValueError(
            f"{path} is damaged or was edited (the hash in its last line is not that "
            f"of the lines before): {remedy}"
        )
    return rows


def unchecked(path: Path | str) -> None:
    """Warn that an earlier version wrote no hashes for what is read."""
    warnings.warn(
        f"{path} was written without hashes: damage to it cannot be seen",
        UncheckedWarning,
        stacklevel=3,
    )


def typed(value: Any, wanted: Any, where: str = "", later: Collection[str] = ()) -> Any:
    """Return a value of JSON as a Python type, checked in all its parts.

    Args:
      value: What ``json`` read.
      wanted: bool, int, float, str, Path, Any; lists, tuples, dicts and optional values
        of them; a NamedTuple (a list in JSON) or a dataclass (an object).
      where: The field's name, for the message.
      later: Names of fields that a dataclass may lack, and then has by default.

    Raises:
      ValueError: Names the field.

    >>> typed([1, [2.5]], tuple[int, list[float] | None])
    (1, [2.5])
    """
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return value
    if wanted is Path:
        return Path(typed(value, str, where))
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (wanted,) = (one for one in inner if one is not type(None))
        return typed(value, wanted, where, later)
    if dataclasses.is_dataclass(wanted):
        return dataclass_of(value, wanted, where, later)
    if isinstance(wanted, type) and hasattr(wanted, "_fields"):
        return wanted(*items_of(value, typing.get_type_hints(wanted).values(), where))
    if origin is tuple and inner[-1:] != (...,):
        return items_of(value, inner, where)
    if origin in (tuple, list):
        if not isinstance(value, list):
            refuse(value, where, "a list")
        return origin(typed(x, inner[0], f"{where}[{i}]") for i, x in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            refuse(value, where, "an object")
        return {k: typed(x, inner[1], joined(where, k)) for k, x in value.items()}
    if wanted is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        refuse(value, where, NAMES[wanted])
    return value


NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def items_of(value: Any, wanted: Collection[Any], where: str) -> tuple:
    """Return a list of JSON as a tuple, each item as its own type."""
    if not isinstance(value, list) or len(value) != len(wanted):
        refuse(value, where, f"a list of {len(wanted)}")
    pairs = enumerate(zip(value, wanted, strict=True))
    return tuple(typed(x, kind, f"{where}[{i}]") for i, (x, kind) in pairs)


def dataclass_of(value: Any, wanted: Any, where: str, later: Collection[str]) -> Any:
    """Return an object of JSON as a dataclass; see :func:`typed`."""
    if not isinstance(value, dict):
        refuse(value, where, f"an object with the fields of {wanted.__name__}")
    names = [field.name for field in dataclasses.fields(wanted) if field.init]
    for name in value.keys() - set(names):
        near = difflib.get_close_matches(name, names, n=1)
        known = f"(meant: {near[0]}?)" if near else f"(known: {', '.join(names)})"
        raise ValueError(f"{joined(where, name)} is no field {known}")
    for name in names:
        if name not in value and name not in later:
            raise ValueError(f"the field {joined(where, name)} is missing")
    hints = typing.get_type_hints(wanted)
    fields = {k: typed(x, hints[k], joined(where, k), later) for k, x in value.items()}
    try:
        return wanted(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def joined(where: str, name: str) -> str:
    """Return a field's name with those of what holds it."""
    return f"{where}.{name}" if where else name


def refuse(value: Any, where: str, wanted: str) -> typing.NoReturn:
    """Say that a value is of another kind than it should be."""
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise ValueError(f"{where or 'it'} is {shown}, not {wanted}")
