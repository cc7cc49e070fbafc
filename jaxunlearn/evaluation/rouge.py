"""ROUGE-L between texts, by Google's scorer."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Rouge(NamedTuple):
    """float64[n] each; 1 where the text holds all of the reference and nothing else."""

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


def rouge_l(
    references: Sequence[str], texts: Sequence[str], *, stemmer: bool = True
) -> Rouge:
    """Return ROUGE-L of each text: the longest common subsequence of words.

    ``recall = LCS / words of the reference``, ``precision = LCS / words of the text``.
    An empty text has 0.

    Args:
      references: The true texts, at least one.
      texts: The model's, one for each reference.
      stemmer: Compare stems of words (Porter), as TOFU and OpenUnlearning do; MUSE's
        first code does not.

    Raises:
      ValueError: Nothing to score, or the numbers of texts differ.

    Source: Lin 2004, ROUGE; the package rouge-score.
    """
    return rouge("rougeL", references, texts, stemmer=stemmer)


def rouge(
    kind: str, references: Sequence[str], texts: Sequence[str], *, stemmer: bool = True
) -> Rouge:
    """Return another of the scorer's kinds, such as ``rouge1``; see :func:`rouge_l`."""
    if len(references) != len(texts):
        raise ValueError(f"{len(references)} references for {len(texts)} texts")
    if len(references) == 0:
        raise ValueError("references is empty: there is nothing to score")
    score = scorer(kind, stemmer).score
    found = [
        score(reference, text)[kind]
        for reference, text in zip(references, texts, strict=True)
    ]
    return Rouge(
        np.array([one.recall for one in found]),
        np.array([one.precision for one in found]),
        np.array([one.fmeasure for one in found]),
    )


@functools.cache
def scorer(kind: str, stemmer: bool):
    """Return Google's scorer."""
    import logging

    # Where it warns of its own default tokenizer, on every call.
    logging.getLogger("absl").setLevel(logging.WARNING)
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=stemmer)
