"""The columns of an evaluation log: numbers and texts of questions, checked by name.

What a question was not measured for is null in the file and NaN here; a number that
cannot be is an error that names file, set, statistic and question.
"""

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn.evaluation.text.answer_log import AnswerLog
from jaxunlearn.evaluation.text.rouge_scores import rouge

ROUGE_TOLERANCE = 1e-6
ROUNDING = 1e-6
ROUGES = (
    ("rougeL", "recall", "rouge_recall"),
    ("rougeL", "f1", "rouge_f1"),
    ("rouge1", "recall", "rouge1_recall"),
)
"""Kind and part of a ROUGE, and the column of an ``AnswerLog`` that holds it."""

# Least and greatest of each statistic. A loss may be infinite: then the model gives the
# answer a probability of 0, and real tools write Infinity.
BOUNDS = {
    "loss": (0.0, math.inf),
    "paraphrased_loss": (0.0, math.inf),
    "wrong_losses": (0.0, math.inf),
    "truth_ratio": (0.0, math.inf),
    "tokens": (1.0, float(2**53)),
}
SHARE = (0.0, 1.0)
LABELS = {"wrong_losses": "losses of wrong answers"}


def log_of(
    where: str,
    index: Sequence[str],
    *,
    words: str,
    texts: Sequence[Any] | None = None,
    **columns: Sequence[Any] | None,
) -> AnswerLog:
    """Return the log of columns that were read.

    Args:
      where: File and set, for messages.
      index: Names of the n questions.
      words: What counts as a word of a ROUGE that is computed again.
      texts: Of each question ``[prompt, answer, truth]``, or None.
      **columns: Of each statistic n values, each a number, a list of them (one a wrong
        or a paraphrased answer) or None.

    Raises:
      ValueError: Something is no number of its statistic, or the stored ROUGE does not
        follow from the texts.
    """
    if not index:
        raise ValueError(f"{where} holds no question")
    found: dict[str, Any] = {
        name: read_column(f"{where}: {LABELS.get(name, name)}", name, index, values)
        for name, values in columns.items()
        if values is not None
    }
    if texts is None:
        stored = [name for _, _, name in ROUGES if name in found]
        if stored and words != "open_unlearning":
            raise ValueError(
                f"{where}: words={words!r} needs the answers, and the log has only "
                f"their {', '.join(stored)}, of words={'open_unlearning'!r}"
            )
        return AnswerLog(tuple(index), **found)
    rows = [text_row(where, i, row) for i, row in zip(index, texts, strict=True)]
    names = ("prompts", "answers", "truths")
    found |= dict(zip(names, zip(*rows, strict=True), strict=True))
    compute_rouge(where, index, found, words)
    return AnswerLog(tuple(index), **found)


def read_column(what: str, name: str, index: Sequence[str], values: Sequence[Any]):
    """Return a statistic's float64[n], or of wrong answers n arrays."""
    low, high = BOUNDS.get(name, SHARE)
    rows = [
        np.array([number(f"{what} of question {i}", one, low, high) for one in flat(v)])
        for i, v in zip(index, values, strict=True)
    ]
    empty = [i for i, row in zip(index, rows, strict=True) if len(row) == 0]
    if empty:
        raise ValueError(f"{what} of question {empty[0]}: an empty list")
    if name == "wrong_losses":
        return tuple(rows)
    return np.array([row.mean() for row in rows])  # of several paraphrases, their mean


def flat(value: Any) -> list:
    """Return a value, or the members of a list or of lists, as one list."""
    if not isinstance(value, list):
        return [value]
    return [one for part in value for one in flat(part)]


def number(what: str, value: Any, low: float, high: float) -> float:
    """Return a JSON number between two bounds as a float; NaN for null."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what}: {short(value)} where a number was expected")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(
            f"{what}: {short(value)} is larger than any float, no finite number"
        ) from None
    if math.isnan(found) or math.isinf(found) and found != high:
        raise ValueError(
            f"{what}: {found} is no finite number; what was not measured is null"
        )
    if not low - ROUNDING <= found <= high + ROUNDING:
        raise ValueError(f"{what}: {found} does not lie between {low:g} and {high:g}")
    return min(max(found, low), high)


def text_row(where: str, question: str, row: Any) -> tuple:
    """Return (prompt, answer, truth) of a question, each a text; or three None."""
    if row is None:
        return (None,) * 3
    good = isinstance(row, list) and len(row) >= 3
    if not good or not all(isinstance(text, str) for text in row[:3]):
        raise ValueError(
            f"{where}: the generated text of question {question} is to be [prompt, "
            f"answer, truth], not {short(row)}"
        )
    return tuple(row[:3])


def compute_rouge(
    where: str, index: Sequence[str], found: dict[str, Any], words: str
) -> None:
    """Put ROUGE from the texts into ``found``; refuse a stored one that is not theirs.

    What is stored is of OpenUnlearning's words, whatever words are asked for.
    """
    answered = [i for i, text in enumerate(found["answers"]) if text is not None]
    if not answered:
        return
    truths, answers = ([found[k][i] for i in answered] for k in ("truths", "answers"))
    scores: dict[tuple[str, str], Any] = {}

    def score(kind: str, words: str):
        if (kind, words) not in scores:
            scores[kind, words] = rouge(kind, truths, answers, words=words)
        return scores[kind, words]

    for kind, part, name in ROUGES:
        column = np.full(len(index), np.nan)
        if name in found:
            theirs = getattr(score(kind, "open_unlearning"), part)
            theirs = np.nan_to_num(theirs)  # they count a truth without words as 0
            apart = np.abs(theirs - found[name][answered]) > ROUGE_TOLERANCE
            if apart.any():
                i = int(np.flatnonzero(apart)[0])
                raise ValueError(
                    f"{where}: the texts of {apart.sum()} questions do not give the "
                    f"{name} that is stored (question {index[answered[i]]}: "
                    f"{theirs[i]:.6f}, stored {found[name][answered[i]]:.6f}); the log "
                    f"is damaged"
                )
            column = found[name].copy()  # of questions whose texts are not there
        column[answered] = getattr(score(kind, words), part)
        found[name] = column


def short(value: Any) -> str:
    """Return the beginning of a value, to be quoted in a message."""
    return reprlib.repr(value)
