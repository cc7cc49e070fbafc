import math

import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients.kronecker.layout import Matrix
from jaxunlearn.influence.planner.search import (
    batch_sizes,
    expression,
    largest_fitting,
    split_evenly,
)

SIZES = [2**i for i in range(13)]


@pytest.mark.parametrize(
    "need",
    [
        lambda size: 1000 + 7 * size,
        lambda size: 1000 + size**2,
        lambda size: 1000 + 50 * math.log2(size),
        lambda size: 1000 + 300 * min(size, 4),
        lambda size: 1000 if size < 64 else 10**6,
    ],
    ids=["affine", "convex", "concave", "saturated", "step"],
)
def test_the_largest_that_fits_is_found_and_the_next_was_seen_not_to(need):
    for limit in [1000, 1007, 1500, 2200, 5000, 28672 + 1000, 10**6, 10**9]:
        seen = []

        def noted(size, seen=seen):
            seen.append(size)
            return need(size)

        found = largest_fitting(SIZES, noted, limit)
        fitting = [i for i, size in enumerate(SIZES) if need(size) <= limit]
        assert found == max(fitting, default=None)
        assert len(seen) == len(set(seen))
        if found is not None and found + 1 < len(SIZES):
            assert SIZES[found + 1] in seen


def test_a_line_needs_few_tries():
    for limit in np.geomspace(1100, 30000, 20):
        seen = []

        def need(size, seen=seen):
            seen.append(size)
            return 1000 + 7 * size

        largest_fitting(SIZES, need, limit)
        assert len(seen) <= 5


def test_sizes_are_powers_of_two_and_all_there_is():
    assert batch_sizes(1, 256) == [1]
    assert batch_sizes(64, 256) == [1, 2, 4, 8, 16, 32, 64]
    assert batch_sizes(5, 256) == [1, 2, 4, 5]
    assert batch_sizes(1000, 7) == [1, 2, 4]


H = ("h",)
PARAMS = {
    "h": {
        "dense": {"kernel": np.ones((3, 4, 5)), "bias": np.ones((3, 5))},
        "d.nse": {"kernel": np.ones((3, 2, 2))},
    },
    "dense": {"kernel": np.ones((4, 5))},
}
MATRICES = (
    Matrix(("h/dense/kernel", "h/dense/bias"), ((3, 4, 5), (3, 5)), (3,), 5, 5, (0, 2)),
    Matrix(("h/d.nse/kernel",), ((3, 2, 2),), (3,), 2, 2, (0, 1, 2)),
    Matrix(("dense/kernel",), ((4, 5),), (), 4, 5, (0,)),
)


def test_expressions_select_exactly_their_matrices():
    for matrix in MATRICES:
        mask = tree.select(PARAMS, expression([matrix], H), stacked=H)
        names = {name for name, _ in tree.selected_slices(PARAMS, mask, stacked=H)}
        expected = {
            label
            for leaf, shape in zip(matrix.leaves, matrix.shapes, strict=True)
            for i, label in enumerate(tree.layer_names(leaf, np.ones(shape), H))
            if i in matrix.chosen
        }
        assert names == expected
    everything = tree.select(PARAMS, expression(MATRICES, H), stacked=H)
    assert tree.selected_size(PARAMS, everything) == 2 * (20 + 5) + 12 + 20


def test_parts_hold_each_matrix_once_and_are_about_even():
    parts = split_evenly(MATRICES, 2)
    assert sorted(m.name for part in parts for m in part) == sorted(
        m.name for m in MATRICES
    )
    # The one that outweighs the others stands alone.
    assert [m.name for m in parts[0]] == ["h/dense"]
    assert [len(part) for part in split_evenly(MATRICES, 3)] == [1, 1, 1]
