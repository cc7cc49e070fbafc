import itertools
import random

import numpy as np
import pytest

from jaxunlearn.data.requests.shingling import candidate_pairs, jaccard_scores, shingles

WORDS = [f"word{i}" for i in range(400)]


def mutated(n, seed=0):
    """Texts of 40 words, and copies with 0 to 5 words replaced."""
    choose = random.Random(seed)
    texts = [choose.choices(WORDS, k=40) for _ in range(n)]
    copies = []
    for i, text in enumerate(texts):
        copy = list(text)
        for position in choose.sample(range(40), i % 6):
            copy[position] = "other"
        copies.append(copy)
    return [[shingles(" ".join(t)) for t in group] for group in (texts, copies)]


def test_shingles_are_all_runs_of_three_words():
    text = " ".join(WORDS[:9])
    runs = {" ".join(WORDS[i : i + 3]) for i in range(7)}
    assert shingles(text) == runs
    assert shingles(text.upper() + " !") == runs


def test_a_short_text_is_one_run_and_an_empty_one_none():
    assert shingles("Mara Velkin") == {"mara velkin"}
    assert shingles("...") == frozenset()


def test_jaccard_scores_are_the_best_over_the_pairs():
    wanted, found = mutated(12)
    pairs = list(itertools.product(range(12), range(12)))
    expected = [max(len(a & b) / len(a | b) for a in wanted) for b in found]
    np.testing.assert_array_equal(jaccard_scores(wanted, found, pairs), expected)
    assert jaccard_scores([frozenset()], [frozenset()], [(0, 0)]) == [0]


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9, 1.0])
def test_candidates_hold_nearly_all_pairs_above_the_threshold(threshold):
    wanted, found = mutated(120)
    pairs = set(candidate_pairs(wanted, found, threshold=threshold))
    close = {
        (k, i)
        for k, i in itertools.product(range(120), range(120))
        if len(wanted[k] & found[i]) >= threshold * len(wanted[k] | found[i])
    }
    assert {(i, i) for i in range(0, 120, 6)} <= close & pairs  # the equal ones, always
    assert len(close & pairs) >= 0.99 * len(close)
    assert pairs == set(candidate_pairs(wanted, found, threshold=threshold))
