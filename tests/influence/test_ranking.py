"""Both ends of a ranking, and the errors of scores that cannot be ranked."""

import dataclasses

import numpy as np
import pytest

from jaxunlearn.influence import InfluenceScores, extremes


@pytest.fixture
def found():
    """Scores of three queries with five examples, whose positions are not 0 to 4."""
    rng = np.random.default_rng(0)
    return InfluenceScores(
        scores=rng.normal(size=(3, 5)).astype(np.float32),
        method="gradient_dot",
        coverage={},
        curvature="none",
        damping=None,
        notes=("the solver said why",),
        index=np.array([7, 3, 9, 1, 4]),
    )


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_each_end_is_the_sorted_row(found, k):
    ends = extremes(found, k=k)
    for row, up, down in zip(
        found.scores, ends.proponents.ids, ends.opponents.ids, strict=True
    ):
        order = sorted(range(5), key=lambda i: row[i])
        assert down.tolist() == found.index[order][:k].tolist()
        assert up.tolist() == found.index[order[::-1]][:k].tolist()
    places = {index: place for place, index in enumerate(found.index)}
    for end in ends:
        at = np.vectorize(places.get)(end.ids)
        expected = np.take_along_axis(found.scores, at, 1)
        np.testing.assert_array_equal(end.scores, expected)


def test_of_equal_scores_the_earlier_example_is_the_first_proponent(found):
    equal = dataclasses.replace(found, scores=np.ones((1, 5), np.float32))
    ends = extremes(equal, k=2)
    assert ends.proponents.ids.tolist() == [[7, 3]]
    assert ends.opponents.ids.tolist() == [[4, 1]]


def test_only_the_queries_that_are_asked_for_need_be_finite(found):
    scores = found.scores.copy()
    scores[2, 1] = np.nan
    broken = dataclasses.replace(found, scores=scores)
    assert len(extremes(broken, k=2, queries=2).proponents.ids) == 2
    with pytest.raises(ValueError, match=r"1 scores of query 2 .* said why"):
        extremes(broken, k=2)
    silent = dataclasses.replace(broken, notes=())
    with pytest.raises(ValueError, match="raise damping="):
        extremes(silent, k=2)
