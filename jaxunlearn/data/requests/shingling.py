"""How many runs of words two texts share: shingles, and who is worth comparing."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxunlearn.data.requests.closeness import words

PERMUTATIONS = 128


def shingles(text: str, *, length: int = 3) -> frozenset[str]:
    """Return the runs of ``length`` consecutive words; a shorter text is one run.

    >>> sorted(shingles("Mara keeps a grey heron"))
    ['a grey heron', 'keeps a grey', 'mara keeps a']
    """
    parts = words(text)
    runs = range(max(1, len(parts) - length + 1)) if parts else ()
    return frozenset(" ".join(parts[i : i + length]) for i in runs)


def candidate_pairs(
    wanted: Sequence[frozenset[str]],
    found: Sequence[frozenset[str]],
    *,
    threshold: float,
) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose Jaccard similarity may reach a threshold.

    MinHash and locality-sensitive hashing (Leskovec, Rajaraman and Ullman, Mining of
    Massive Datasets, section 3.4), tuned to miss few: candidates are for verifying, so
    a false one costs little. A pair exactly at the threshold is missed with probability
    (1 - threshold^r)^b < 0.004, for b bands of r rows, and always the same one; one
    above it less often, and equal sets never. The cost is linear in the number of sets.

    Args:
      wanted: Sets of shingles; these are indexed, so the fewer.
      found: Sets of shingles; these are looked up.
      threshold: The Jaccard similarity, in (0, 1].

    Yields:
      A position in ``wanted`` and one in ``found``.
    """
    from datasketch import MinHash, MinHashLSH

    empty = MinHash(num_perm=PERMUTATIONS, seed=1)

    def sketch(runs: frozenset[str]) -> MinHash:
        minhash = empty.copy()  # drawing the permutations anew costs as much as hashing
        minhash.update_batch([run.encode() for run in runs])
        return minhash

    index = MinHashLSH(
        threshold=0.7 * threshold,  # where a pair is as likely to be a candidate as not
        num_perm=PERMUTATIONS,
        weights=(0.1, 0.9),  # of false and of missed candidates
    )
    for k, runs in enumerate(wanted):
        index.insert(k, sketch(runs))
    for i, runs in enumerate(found):
        for k in index.query(sketch(runs)):
            yield int(k), i


def jaccard_scores(
    wanted: Sequence[frozenset[str]],
    found: Sequence[frozenset[str]],
    pairs: Iterable[tuple[int, int]],
) -> np.ndarray:
    """Return, for each set of ``found``, its best Jaccard similarity over the pairs.

    J(A, B) = |A and B| / |A or B|, and 0 if either is empty.

    Args:
      wanted: Sets of shingles.
      found: Sets of shingles.
      pairs: Which ones are compared, as positions in ``wanted`` and in ``found``.

    Returns:
      float64[len(found)] in 0..1.
    """
    scores = np.zeros(len(found))
    for k, i in pairs:
        shared = len(wanted[k] & found[i])
        if shared:
            union = len(wanted[k]) + len(found[i]) - shared
            scores[i] = max(scores[i], shared / union)
    return scores
