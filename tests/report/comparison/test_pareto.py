import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxunlearn.report import pareto_front


def _beaten(point, others):
    return any(
        other != point and other[0] <= point[0] and other[1] <= point[1]
        for other in others
    )


_NUMBERS = st.integers(0, 6).map(float) | st.floats(allow_nan=False)


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=12))
def test_the_front_is_what_no_other_point_beats(points):
    finite = [point for point in points if all(map(math.isfinite, point))]
    expected = [
        i
        for i, point in enumerate(points)
        if all(map(math.isfinite, point)) and not _beaten(point, finite)
    ]
    found = pareto_front(points)
    assert sorted(found) == expected
    assert found == sorted(found, key=lambda i: (points[i], i))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_on_the_front_and_beats_nothing(bad):
    points = [(bad, 0.0), (0.0, bad), (bad, bad), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0)]
    assert pareto_front(points) == [3, 4]


def test_equal_points_are_on_the_front_together():
    assert pareto_front([(1.0, 1.0), (0.0, 2.0), (1.0, 1.0)]) == [1, 0, 2]
    assert pareto_front([]) == []
