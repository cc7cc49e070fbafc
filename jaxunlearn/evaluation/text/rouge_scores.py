"""ROUGE between texts, by Google's scorer, of words in any script."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from jaxunlearn.evaluation.text.words import unicode_words

WORDS = ("unicode", "open_unlearning")
"""What counts as a word: see ``words.py``; or a run of a-z and 0-9, as in the package
rouge-score, by which TOFU's, MUSE's and OpenUnlearning's numbers were made. There an
accent cuts a word in two, and a text in another script has no words at all."""


class Rouge(NamedTuple):
    """float64[n] each; 1 where the text holds all of the reference and nothing else.

    NaN where the reference has no words, so that there is nothing to find; ``wordless``
    says of how many, and whoever takes a mean leaves them out and says so.
    """

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    wordless: int


def rouge_l(
    references: Sequence[str],
    texts: Sequence[str],
    *,
    stemmer: bool = True,
    words: str = "unicode",
) -> Rouge:
    """Return ROUGE-L of each text: the longest common subsequence of words.

    ``recall = LCS / words of the reference``, ``precision = LCS / words of the text``.
    A text without words has 0.

    Args:
      references: The true texts, at least one.
      texts: The model's, one for each reference.
      stemmer: Compare stems of words (Porter), as TOFU and OpenUnlearning do; MUSE's
        first code does not. It is English: words with other letters than a-z are
        compared as they are.
      words: What counts as a word, one of ``WORDS``; "open_unlearning" gives published
        numbers.

    Raises:
      ValueError: Nothing to score, the numbers of texts differ, or unknown words.

    Source: Lin 2004, ROUGE; the package rouge-score.

    >>> rouge_l(["Она родилась в Праге."], ["Она родилась в Праге."]).recall
    array([1.])
    """
    return rouge("rougeL", references, texts, stemmer=stemmer, words=words)


def rouge(
    kind: str,
    references: Sequence[str],
    texts: Sequence[str],
    *,
    stemmer: bool = True,
    words: str = "unicode",
) -> Rouge:
    """Return another of the scorer's kinds, such as ``rouge1``; see :func:`rouge_l`."""
    if len(references) != len(texts):
        raise ValueError(f"{len(references)} references for {len(texts)} texts")
    if len(references) == 0:
        raise ValueError("references is empty: there is nothing to score")
    score = scorer(kind, stemmer, words).score
    empty = wordless(references, words)
    found = np.array(
        [
            score(reference, text)[kind]
            for reference, text in zip(references, texts, strict=True)
        ],
        np.float64,
    )  # [n, 3], precision, recall, f1
    found[empty] = np.nan
    precision, recall, f1 = found.T
    return Rouge(recall, precision, f1, int(empty.sum()))


def wordless(texts: Sequence[str], words: str = "unicode") -> np.ndarray:
    """Return which texts have no words, bool[n]."""
    cut = splitter(False, words)
    return np.array([not cut(text) for text in texts], bool)


def check_words(texts: Sequence[str], words: str = "unicode") -> None:
    """Refuse, before models answer, true texts that no answer can be compared with.

    Raises:
      ValueError: A text has no words; or unknown words.
    """
    empty = np.flatnonzero(wordless(texts, words))
    if len(empty):
        raise ValueError(
            f"truths[{empty[0]}]={texts[empty[0]][:60]!r} has no words (words="
            f"{words!r}), nor have {len(empty) - 1} others: leave such texts out"
        )


def check_kind(words: str) -> None:
    """Refuse a kind of words that there is not."""
    if words not in WORDS:
        raise ValueError(f"words={words!r}: one of {', '.join(WORDS)}")


@functools.cache
def scorer(kind: str, stemmer: bool, words: str):
    """Return Google's scorer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(
        [kind], tokenizer=SimpleNamespace(tokenize=splitter(stemmer, words))
    )


@functools.cache
def splitter(stemmer: bool, words: str):
    """Return the function from a text to its words or their stems."""
    from nltk.stem.porter import PorterStemmer
    from rouge_score.tokenizers import DefaultTokenizer

    check_kind(words)
    if words == "open_unlearning":
        return DefaultTokenizer(stemmer).tokenize
    if not stemmer:
        return unicode_words
    stem = PorterStemmer().stem

    def stems(text: str) -> list[str]:
        # As rouge-score: short words are left as they are.
        return [
            stem(word) if len(word) > 3 and word.isascii() else word
            for word in unicode_words(text)
        ]

    return stems
