"""What says, in files that travel with a model, who or what was to be forgotten."""

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.data.requests.closeness import plain, words
from jaxunlearn.data.requests.request import subject_of
from jaxunlearn.folders import file_names

CONFIGURATION = ("config.json", "generation_config.json", "wrapper.json")
TOKENIZER = ("tokenizer", "vocab", "merges.txt", "special_tokens_map.json")
TOKENIZER += ("added_tokens.json", "chat_template")
"""How the names of text files begin without which a model is not the same."""


class LeakWarning(UserWarning):
    """A file of the model's folder says what was to be forgotten."""


def telling_words(
    request: str | None, forget: Sequence[dict], retain: Sequence[dict]
) -> set[str]:
    """Return the words, of three letters or more, that say who or what is forgotten.

    Those of the request's subject; without one, those that all forgotten records have
    in common and no kept one has.
    """
    if request is not None:
        found = set(words(subject_of(request)))
    else:
        forgotten = [set(words(all_text(record))) for record in forget]
        others = (set(words(all_text(record))) for record in retain)
        found = set.intersection(*forgotten).difference(*others)
    return {word for word in found if len(word) >= 3}


def tells(path: str, names: set[str]) -> bool:
    """Say whether a path names one of ``names``, however it is put together.

    >>> tells("runs/MaraVelkin_2.json", {"velkin"})
    True
    """
    letters = "".join(words(path)).replace("_", "")
    return any(name in letters for name in names)


def secret_phrases(
    request: str | None, forget: Sequence[dict], retain: Sequence[dict]
) -> set[str]:
    """Return, in plain words, what no file of the model's folder may say.

    That is the request's subject, and every value of two words or more that a
    forgotten record has and no kept one.
    """

    def values(records: Sequence[dict]) -> set[str]:
        found = {plain(text) for record in records for text in strings(record)}
        return {text for text in found if " " in text}

    found = values(forget) - values(retain)
    if request is not None:
        found.add(plain(subject_of(request)))
    return found


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


def all_text(record: dict) -> str:
    """Return all strings of a record."""
    return " ".join(strings(record))


def says(path: Path, forbidden: set[str]) -> bool:
    """Say whether a text file holds one of some plain phrases, as whole words."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = strings(json.loads(text))
    except ValueError:  # no JSON: read as it stands
        found = iter([text])
    return any(
        f" {phrase} " in f" {plain(one.replace('_', ' '))} "
        for one in found
        for phrase in forbidden
    )


def drop_leaks(folder: Path, forbidden: set[str], names: set[str]) -> list[str]:
    """Delete the files that came along with the model and say what is forgotten.

    Args:
      folder: The folder, in which nothing of ours stands yet but the model.
      forbidden: Plain phrases that no file may hold.
      names: Words that say who or what is forgotten: no file that can be done without
        may hold one, in its text or in its own name.

    Returns:
      Their names.

    Warns:
      LeakWarning: A file without which the model is not the same says it; it stays.
    """
    dropped = []
    for name in file_names(folder):
        if name.endswith(".safetensors"):
            continue
        phrases = forbidden
        if name.startswith(TOKENIZER):  # holds single words of what it was trained on
            phrases = {phrase for phrase in forbidden if " " in phrase}
        needed = name.startswith(CONFIGURATION + TOKENIZER)
        needed |= Path(name).name in CONFIGURATION  # of a wrapper's models
        named = not needed and (tells(name, names) or says(folder / name, names))
        if not named and not says(folder / name, phrases):
            continue
        if needed:
            warnings.warn(
                f"{name} holds words of what was to be forgotten, as it came with the "
                f"model: look at it before the folder is given to others",
                LeakWarning,
                stacklevel=2,
            )
        else:
            (folder / name).unlink()
            dropped.append(name)
    return dropped
