import math

import numpy as np
import pytest

from jaxunlearn.influence.methods.lexical import bm25

DRAW = np.random.default_rng(0)
TRAIN = [DRAW.integers(0, 30, DRAW.integers(1, 20)) for _ in range(15)]
QUERY = [DRAW.integers(0, 40, DRAW.integers(1, 9)) for _ in range(4)]


def by_loops(train, query, k1, b):
    mean = sum(map(len, train)) / len(train)
    scores = np.zeros((len(query), len(train)))
    for q, asked in enumerate(query):
        for i, text in enumerate(train):
            for token in asked:
                holding = sum(token in other for other in train)
                idf = math.log(1 + (len(train) - holding + 0.5) / (holding + 0.5))
                count = int((text == token).sum())
                length = 1 - b + b * len(text) / mean
                scores[q, i] += idf * count * (k1 + 1) / (count + k1 * length)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.5, 0.0), (2.0, 1.0)])
def test_it_is_the_sum_over_tokens(k1, b):
    expected = by_loops(TRAIN, QUERY, k1, b)
    np.testing.assert_allclose(bm25(TRAIN, QUERY, k1=k1, b=b), expected)


def test_unknown_words_tell_nothing_and_a_copy_is_found():
    assert not bm25(TRAIN, [np.array([99])]).any()
    longest = max(range(len(TRAIN)), key=lambda i: len(set(TRAIN[i].tolist())))
    assert bm25(TRAIN, [TRAIN[longest]]).argmax() == longest


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], QUERY), {}, "at least one text"),
        (([np.array([], int)], QUERY), {}, "at least one token"),
        ((TRAIN, QUERY), {"k1": -1.0}, "k1=-1.0"),
        ((TRAIN, QUERY), {"b": 1.1}, "b=1.1"),
    ],
)
def test_misuse_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        bm25(*arguments, **options)
