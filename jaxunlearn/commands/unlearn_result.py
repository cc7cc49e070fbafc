"""What ``jaxunlearn unlearn`` leaves behind: one folder, swapped whole, without texts.

``unlearning.json`` and the model card hold positions, hashes, counts and losses. What
was forgotten and who asked for it stands in no file of the folder; ``--keep-texts``
writes it elsewhere.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.commands.outputs import check_output
from jaxunlearn.commands.removal import RESULT, Found, Removal
from jaxunlearn.commands.unlearn_options import READS, Options
from jaxunlearn.data.requests.closeness import plain, words
from jaxunlearn.data.requests.request import subject_of
from jaxunlearn.files import within, write_json, write_text
from jaxunlearn.folders import (
    file_names,
    named_checksums,
    replaced_folder,
    write_checksums,
)
from jaxunlearn.locks import LOCK
from jaxunlearn.provenance import data_hash

PATHS = ("model", "retain", "run", "data", "unseen")
"""Options that name files, in whose names a person may be named."""

CONFIGURATION = ("config.json", "generation_config.json")
TOKENIZER = ("tokenizer", "vocab", "merges.txt", "special_tokens_map.json")
TOKENIZER += ("added_tokens.json", "chat_template")
"""How the names of text files begin without which a model is not the same."""


CARD = "README.md"
"""The model card."""


class LeakWarning(UserWarning):
    """A file of the model's folder says what was to be forgotten."""


def check_places(options: Options) -> None:
    """Refuse places in which something that is needed would be overwritten.

    Raises:
      ValueError: ``out`` is, holds or lies in the model or the run; or it is a file or
        in use; or the file for the texts lies in it or exists.
    """
    out = Path(options.out)
    sources = {"model": options.model, "run": options.run}
    for name, place in sources.items():
        if place is None or not Path(place).exists():
            continue
        if within(place, out) or within(out, place):
            raise ValueError(
                f"out={out} and {name}={place} are, or lie in, one folder: choose an "
                f"--out apart from it, so that nothing of it is overwritten"
            )
    check_vacant(out, overwrite=options.overwrite)
    texts = options.keep_texts
    if texts is None:
        return
    for name, place in {"out": out, **sources}.items():
        if place is not None and within(place, texts):
            raise ValueError(
                f"keep_texts={texts} lies in {name}={place}: choose a file elsewhere, "
                f"so that the texts do not travel with the model"
            )
    inputs = {n: getattr(options, n) for n in ("forget", "retain", "unseen", "data")}
    check_output("keep-texts", texts, ".json", inputs=inputs)
    if texts.exists() and not options.overwrite:
        raise ValueError(
            f"keep_texts={texts} exists: choose another file, or replace it with "
            f"--overwrite"
        )


def check_vacant(out: Path, *, overwrite: bool) -> None:
    """Refuse a used folder: only an earlier result may be replaced, when asked for."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file: choose a folder that is not there yet")
    used = (
        sorted(p.name for p in out.iterdir() if p.name != LOCK) if out.exists() else []
    )
    if not used:
        return
    if RESULT not in used:
        raise ValueError(
            f"out={out} holds other things ({', '.join(used[:3])}): choose a folder "
            f"that is empty or not there"
        )
    if not overwrite:
        raise ValueError(
            f"out={out} holds an earlier result: choose another folder, or replace it "
            f"with --overwrite"
        )
    others = sorted(set(file_names(out)) - named_checksums(out) - {CARD})
    if others:
        raise ValueError(
            f"out={out} holds files that are not of the earlier result "
            f"({', '.join(others[:3])}): move them elsewhere, or choose another folder"
        )


def described(removal: Removal, options: Options) -> dict[str, Any]:
    """Return what unlearning.json says of the task: no texts, no names."""
    found = removal.found
    scores = {m.index: m.score for m in found.matches}
    positions = removal.indices or [None] * len(found.records)
    given = options.shared()
    if removal.indices:
        given |= {"ids": removal.indices}
        for name in ("match_by", "threshold"):
            given.pop(name, None)
    names = telling(options, removal)
    hidden = [n for n in PATHS if n in given and tells(given[n], names)]
    return {
        "request_sha256": request_hash(options),
        "matched": [
            {"index": i, "score": scores.get(i, 1.0), "sha256": data_hash([record])}
            for i, record in zip(positions, found.records, strict=True)
        ],
        "forget_sha256": data_hash(found.records),
        "data_records": None if found.source is None else len(found.source),
        "data_sha256": None if found.source is None else data_hash(found.source),
        "options": {n: v for n, v in given.items() if n not in hidden}
        | {"forget_sha256": data_hash(found.records)},
        "settings": {n: options.of_way(n) for n in READS[options.way]},
        "method": options.method,
    }


def request_hash(options: Options) -> str | None:
    """Return the SHA-256 of the words of a request; None where it was not in words."""
    if options.request is None:
        return None
    return hashlib.sha256(options.request.encode()).hexdigest()


def telling(options: Options, removal: Removal) -> set[str]:
    """Return the words, of three letters or more, that say who or what is forgotten.

    Those of the request's subject; without one, those that all forgotten records have
    in common and no kept one has.
    """
    if options.request is not None:
        found = set(words(subject_of(options.request)))
    else:
        forgotten = [set(words(text)) for text in map(all_text, removal.found.records)]
        kept = (set(words(all_text(record))) for record in removal.retain_records)
        found = set.intersection(*forgotten).difference(*kept)
    return {word for word in found if len(word) >= 3}


def tells(path: str, names: set[str]) -> bool:
    """Say whether a path names one of ``names``, however it is put together.

    >>> tells("runs/MaraVelkin_2.json", {"velkin"})
    True
    """
    letters = "".join(words(path)).replace("_", "")
    return any(name in letters for name in names)


def secrets(options: Options, removal: Removal) -> set[str]:
    """Return, in plain words, what no file of the model's folder may say.

    That is the request's subject, and every value of two words or more that a
    forgotten record has and no kept one.
    """

    def values(records: Sequence[dict]) -> set[str]:
        found = {plain(text) for record in records for text in strings(record)}
        return {text for text in found if " " in text}

    found = values(removal.found.records) - values(removal.retain_records)
    if options.request is not None:
        found.add(plain(subject_of(options.request)))
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


def write_result(
    out: Path,
    told: dict[str, Any],
    card: str,
    save: Callable[[Path], None],
    *,
    forbidden: set[str],
    names: set[str],
    overwrite: bool,
) -> list[str]:
    """Write the folder: model, tokenizer, unlearning.json, README.md, checksums.json.

    It takes the place of ``out`` when it is whole.

    Returns:
      The files that came with the model and were left out, since they say what was to
      be forgotten.
    """
    with replaced_folder(out) as fresh:
        save(fresh)
        dropped = drop_leaks(fresh, forbidden, names)
        write_json(fresh / RESULT, told)
        # Before the card, which its owner may edit.
        write_checksums(fresh, file_names(fresh))
        write_text(fresh / CARD, card)
        check_vacant(out, overwrite=overwrite)  # work was long: is it still so?
    refusal_of(out).unlink(missing_ok=True)
    return dropped


def refusal_of(out: Path) -> Path:
    """Return the file beside ``out`` that says why nothing was written there."""
    return out.with_name(f"{out.name}.refused.json")


def keep_texts(path: Path, found: Found) -> None:
    """Write the forgotten records, as ``--forget`` reads them, for the owner alone."""
    write_json(path, found.records)
    path.chmod(0o600)
