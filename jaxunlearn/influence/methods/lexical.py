"""BM25: how alike two texts are in their words, the score that knows no model."""

from collections.abc import Sequence

import numpy as np


def bm25(
    train: Sequence[np.ndarray],
    query: Sequence[np.ndarray],
    *,
    k1: float = 1.2,
    b: float = 0.75,
) -> np.ndarray:
    """Return the BM25 score of every training text for every query, float64[Q, N].

    ``sum_t n_qt idf_t f_it (k1 + 1) / (f_it + k1 (1 - b + b len_i / mean len))``, over
    the tokens t of the query (n_qt times each), f_it how often t stands in text i, and
    ``idf_t = ln(1 + (N - N_t + 0.5) / (N_t + 0.5))``, N_t texts holding t.

    Args:
      train: N arrays of token ids, each at least one token, without padding.
      query: Q arrays of token ids.
      k1: How slowly repetition of a token stops counting.
      b: How far long texts are held back, 0 to 1.

    Raises:
      ValueError: There is no training text, or an empty one, or an option out of range.

    Source: Robertson and Zaragoza, The probabilistic relevance framework: BM25 and
    beyond, 2009; the 1 in the logarithm keeps idf positive, as in Lucene.

    >>> bm25([np.array([1, 2]), np.array([3, 4])], [np.array([2])]).round(2).tolist()
    [[0.69, 0.0]]
    """
    from scipy.sparse import csr_array

    lengths = np.array([len(text) for text in train])
    if lengths.size == 0 or lengths.min() == 0:
        raise ValueError("train: at least one text, and at least one token in each")
    if k1 < 0 or not 0 <= b <= 1:
        raise ValueError(f"k1={k1}, b={b}: k1 at least 0 and b in 0..1")
    vocabulary = 1 + max(int(np.max(text, initial=0)) for text in [*train, *query])

    def counts(texts: Sequence[np.ndarray]) -> csr_array:
        rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        tokens = np.concatenate([np.asarray(text, np.int64) for text in texts])
        ones = np.ones(len(tokens))
        return csr_array((ones, (rows, tokens)), shape=(len(texts), vocabulary))

    found = counts(train).tocoo()
    holding = np.bincount(found.col, minlength=vocabulary)
    idf = np.log1p((len(train) - holding + 0.5) / (holding + 0.5))
    damp = k1 * (1 - b + b * lengths / lengths.mean())
    value = found.data * (k1 + 1) / (found.data + damp[found.row]) * idf[found.col]
    weighted = csr_array((value, (found.row, found.col)), shape=found.shape)
    return (counts(query) @ weighted.T).toarray()
