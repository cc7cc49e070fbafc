import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.influence.truth.removal_curves import (
    RemovalCurve,
    brittleness,
    removal_curve,
)

DRAW = np.random.default_rng(0)
QUERIES, EXAMPLES = 3, 12
SCORES = DRAW.normal(size=(QUERIES, EXAMPLES)).astype(np.float32)


def train(weights, seed):
    """A run whose query losses rise by exactly the scores of what is left out."""
    return jnp.asarray(SCORES) @ (1.0 - weights) + seed


def test_removing_top_proponents_takes_their_scores_away():
    counts = [1, 4, 11]
    curve = removal_curve(train, SCORES, counts, repeats=5, seeds=(0, 2), group=4)
    best = -np.sort(-SCORES, axis=1)
    expected = 1 + np.cumsum(best, axis=1)[:, np.array(counts) - 1]
    np.testing.assert_allclose(curve.top, expected, atol=1e-5)
    np.testing.assert_allclose(curve.before, 1.0, atol=1e-6)
    assert curve.random.shape == (QUERIES, 3, 5)
    # Nothing raises a query's loss more than its own top proponents do.
    assert (curve.random <= curve.top[:, :, None] + 1e-5).all()
    # Of each size 11 of 12 are gone: all but one example's score.
    left = 1 + SCORES.sum(axis=1, keepdims=True) - SCORES
    gaps = np.abs(curve.random[:, -1, :, None] - left[:, None, :]).min(axis=-1)
    assert gaps.max() < 1e-5


def test_random_removals_are_nested_and_follow_their_seed():
    curve = removal_curve(train, np.zeros_like(SCORES), [1, 2], repeats=3, seed=1)
    steps = curve.random[:, 1] - curve.random[:, 0]
    gaps = np.abs(steps[:, :, None] - SCORES[:, None, :]).min(axis=-1)
    assert gaps.max() < 1e-5
    again = removal_curve(train, np.zeros_like(SCORES), [1, 2], repeats=3, seed=1)
    np.testing.assert_array_equal(curve.random, again.random)


def test_brittleness_counts_the_known_queries_that_are_lost():
    curve = RemovalCurve(
        np.array([1, 2]),
        before=np.array([-1.0, -1.0, 0.5]),
        top=np.array([[-0.5, 0.5], [0.0, 1.0], [9.0, 9.0]]),
        random=np.array([[[-1, -1], [-1, 1]], [[-1] * 2] * 2, [[9.0] * 2] * 2]),
    )
    top, random = brittleness(curve)
    assert top.tolist() == [0.5, 1.0]
    assert random.tolist() == [0.0, 0.25]
    with pytest.raises(ValueError, match="threshold=-2.*run from -1 to 0.5"):
        brittleness(curve, threshold=-2.0)


@pytest.mark.parametrize(
    ("counts", "repeats"), [([], 1), ([0], 1), ([EXAMPLES], 1), ([1], 0)]
)
def test_counts_out_of_range_are_refused(counts, repeats):
    with pytest.raises(ValueError, match="counts in 1..11"):
        removal_curve(train, SCORES, counts, repeats=repeats)


def test_a_run_with_other_queries_is_refused():
    with pytest.raises(ValueError, match="3 outcomes, scores have 2 queries"):
        removal_curve(train, SCORES[:2], [1])
