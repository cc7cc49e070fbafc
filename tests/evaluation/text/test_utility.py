import itertools
import math

import numpy as np
import pytest

from jaxunlearn.evaluation.text import kolmogorov_smirnov, utility
from jaxunlearn.evaluation.text.utility import OPEN_UNLEARNING_EPSILON

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
    found = kolmogorov_smirnov.forget_quality(np.arange(n), np.arange(n) + n)
    assert found.statistic == 1
    floor = 2 / math.comb(2 * n, n)
    np.testing.assert_allclose(found.p_value, floor, rtol=1e-9)
    np.testing.assert_allclose(found.log10_p_value, math.log10(floor), rtol=1e-9)


@pytest.mark.parametrize("n", [560, 900])
def test_forget_quality_goes_below_the_smallest_number(n):
    found = kolmogorov_smirnov.forget_quality(np.arange(n), np.arange(n) + 5000.0)
    counted = math.comb(2 * n, n) // 2  # too large for a float; Python takes its log
    assert found.log10_p_value == pytest.approx(-math.log10(counted), rel=1e-9)
    if n == 560:
        assert found.log10_p_value == pytest.approx(-335.23, abs=5e-3)


def test_the_log_of_p_is_the_exact_test_of_scipy_whatever_the_sizes():
    from scipy.stats import ks_2samp

    draws = np.random.default_rng(1)
    for n, m in ((1, 1), (5, 7), (40, 31), (3, 90), (120, 119), (90, 30)):
        a, b = draws.normal(size=n), draws.normal(size=m) + draws.random()
        expected = ks_2samp(a, b, method="exact")
        found = kolmogorov_smirnov.forget_quality(a, b)
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.log10_p_value == pytest.approx(math.log10(found.p_value), abs=1e-9)


def test_paths_are_counted_one_by_one():
    n, m = 4, 3
    paths = [
        np.cumsum([[i in up, i not in up] for i in range(n + m)], axis=0)
        for up in itertools.combinations(range(n + m), n)
    ]
    far = np.array([np.abs(path @ [m, -n]).max() for path in paths])
    for apart in range(n * m + 1):
        share = np.mean(far >= apart)
        found = kolmogorov_smirnov.log_kolmogorov_smirnov(apart, n, m)
        assert math.exp(found) == pytest.approx(share, rel=1e-12)


def test_an_impossible_answer_is_a_value():
    lost, sound = math.inf, 1.0
    wrong = [[lost, lost], [1.0, lost], [lost, lost], [1.0, 2.0], [900.0, 901.0]]
    losses = [lost, lost, sound, math.nan, 900.0]
    for mean in utility.MEANS:
        found = utility.truth_ratio(losses, wrong, mean=mean)
        assert found[0] == 1
        assert found[2] == 0
        assert np.isnan(found[3])
    assert utility.truth_ratio(losses, wrong, mean="arithmetic")[1] == math.inf
    found = utility.normalised_probability(losses, wrong)
    assert found[:3].tolist() == [0, 0, 1]
    assert found[4] == pytest.approx(1 / (2 + math.exp(-1)), rel=1e-9)
    assert utility.probability([lost, 800.0]).tolist() == [0, 0]
    assert utility.closeness_to_one([math.inf, 0.0]).tolist() == [0, 0]
    assert utility.preference_for_truth([math.inf]).tolist() == [0]
    assert utility.share_of_truth([math.inf]).tolist() == [0]


def test_the_harmonic_mean_of_tiny_numbers_is_tiny_not_0():
    tiny = 5e-309
    assert utility.harmonic_mean([tiny, 1.0]) == pytest.approx(2 * tiny, rel=1e-9)


def test_forget_quality_sees_only_the_order():
    a, b = np.exp(LOSSES), np.exp(LOSSES[::2] + 0.3)
    found = kolmogorov_smirnov.forget_quality(a, b)
    np.testing.assert_allclose(
        kolmogorov_smirnov.forget_quality(1 / a, 1 / b), found, rtol=1e-9
    )
    np.testing.assert_allclose(
        kolmogorov_smirnov.forget_quality(b, a), found, rtol=1e-9
    )
    assert kolmogorov_smirnov.forget_quality(a, a).p_value == 1


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
        (lambda: kolmogorov_smirnov.forget_quality([], [1.0]), "ratios"),
        (
            lambda: kolmogorov_smirnov.forget_quality([1.0], [math.nan]),
            "retained_ratios",
        ),
        (lambda: utility.model_utility([1.0] * 8), "8 numbers"),
        (lambda: utility.harmonic_mean([]), "at least one"),
        (lambda: utility.harmonic_mean([-1.0]), "0 or more"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
