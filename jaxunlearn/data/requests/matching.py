"""Which training examples a removal request means.

A request comes as positions, as records, or in words. Four ways to answer it, from the
strictest to the loosest: ``ids``, ``exact``, ``near_duplicate``, ``fuzzy``. Each
returns the matches with their scores, the best first, so that a person can read the
list before anything is removed.

All compare what a record says, the values of its fields joined by spaces, without the
template in which a model reads it.
"""

import itertools
import math
import operator
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxunlearn.data.fields import short_repr
from jaxunlearn.data.records import Record, said
from jaxunlearn.data.requests.closeness import (
    phrase_scores,
    plain,
    quotation_scores,
    word_rarity,
)
from jaxunlearn.data.requests.request import subject_of
from jaxunlearn.data.requests.shingling import candidate_pairs, jaccard_scores, shingles

NAME_WORDS = 4  # so many words are a name or a term, more are a quotation


class Match(NamedTuple):
    """A training record that a request means: position, score in 0..1, and text."""

    index: int
    score: float
    text: str


def match(
    request: str | Sequence[int] | Sequence[Record],
    records: Sequence[Record],
    *,
    how: Literal["ids", "exact", "fuzzy", "near_duplicate"],
    threshold: float | None = None,
) -> list[Match]:
    """Return the records that a request means, or says why there are none.

    Args:
      request: Positions for ``ids``; words, or the records to forget, for the others.
      records: The training data, in the order of its positions.
      how: ``ids``, ``exact``, ``fuzzy`` or ``near_duplicate``: the function
        ``match_<how>``.
      threshold: The lowest score of a match, in (0, 1], for ``fuzzy`` and
        ``near_duplicate``; None is the default of that function.

    Returns:
      At least one match, by descending score, then by position.

    Raises:
      ValueError: Nothing matches (the message shows the closest record and its
        score), or an argument does not fit the others.

    >>> data = [{"text": "Mara Velkin keeps a heron."}, {"text": "Jon Stone sings."}]
    >>> match("everything about Mara Velkyn", data, how="fuzzy")
    [Match(index=0, score=0.888..., text='Mara Velkin keeps a heron.')]
    """
    # Any: each way reads the form of request that it accepts, and says so otherwise.
    ways: dict[str, Callable[..., list[Match]]] = {
        "ids": match_ids,
        "exact": match_exact,
        "fuzzy": match_fuzzy,
        "near_duplicate": match_near_duplicate,
    }
    if how not in ways:
        raise ValueError(f"how={how!r} is not one of {', '.join(ways)}")
    if threshold is None:
        found = ways[how](request, records)
    elif how in ("fuzzy", "near_duplicate"):
        found = ways[how](request, records, threshold=threshold)
    else:
        raise ValueError(
            f"threshold={threshold} means nothing for how={how!r}: leave it out, or "
            "use how='fuzzy' or how='near_duplicate'"
        )
    if found:
        return found
    best = closest_match(request, records, how)
    failure = f"no record matches request={short_repr(request)} with how={how!r}"
    if best.score == 0:
        raise ValueError(f"{failure}, not even remotely: use the records' own words")
    reached = math.floor(best.score * 1000) / 1000  # never above the score itself
    raise ValueError(
        f"{failure}. The closest is record {best.index} with score {reached:.3f}, "
        f"{short_repr(best.text)}: set threshold={reached:.3f} if that is meant, or "
        "use the records' own words"
    )


def match_ids(ids: Sequence[int], records: Sequence[Record]) -> list[Match]:
    """Return the records at the given positions, each with score 1.

    Args:
      ids: Positions in ``records``, counted from 0; a repeated one counts once.
      records: The training data.

    Raises:
      ValueError: ``ids`` is empty or holds something else than a position.
    """
    texts = record_texts("records", records)
    wrong = [i for i in ids if not is_position(i, len(texts))]
    if wrong or len(ids) == 0:
        raise ValueError(
            f"ids={short_repr(ids)} must be one or more of the positions 0.."
            f"{len(texts) - 1}, whole numbers; these are not: {short_repr(wrong[:5])}"
        )
    return [Match(i, 1.0, texts[i]) for i in sorted({operator.index(i) for i in ids})]


def match_exact(
    forget_records: str | Sequence[Record], records: Sequence[Record]
) -> list[Match]:
    """Return the records that say the same, but for case, white space and encoding.

    Args:
      forget_records: The records to forget, or the whole text of one.
      records: The training data. Where it repeats a record, all copies match.

    Returns:
      The matches by position, each with score 1.

    Raises:
      ValueError: A record to forget is not in the training data.
    """
    wanted = {in_one_case(text): text for text in request_texts(forget_records)}
    texts = record_texts("records", records)
    folded = [in_one_case(text) for text in texts]
    missing = [wanted[key] for key in wanted.keys() - set(folded)]
    if missing:
        shown = "; ".join(map(short_repr, sorted(missing)[:3]))
        raise ValueError(
            f"{len(missing)} of {len(wanted)} records to forget are not in the "
            f"training data, such as {shown}; if they are worded differently there, "
            "use how='near_duplicate' or how='fuzzy'"
        )
    return [Match(i, 1.0, texts[i]) for i, key in enumerate(folded) if key in wanted]


