import math

import numpy as np
import pytest

from jaxunlearn.evaluation import utility
from jaxunlearn.evaluation.utility import OPEN_UNLEARNING_EPSILON

DRAWS = np.random.default_rng(0)
LOSSES = DRAWS.exponential(size=40)
WRONG = [DRAWS.exponential(size=3 + i % 3) + 1 for i in range(40)]


@pytest.mark.parametrize("epsilon", [0.0, OPEN_UNLEARNING_EPSILON])
def test_ratios_equal_their_definition(epsilon):
    right = np.exp(-LOSSES)
    geometric = np.array([np.prod(np.exp(-w)) ** (1 / len(w)) for w in WRONG])
    arithmetic = np.array([np.mean(np.exp(-w)) for w in WRONG])
    total = np.array([np.sum(np.exp(-w)) for w in WRONG])
    for found, expected in (
        (utility.truth_ratio(LOSSES, WRONG, epsilon=epsilon), geometric),
        (
            utility.truth_ratio(LOSSES, WRONG, mean="arithmetic", epsilon=epsilon),
            arithmetic,
        ),
    ):
        np.testing.assert_allclose(found, expected / (right + epsilon), rtol=1e-12)
    np.testing.assert_allclose(
        utility.normalised_probability(LOSSES, WRONG, epsilon=epsilon),
        right / (right + total + epsilon),
        rtol=1e-12,
    )


def test_aggregates_equal_their_definition():
    ratios = utility.truth_ratio(LOSSES, WRONG)
    right = np.exp(-LOSSES)
    wrong = ratios * right
    np.testing.assert_allclose(
        utility.closeness_to_one(ratios), [min(r, 1 / r) for r in ratios]
    )
    np.testing.assert_allclose(
        utility.preference_for_truth(ratios), [max(0, 1 - r) for r in ratios]
    )
    np.testing.assert_allclose(utility.share_of_truth(ratios), right / (right + wrong))


def test_a_collapsed_model_gives_numbers_and_no_nan():
    losses, wrong = np.array([900.0, 2000.0]), [[950.0, 940.0], [5.0, 6.0]]
    ratios = utility.truth_ratio(losses, wrong)
    assert ratios[1] == math.inf
    np.testing.assert_allclose(ratios[0], math.exp(-45))
    assert utility.closeness_to_one(ratios)[1] == 0
    assert utility.preference_for_truth(ratios)[1] == 0
    assert utility.share_of_truth(ratios)[1] == 0
    shares = utility.normalised_probability(losses[:1], wrong[:1])
    np.testing.assert_allclose(shares, 1 / (1 + math.exp(-50) + math.exp(-40)))
    # With OpenUnlearning's term all is 0: what pulls its collapsed models' ratios down.
    pulled = utility.truth_ratio(losses[:1], wrong[:1], epsilon=OPEN_UNLEARNING_EPSILON)
    assert pulled[0] == 0


@pytest.mark.parametrize("n", [40, 200, 300, 400])
def test_separated_samples_meet_the_floor_of_forget_quality(n):
    found = utility.forget_quality(np.arange(n), np.arange(n) + n)
    assert found.statistic == 1
    floor = 2 / math.comb(2 * n, n)
    np.testing.assert_allclose(found.p_value, floor, rtol=1e-9)
    np.testing.assert_allclose(found.log10_p_value, math.log10(floor), rtol=1e-9)


def test_forget_quality_sees_only_the_order():
    a, b = np.exp(LOSSES), np.exp(LOSSES[::2] + 0.3)
    found = utility.forget_quality(a, b)
    np.testing.assert_allclose(utility.forget_quality(1 / a, 1 / b), found, rtol=1e-9)
    np.testing.assert_allclose(utility.forget_quality(b, a), found, rtol=1e-9)
    assert utility.forget_quality(a, a).p_value == 1


def test_model_utility_is_zero_with_any_part():
    parts = [0.5] * 9
    assert utility.model_utility(parts) == pytest.approx(0.5)
    assert utility.model_utility([*parts[:8], 0.0]) == 0
    assert utility.harmonic_mean([1 / 3, 1.0]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: utility.truth_ratio([1.0], []), "0 questions"),
        (lambda: utility.truth_ratio([1.0], [[]]), r"questions \[0\]"),
        (lambda: utility.truth_ratio([1.0], [[1.0]], mean="x"), "mean='x'"),
        (lambda: utility.forget_quality([], [1.0]), "ratios"),
        (lambda: utility.forget_quality([1.0], [math.nan]), "retained_ratios"),
        (lambda: utility.model_utility([1.0] * 8), "8 numbers"),
        (lambda: utility.harmonic_mean([]), "at least one"),
        (lambda: utility.harmonic_mean([-1.0]), "0 or more"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
