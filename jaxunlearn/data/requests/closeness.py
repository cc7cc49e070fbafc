"""How close texts come to a phrase or a quotation.

Case, accents, punctuation and possessive endings never count.
"""

import bisect
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import regex
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Jaro

SAME_WORD = 0.85  # Jaro similarity from which two words are spellings of one
# Scripts that put no spaces between words: each letter, with its marks, is a word. Runs
# of katakana are words, since dots part names in it.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(
    rf"[{UNSPACED}]\p{{M}}*|[\p{{Katakana}}ー]+|(?:(?![{UNSPACED}\p{{Katakana}}])\w)+"
)
ASCII_WORD = regex.compile("[0-9a-z_]+")  # the same words of most texts, sooner
# What makes no other letter: accents (but for the marks of kana), the vowel points of
# Hebrew and Arabic, and signs that nobody sees. A zero-width space does part words.
UNSEEN = regex.compile(
    r"(?![\u3099\u309a])(?=[\p{Inherited}\p{Hebrew}\p{Arabic}])\p{M}"
    r"|(?!\u200b)\p{Cf}"
)
POSSESSIVE = regex.compile(r"'s\b")
APOSTROPHES = str.maketrans("’‘ʼ`´＇", "'" * 6)


def words(text: str) -> list[str]:
    """Split a text into its words, all in the plainest spelling.

    >>> words("Zoë O'Brien's (2nd) heron")
    ['zoe', 'obrien', '2nd', 'heron']
    >>> words("村上春樹, हिन्दी")
    ['村', '上', '春', '樹', 'हिन्दी']
    """
    pattern = ASCII_WORD if text.isascii() else WORD
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(APOSTROPHES))
        text = unicodedata.normalize("NFC", UNSEEN.sub("", text))
    text = POSSESSIVE.sub("", text.casefold())
    return pattern.findall(text.replace("'", ""))


def plain(text: str) -> str:
    """Return the words of a text in their plainest spelling, joined by spaces."""
    return " ".join(words(text))


def phrase_scores(phrase: str, texts: Sequence[str]) -> np.ndarray:
    """Score how well each text spells a phrase somewhere.

    score = max over runs of as many consecutive words of the text of
            min over the words of the phrase of Jaro(word, its counterpart in the run)

    The minimum tells people apart who share one part of their name, which a ratio of
    whole strings confuses when that part is long. Of n letters, k wrong ones give a
    Jaro similarity of 1 - 2k/3n: at 0.85 one in a word of five or more; a shorter word
    may have a missing, doubled or swapped letter only. One-letter words of the texts
    (initials, articles) are passed over, unless the phrase has some.

    Args:
      phrase: One or more words, plain.
      texts: Plain texts.

    Returns:
      float64[len(texts)] in 0..1; 0 for a text shorter than the phrase. The cost is
      one pass over all words for each word of the phrase.
    """
    wanted = phrase.split()
    shortest = min(2, min(map(len, wanted)))
    # The empty word closes every text, so no run reaches from one into the next.
    closed = [[*(w for w in text.split() if len(w) >= shortest), ""] for text in texts]
    number: dict[str, int] = {}
    stream = np.array([number.setdefault(w, len(number)) for t in closed for w in t])
    similarity = process.cdist(
        wanted, list(number), scorer=Jaro.normalized_similarity, dtype=np.float64
    )
    scores = np.ones(len(stream))
    for offset, row in enumerate(similarity):
        counterpart = np.zeros_like(scores)
        counterpart[: len(stream) - offset] = row[stream[offset:]]
        scores = np.minimum(scores, counterpart)
    starts = np.cumsum([0, *map(len, closed)])[:-1]
    return np.maximum.reduceat(scores, starts)


