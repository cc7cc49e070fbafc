"""The files that runs leave behind: which forms there are, and what each must hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.attacks.file import ATTACK_SHAPE
from jaxunlearn.evaluation.suite.file import SCORES_SHAPE
from jaxunlearn.files import parse_json
from jaxunlearn.json_shapes import check, is_number
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

SHAPES: Mapping[str, Any] = {
    "scores": SCORES_SHAPE,
    "attack": ATTACK_SHAPE,
    "unlearning": {
        # The multiple of the one direction that was gone, 0 where none was; null of a
        # method that takes several steps.
        "scale?": float,
        "trials": [{"scale": float, "forget": float, "retain": float}],
        "losses?": {"before": {str: float}, "after": {str: float}},
        "versions?": {str: None},
    },
    "run": {"recipe?": {}, "versions?": {str: None}},
}


def read_form(path: Path, form: str | None = None) -> tuple[str, Any]:
    """Read a file and check it.

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
        return "losses", read_lines(path)
    value = parse(text_in(path), path, 1)
    form = form or form_of(value, path)
    check(value, SHAPES[form], str(path))
    seal = value.pop(SEAL, None)
    if seal is not None and seal != seal_of(value):
        raise ValueError(
            f"{path} is damaged (its hash is not that of its contents: a bit was lost, "
            f"or it was edited): make it again"
        )
    return form, value


def form_of(value: Any, path: Path) -> str:
    """Return the form of a file by what it holds; refuse what has none."""
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


def read_lines(path: Path) -> list[dict]:
    """Return the objects {"loss": ...} and {"evaluation": ...} of a training run."""
    rows = read_sealed_lines(path, remedy="train again", warn=False)
    for number, row in enumerate(rows, 1):
        check(row, {str: {"step": float}}, f"{path}: line {number}")
    return rows


def text_in(path: Path) -> str:
    """Return the text of a file; refuse what is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {error.start}): it is no file of a run"
        ) from error


def parse(text: str, path: Path, first_line: int) -> Any:
    """Return the JSON of a text; an error names the file and the line."""
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
