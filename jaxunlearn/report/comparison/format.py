"""The files that runs leave behind: which forms there are, and what each must hold.

A shape describes JSON: `str`; `float`, a number or null; `bool`; `[shape]`, a list;
`(shape, shape)`, a list of just these; `{str: shape}`, an object with any names; an
object of names, of which those that end in "?" may be absent or null and any others are
let through; None, anything.
"""

import json
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxunlearn.files import parse_json
from jaxunlearn.sealed import SEAL, read_sealed_lines, seal_of

FORMS = {
    "scores": "scores.json",
    "attack": "attack.json",
    "unlearning": "unlearning.json",
    "losses": "losses.jsonl",
}
"""The forms of a run's files, with the name that each has in a run's directory."""

TRAINING_RUN = "run.json"
"""Beside the others in the directory of a training run; says how it was trained."""

_ABOUT = {"versions?": {str: None}}
_INTERVALS = {str: [float]}
_INTERVAL = {"value": float, "low?": float, "high?": float}
_MODEL = {"name?": str, "count?": float, "scores": {str: float}}
_CURVES = {str: [{"x": None, "value": float, "low?": float, "high?": float}]}
SHAPES: Mapping[str, Any] = {
    "scores": {
        "about?": _ABOUT,
        "intervals?": _INTERVALS,
        "reference?": {**_MODEL, "intervals?": _INTERVALS},
        "original?": _MODEL,
        "losses?": {str: [float]},
        "membership?": {
            str: {
                "forget": [float],
                "holdout": [float],
                "auc?": float,
                "tpr_at_1_fpr?": float,
                "auc_interval?": [float],
                "tpr_interval?": [float],
            }
        },
        "examples?": [
            {
                "set": str,
                "prompt": str,
                "truth": str,
                "answers?": {str: str},
                "tokens?": {str: [(str, float)]},
            }
        ],
        "layers?": [{"layer": str}],
        "curves?": {str: [{"step": float}]},
        "retraining?": {
            "distance?": {str: {"z?": float, "p_value?": float}},
        },
        "cost?": {"seconds?": {str: float}, "peak_bytes?": float, "flops?": float},
        "not_computed?": {str: str},
        "counts?": {str: {"used": float, "left_out": float}},
        "notes?": {str: str},
    },
    "attack": {
        "about?": _ABOUT,
        "attacks": [
            {
                "name": str,
                "x": str,
                "metric": str,
                "higher_is_recovered?": bool,
                "curves": _CURVES,
                "excess?": _INTERVAL,
                "added?": _INTERVAL,
                "recovers?": bool,
                "note?": str,
            }
        ],
        "not_run?": {str: str},
    },
    "unlearning": {
        "trials": [{"scale": float, "forget": float, "retain": float}],
        "losses?": {"before": {str: float}, "after": {str: float}},
        "versions?": {str: None},
    },
    "run": {"recipe?": {}, "versions?": {str: None}},
}


def read_form(path: Path, form: str | None = None) -> tuple[str, Any]:
    """Reads a file and checks it.

    Args:
        path: The file.
        form: Which form it has; None finds out from its contents.

    Returns:
        The form and the contents; those of losses are a list of objects.

    Raises:
        ValueError: It is not JSON, has no known form, or a part of it has the wrong
            shape; the message names the file and the line or part.
    """
    if form == "losses" or (form is None and path.suffix == ".jsonl"):
        return "losses", _read_lines(path)
    value = _parse(_text(path), path, 1)
    form = form or _form_of(value, path)
    check(value, SHAPES[form], str(path))
    seal = value.pop(SEAL, None)
    if seal is not None and seal != seal_of(value):
        raise ValueError(
            f"{path} is damaged (its hash is not that of its contents: a bit was lost, "
            f"or it was edited): make it again"
        )
    return form, value


def check(value: Any, shape: Any, where: str) -> None:
    """Checks a JSON value against a shape; the error names the part that is wrong.

    >>> check({"a": [1, "b"]}, {"a": [float]}, "file")
    Traceback (most recent call last):
    ValueError: file: a: 1: 'b' where a number was expected
    """
    if shape is None:
        return
    if isinstance(shape, list):
        _expect(isinstance(value, list), value, "a list", where)
        for position, item in enumerate(value):
            check(item, shape[0], f"{where}: {position}")
    elif isinstance(shape, tuple):
        fits = isinstance(value, list) and len(value) == len(shape)
        _expect(fits, value, f"a list of {len(shape)}", where)
        for position, (item, inner) in enumerate(zip(value, shape, strict=True)):
            check(item, inner, f"{where}: {position}")
    elif isinstance(shape, dict):
        _expect(isinstance(value, dict), value, "an object", where)
        if str in shape:
            for name, item in value.items():
                check(item, shape[str], f"{where}: {name}")
            return
        for name, inner in shape.items():
            key = name.removesuffix("?")
            optional = name.endswith("?")
            if optional and value.get(key) is None:
                continue
            if key in value:
                check(value[key], inner, f"{where}: {key}")
            else:
                raise ValueError(f"{where}: has no {key!r}")
    elif shape is float:
        _expect(value is None or is_number(value), value, "a number", where)
    else:
        name = {str: "a text", bool: "true or false"}[shape]
        _expect(isinstance(value, shape), value, name, where)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold; true is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _expect(condition: bool, value: Any, expected: str, where: str) -> None:
    if not condition:
        text = reprlib.repr(value)
        text = text if len(text) <= 60 else text[:59] + "…"
        raise ValueError(f"{where}: {text} where {expected} was expected")


def _form_of(value: Any, path: Path) -> str:
    if isinstance(value, dict):
        about = value.get("about")
        stated = about.get("format") if isinstance(about, dict) else None
        for form in ("scores", "attack"):
            if stated == f"jaxunlearn {form}":
                return form
        if stated is None:
            if "attacks" in value:
                return "attack"
            if "trials" in value:
                return "unlearning"
            if any(map(is_number, value.values())):
                return "scores"
    raise ValueError(
        f"{path} is no file of a run: scores (`jaxunlearn evaluate`), attacks "
        f"(`jaxunlearn attack`), unlearning.json and losses.jsonl can be read"
    )


def _read_lines(path: Path) -> list[dict]:
    """The objects {"loss": {...}} and {"evaluation": {...}} of a training run."""
    rows = read_sealed_lines(path, remedy="train again", warn=False)
    for number, row in enumerate(rows, 1):
        check(row, {str: {"step": float}}, f"{path}: line {number}")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {error.start}): it is no file of a run"
        ) from error


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(
            f"{path}: line {line} is not JSON ({error.msg}): the file is cut off or "
            f"damaged; make it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}: make it again") from error