def quotation_scores(
    quotation: str,
    texts: Sequence[str],
    *,
    whole: bool = False,
    at_least: float = 0.0,
    rarity: dict[str, float] | None = None,
) -> np.ndarray:
    """Score how well each text contains, or is, a quotation.

    score = min(ratio, share)
    ratio = max over passages of 1 - (letters to insert or delete) / (letters of both)
    share = sum_w rarity(w) found(w) / sum_w rarity(w) over the quotation's words w

    The passages are the whole text, its stretches of the quotation's length, and of a
    text longer by a third or more its runs of words of up to twice that length: longer
    ones, since a quotation may leave words out. ``found`` is the Jaro similarity to the
    closest word of the text, or 0 below SAME_WORD. The ratio looks at order and length;
    the share at the words that matter: a sentence repeated for another person has a
    ratio near 1 and a small share, since the name is its rarest part. A text shorter
    than the quotation is compared whole, so being a part of it is not enough.

    Args:
      quotation: A plain text.
      texts: Plain texts.
      whole: Compare with whole texts, not with their best passages.
      at_least: Spends no time on texts that cannot reach it, and gives them 0. The
        text that could reach most is always scored.
      rarity: ``word_rarity(texts)``, for a caller who has it.

    Returns:
      float64[len(texts)] in 0..1. The cost is one alignment a text, and of those that
      could reach ``at_least`` one a passage.
    """
    rarity = word_rarity(texts) if rarity is None else rarity
    size = len(quotation)
    ratios = text_closeness(quotation, texts, fuzz.ratio)
    bounds = ratios.copy()
    if not whole:
        longer = [i for i, text in enumerate(texts) if len(text) > size]
        stretches = text_closeness(
            quotation, [texts[i] for i in longer], fuzz.partial_ratio
        )
        ratios[longer] = np.maximum(ratios[longer], stretches)
        # Let p be the ratio with the best stretch. A passage of x size letters, x >= 1,
        # has at most min(1, p + x - 1) size of them in common with the quotation, so
        # its ratio is at most 2 min(1, p + x - 1) / (1 + x) <= 2 / (3 - p).
        bounds[longer] = np.maximum(ratios[longer], 2 / (3 - stretches) + 1e-9)
    shares = {
        i: word_share(quotation, texts[i], rarity, len(texts))
        for i in np.flatnonzero(bounds >= min(at_least, bounds.max()))
    }
    best = max(min(bounds[i], share) for i, share in shares.items())
    scores = np.zeros(len(texts))
    for i, share in shares.items():
        if min(bounds[i], share) >= min(at_least, best):
            if not whole and len(texts[i]) >= 4 / 3 * size:
                runs = text_closeness(quotation, word_runs(texts[i], size), fuzz.ratio)
                ratios[i] = max(ratios[i], runs.max(initial=0))
            scores[i] = min(ratios[i], share)
    return scores


def text_closeness(
    quotation: str, texts: Sequence[str], scorer: Callable
) -> np.ndarray:
    """Return how close each text is to a quotation, float64[n], 0 to 1."""
    found = process.cdist([quotation], texts, scorer=scorer, dtype=np.float64)
    return found[0] / 100


def word_runs(text: str, size: int) -> list[str]:
    """Return the runs of words of a plain text with ``size`` to twice as many letters.

    Where fewer letters are closer, so is nearly a stretch of ``size`` around them.
    """
    starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == " ")]
    ends = [*(start - 1 for start in starts[1:]), len(text)]
    runs = []
    for number, start in enumerate(starts):
        first = bisect.bisect_left(ends, start + size, number)
        last = bisect.bisect_right(ends, start + 2 * size, number)
        runs += [text[start:end] for end in ends[first:last]]
    return runs


def word_rarity(texts: Sequence[str]) -> dict[str, float]:
    """Return log((N + 1) / n) for each word that n of the N plain texts have."""
    counts = Counter(word for text in texts for word in set(text.split()))
    return {word: math.log((len(texts) + 1) / n) for word, n in counts.items()}


def word_share(
    quotation: str, text: str, rarity: dict[str, float], n_texts: int
) -> float:
    """Return the share of a quotation's words that a text has, weighted by rarity."""
    wanted = list(dict.fromkeys(quotation.split()))  # in order: sums repeat bit by bit
    present = list(set(text.split()))
    if not (wanted and present):
        return 0.0
    found = process.cdist(
        wanted,
        present,
        scorer=Jaro.normalized_similarity,
        dtype=np.float64,
        score_cutoff=SAME_WORD,  # lower ones become 0
    ).max(axis=1)
    # A word that no text has is as rare as one that one text has.
    weights = np.array([rarity.get(word, math.log(n_texts + 1)) for word in wanted])
    return float(1 - weights @ (1 - found) / weights.sum())
