"""What a field of a record may hold: checks whose errors name it."""

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LETTERS = string.ascii_uppercase


def text(record: Mapping[str, Any], field: str, *, blank: bool = False) -> str:
    """Return a field's text, which is not blank unless it may be."""
    return checked(field, record[field], blank)


def checked(field: str, value: Any, blank: bool = False) -> str:
    """Return a value that is text.

    Raises:
      ValueError: It is none, or blank though it may not be; names the field.
    """
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} must be a string, got {shown(value)}")
    if not value.strip() and not blank:
        raise ValueError(f"field {field!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell what UTF-8 cannot
        raise ValueError(f"field {field!r} holds half a surrogate pair") from error
    return value


def texts(field: str, values: Any) -> list[str]:
    """Return values that are a list of texts, or says in which field they are not."""
    if not isinstance(values, list | tuple):
        raise ValueError(
            f"field {field!r} must be a list of strings, got {shown(values)}"
        )
    return [checked(f"{field}[{i}]", value) for i, value in enumerate(values)]


def holds_text(value: Any) -> bool:
    """Say whether a value is or holds a string with a letter."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(holds_text, value))
    return isinstance(value, str) and any(map(str.isalpha, value))


def flat(value: Any) -> str:
    """Return the text of a value, of messages what they say."""
    if isinstance(value, dict):
        value = value.get("content", value.get("value", value.get("text", "")))
        return flat(value)
    if isinstance(value, list | tuple):
        return " ".join(map(flat, value))
    return "" if value is None else str(value)


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    return f"{type(value).__name__} {value!r:.60}"


def listed(names: Iterable[object]) -> str:
    """Return names as a message shows them, the first dozen."""
    first = [f"{name!s:.60}" for name in names]
    return ", ".join(first[:12] + ["..."] * (len(first) > 12)) or "none"


def short_repr(value: Any) -> str:
    """Return a value as a message shows it, its first 200 letters."""
    return repr(value) if len(repr(value)) <= 200 else repr(value)[:200] + "..."


def choices_and_answer(
    record: Mapping[str, Any], fields: Sequence[str]
) -> tuple[list[str], int]:
    """Return the choices of a record and the index of the right one.

    Args:
      record: A record of a question of multiple choice.
      fields: Its fields: the question, ``choices`` or one field a choice, the answer.

    Raises:
      ValueError: Choices are no texts, or the answer is none of them; names the field.
    """
    answer = record["answer"]
    if "choices" in fields:
        choices = texts("choices", record["choices"])
        if not 2 <= len(choices) <= len(LETTERS):
            raise ValueError(
                f"field 'choices' must hold 2 to {len(LETTERS)} strings, "
                f"got {len(choices)}"
            )
        if not isinstance(answer, int) or isinstance(answer, bool):
            raise ValueError(f"field 'answer' must be an integer, got {shown(answer)}")
        if not 0 <= answer < len(choices):
            raise ValueError(
                f"field 'answer' must be in 0..{len(choices) - 1}, got {answer!r:.60}"
            )
        return choices, answer
    fields = fields[1:-1]
    choices = [text(record, field) for field in fields]
    answer = text(record, "answer")
    # Copies differ in what they store: the option itself, its field or its letter.
    for names in (choices, list(fields), list(LETTERS[: len(fields)])):
        if answer in names:
            return choices, names.index(answer)
    raise ValueError(f"field 'answer' must be one of the options, got {shown(answer)}")
