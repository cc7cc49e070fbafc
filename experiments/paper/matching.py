"""Which examples an imprecise request means."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.paper.laboratory import Lab
from jaxunlearn.data import match

# Two or more capitalised words; a short one may stand between (Isabella van Pletzen).
_NAME = re.compile(r"[A-Z][\w-]*(?: (?:[a-z]{2,3} )?[A-Z][\w-]*)+")


def name_of(group: Sequence[Mapping], everyone: Sequence[Mapping]) -> str:
    """Return whom a group of records is about: the name most of its own.

    Counts how many of its records have the name, less those of others; of equals the
    longest.

    >>> group = [{"question": "is Jo van Am old?", "answer": "No, Jo van Am is 9."}]
    >>> name_of(group, group)
    'Jo van Am'
    """
    own = Counter(name for record in group for name in names_in(record))
    all_of = Counter(name for record in everyone for name in names_in(record))
    if not own:
        raise ValueError(f"no name of two words in {group[0]}")
    return max(own, key=lambda name: (2 * own[name] - all_of[name], len(name), name))


def names_in(record: Mapping) -> set[str]:
    """Return what may be names in a record: runs of capitalised words, two or more."""
    found = set()
    for text in (record["question"], record["answer"]):
        for run in _NAME.findall(text):
            words = run.split()
            ends = range(2, len(words) + 1)
            found |= {" ".join(words[i:j]) for j in ends for i in range(j - 1)}
    return {name for name in found if name[0].isupper()}


def requests(lab: Lab) -> list[str]:
    """Return what each seed is asked to forget, in words."""
    records = lab.sets.records
    groups = [[records[i] for i in rows] for rows in lab.sets.forget]
    return [f"everything about {name_of(group, records)}" for group in groups]


def matched_rows(lab: Lab, how: str, threshold: float) -> list[list[int]]:
    """Return the examples that each seed's request means, the best match first.

    A ``fuzzy`` request is in words, a ``near_duplicate`` one the records themselves.
    """
    records = lab.sets.records
    asked = (
        requests(lab)
        if how == "fuzzy"
        else [[records[i] for i in rows] for rows in lab.sets.forget]
    )
    return [
        [found.index for found in match(one, records, how=how, threshold=threshold)]
        for one in asked
    ]


def padded(rows: Sequence[Sequence[int]], width: int | None = None) -> np.ndarray:
    """Return rows of different lengths as int32[seeds, width], padded by -1."""
    width = max(map(len, rows)) if width is None else width
    found = np.full((len(rows), width), -1, np.int32)
    for out, row in zip(found, rows, strict=True):
        out[: len(row)] = row[:width]
    return found