def match_fuzzy(
    request: str | Sequence[Record],
    records: Sequence[Record],
    *,
    threshold: float = 0.85,
) -> list[Match]:
    """Return the records that an imprecise request means.

    A request in words is reduced to its subject (``requests.subject_of``). A subject of
    up to four words is a name or a term, scored by ``closeness.phrase_scores``: each of
    its words must be there, in one run. A longer one is a quotation, scored by
    ``closeness.quotation_scores``: order, length and the rare words must agree. Records
    given as the request are quotations compared with whole records, and their matches
    are united; one that nothing is close to adds none.

    Args:
      request: Words such as "everything about Mara Velkin", or a quoted passage, or
        the records to forget.
      records: The training data.
      threshold: The lowest score of a match, in (0, 1].

    Returns:
      The matches by descending score, then position; maybe none.

    Raises:
      ValueError: The request names nothing, or ``threshold`` is out of its range.
    """
    check_threshold(threshold)
    texts = record_texts("records", records)
    return rank_matches(fuzzy_scores(request, texts, threshold), texts, threshold)


def match_near_duplicate(
    forget_records: str | Sequence[Record],
    records: Sequence[Record],
    *,
    threshold: float = 0.7,
) -> list[Match]:
    """Return the records that share most of their three-word runs with a given one.

    score = max over the given records of |A and B| / |A or B|, A and B the sets of runs

    Candidates come from ``shingles.candidate_pairs``, the score is exact: every match
    is right, and one close to the threshold may rarely be missed. A record to forget
    that nothing is close to adds no match; only ``match_exact`` insists on all of them.

    Args:
      forget_records: The records to forget, or the whole text of one.
      records: The training data.
      threshold: The lowest Jaccard similarity of a match, in (0, 1].

    Returns:
      The matches by descending score, then position; maybe none.

    Raises:
      ValueError: ``threshold`` is out of its range, or nothing is to be forgotten.
    """
    check_threshold(threshold)
    wanted = [shingles(text) for text in request_texts(forget_records)]
    texts = record_texts("records", records)
    found = [shingles(text) for text in texts]
    pairs = candidate_pairs(wanted, found, threshold=threshold)
    return rank_matches(jaccard_scores(wanted, found, pairs), texts, threshold)


def fuzzy_scores(
    request: str | Sequence[Record], texts: Sequence[str], threshold: float
) -> np.ndarray:
    """Return each text's score for a request in words or records."""
    sources = [plain(text) for text in texts]
    if isinstance(request, str):
        subject = subject_of(request)
        if len(subject.split()) <= NAME_WORDS:
            return phrase_scores(subject, sources)
        return quotation_scores(subject, sources, at_least=threshold)
    rarity = word_rarity(sources)
    scores = np.zeros(len(texts))
    for wanted in request_texts(request):
        new = quotation_scores(
            plain(wanted), sources, whole=True, at_least=threshold, rarity=rarity
        )
        scores = np.maximum(scores, new)
    return scores


def closest_match(request: Any, records: Sequence[Record], how: str) -> Match:
    """Return the best match of any score, at the cost of comparing all pairs."""
    texts = record_texts("records", records)
    if how == "fuzzy":
        scores = fuzzy_scores(request, texts, 1.0)
    else:
        wanted = [shingles(text) for text in request_texts(request)]
        found = [shingles(text) for text in texts]
        pairs = itertools.product(range(len(wanted)), range(len(found)))
        scores = jaccard_scores(wanted, found, pairs)
    return rank_matches(scores, texts, 0.0)[0]


def rank_matches(
    scores: np.ndarray, texts: Sequence[str], threshold: float
) -> list[Match]:
    """Return the matches of a score, the best first."""
    order = np.argsort(-scores, kind="stable")
    return [
        Match(int(i), float(scores[i]), texts[i])
        for i in order
        if scores[i] >= threshold
    ]


def request_texts(request: str | Sequence[Record]) -> list[str]:
    """Return what a request says, a text a record."""
    if isinstance(request, str):
        if not plain(request):
            raise ValueError(f"request={request!r} holds no words")
        return [request]
    return record_texts("request", request)


def record_texts(argument: str, records: Sequence[Record]) -> list[str]:
    """Return what records say; refuse none, naming the argument."""
    if isinstance(records, str) or len(records) == 0:
        raise ValueError(
            f"{argument}={short_repr(records)} must be one or more records, in a list"
        )
    texts = []
    for i, record in enumerate(records):
        try:
            texts.append(said(record))
        except ValueError as error:
            raise ValueError(f"{argument}[{i}]: {error}") from error
    return texts


def in_one_case(text: str) -> str:
    """Return a text in lower case with single spaces, composed letters alike."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def is_position(value: Any, n: int) -> bool:
    """Return whether a value is the position of one of n records."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(0 <= value < n)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold out of its range."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} is not in (0, 1]; 1 asks for equality")
