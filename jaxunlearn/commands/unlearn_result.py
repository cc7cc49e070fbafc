"""What ``jaxunlearn unlearn`` leaves behind: one folder, swapped whole, without texts.

``unlearning.json`` and the model card hold positions, hashes, counts and losses. What
was forgotten and who asked for it stands in no file of the folder; ``--keep-texts``
writes it elsewhere.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxunlearn.commands.removal import Found, Removal
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_places import CARD, check_vacant, refusal_of
from jaxunlearn.data.requests.leaks import drop_leaks, telling_words, tells
from jaxunlearn.files import write_json, write_text
from jaxunlearn.folders import file_names, replaced_folder, write_checksums
from jaxunlearn.provenance import data_hash
from jaxunlearn.unlearning.origin import RESULT

PATHS = ("model", "retain", "run", "data", "unseen")
"""Options that name files, in whose names a person may be named."""


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
    names = telling_words(options.request, found.records, removal.retain_records)
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
        "settings": options.settings,
        "method": options.method,
    }


def request_hash(options: Options) -> str | None:
    """Return the SHA-256 of the words of a request; None where it was not in words."""
    if options.request is None:
        return None
    return hashlib.sha256(options.request.encode()).hexdigest()


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


def keep_texts(path: Path, found: Found) -> None:
    """Write the forgotten records, as ``--forget`` reads them, for the owner alone."""
    write_json(path, found.records)
    path.chmod(0o600)
