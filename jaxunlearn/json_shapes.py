"""What a value of JSON must hold, told as a value of Python and checked part by part.

A shape is ``str``; ``float``, a number or null; ``bool``; ``[shape]``, a list;
``(shape, shape)``, a list of just these; ``{str: shape}``, an object with any names; an
object of names, of which those that end in "?" may be absent or null and any others are
let through; None, anything.
"""

import reprlib
import sys
from typing import Any

LONGEST = 60
"""Letters of a wrong value that a message shows."""


def check(value: Any, shape: Any, where: str) -> None:
    """Check a JSON value against a shape; the error names the part that is wrong.

    Args:
      value: What ``json`` read.
      shape: What it must be.
      where: The file's name, which begins the message.

    Raises:
      ValueError: Names the part, what it is, and what was expected.

    >>> check({"a": [1, "b"]}, {"a": [float]}, "file")
    Traceback (most recent call last):
    ValueError: file: a: 1: 'b' where a number was expected
    """
    if shape is None:
        return
    if isinstance(shape, list):
        expect(isinstance(value, list), value, "a list", where)
        for position, item in enumerate(value):
            check(item, shape[0], f"{where}: {position}")
    elif isinstance(shape, tuple):
        fits = isinstance(value, list) and len(value) == len(shape)
        expect(fits, value, f"a list of {len(shape)}", where)
        for position, (item, inner) in enumerate(zip(value, shape, strict=True)):
            check(item, inner, f"{where}: {position}")
    elif isinstance(shape, dict):
        expect(isinstance(value, dict), value, "an object", where)
        check_object(value, shape, where)
    elif shape is float:
        expect(value is None or is_number(value), value, "a number", where)
    else:
        name = {str: "a text", bool: "true or false"}[shape]
        expect(isinstance(value, shape), value, name, where)


def check_object(value: dict, shape: dict, where: str) -> None:
    """Check the parts of an object."""
    if str in shape:
        for name, item in value.items():
            check(item, shape[str], f"{where}: {name}")
        return
    for name, inner in shape.items():
        key = name.removesuffix("?")
        if name.endswith("?") and value.get(key) is None:
            continue
        if key not in value:
            raise ValueError(f"{where}: has no {key!r}")
        check(value[key], inner, f"{where}: {key}")


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a float can hold; true is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def expect(condition: bool, value: Any, expected: str, where: str) -> None:
    """Refuse a value that is not what was expected."""
    if not condition:
        text = reprlib.repr(value)
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        raise ValueError(f"{where}: {text} where {expected} was expected")
