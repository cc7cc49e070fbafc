"""Every attack on a model, beside what it gets from models that never knew."""

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.attacks import table
from jaxunlearn.evaluation.attacks.file import (
    about_attacks,
    finished_attacks,
    write_attacks,
)
from jaxunlearn.evaluation.attacks.inputs import Settings, prepare, read_sets
from jaxunlearn.evaluation.attacks.judgement import entries_of
from jaxunlearn.evaluation.display import SILENT, Display
from jaxunlearn.evaluation.loading import GivenModel, GivenRecords
from jaxunlearn.locks import locked_file

DEFAULTS = Settings()

NOT_ASKED = "not among attacks=NAMES, or not yet run"
"""Of an attack that lacks nothing: why it is not in the result."""


def attack(
    model: GivenModel,
    *,
    forget: GivenRecords,
    reference: Sequence[GivenModel],
    related: GivenRecords | None = None,
    unrelated: GivenRecords | None = None,
    holdout: GivenRecords | None = None,
    original: GivenModel | None = None,
    context: GivenRecords | None = None,
    prefixes: str | Path | Sequence[str] | None = None,
    paraphrases: GivenRecords | None = None,
    attacks: Sequence[str] = (),
    settings: Settings = DEFAULTS,
    tokenizer: Any = None,
    out: Path | None = None,
    about: Mapping[str, Any] | None = None,
    display: Display = SILENT,
) -> dict[str, Any]:
    """Try to bring back what a model was made to forget, beside one that never knew.

    Every attack is run on the model and on the references; what it gets from the model
    beyond what it gets from a reference had not been forgotten.

    Args:
      model: The model that was made to forget, or its directory.
      forget: The records it was made to forget, or their file; 4 or more.
      reference: Models retrained without these records, which are attacked alike. With
        several the one that leaves the least excess counts, while beside a single one
        what two seeds make of the same data may pass for a small recovery.
      related: Text about the same things, without the forgotten; for relearn_related.
      unrelated: Text about other things; for relearn_unrelated and context.
      holdout: Records like the forgotten that no model saw; for membership_probe.
      original: The model before unlearning: its curves are kept too.
      context: Texts told in front of the question, in place of the other forgotten
        records; for context.
      prefixes: Words to put in front of prompts, or a file of them, one a line, in
        place of the built-in.
      paraphrases: Records whose prompts stand for those of ``forget``, in their order.
      attacks: Which, by name, see :data:`~.table.ATTACKS`; by default all that was
        given allows.
      settings: Their numbers.
      tokenizer: Of models in memory; a directory has its own.
      out: A .json file, written after each attack: what is finished there, of the same
        models, records and settings, is not run again.
      about: What the result shall say of itself beside what is known here.
      display: Where work tells of itself.

    Returns:
      ``about``, ``attacks``, a list of entries as :func:`~.judgement.entries_of` gives
      them, and ``not_run``, attack -> reason.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: An attack is unknown or lacks what it needs, a file is damaged, there
        are too few records, or tokenizers differ.
    """
    if not reference:
        raise ValueError(
            "reference=DIR is needed, a model retrained without the forgotten records: "
            "only what comes back beyond what it gives was ever there"
        )
    check_names(attacks)
    records = read_sets(
        {
            "forget": forget,
            "related": related,
            "unrelated": unrelated,
            "holdout": holdout,
            "context": context,
            "paraphrases": paraphrases,
        }
    )
    lacking = {name: one.lacks(records) for name, one in table.ATTACKS.items()}
    for name in attacks:
        if lacking[name] is not None:
            raise ValueError(f"attacks={name} {lacking[name]}")
    inputs = prepare(
        *(model, reference, original, records),
        prefixes=prefixes,
        tokenizer=tokenizer,
        max_length=settings.max_length,
    )
    wanted = [n for n in lacking if lacking[n] is None and n in (attacks or lacking)]
    with contextlib.nullcontext() if out is None else locked_file(out):
        told = about_attacks(inputs, settings, about or {})
        found = [] if out is None else finished_attacks(out, told, display)
        done = {entry["attack"] for entry in found}
        if done:
            display.line(f"Taking up {out}, which has {', '.join(sorted(done))}.")
        result = summary(told, found, lacking, display)
        for name in wanted:
            if name not in done:
                found += entries_of(name, inputs, settings, display)
                result = summary(told, found, lacking, display)
                if out is not None:
                    write_attacks(out, result)
        if out is not None:
            write_attacks(out, result)
    return result


def summary(
    about: dict[str, Any],
    found: list[dict],
    lacking: Mapping[str, str | None],
    display: Display,
) -> dict[str, Any]:
    """Return the result as the file holds it."""
    done = {entry["attack"] for entry in found}
    not_run = {
        name: display.spelled(reason or NOT_ASKED)
        for name, reason in lacking.items()
        if name not in done
    }
    return {"about": about, "attacks": list(found), "not_run": not_run}


def check_names(attacks: Sequence[str]) -> None:
    """Refuse an attack that there is not, and name those that are called alike."""
    known = table.ATTACKS
    for name in attacks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(
                f"attacks={name}: unknown; {hint}one of {', '.join(known)}"
            )
