import itertools

import numpy as np
import pytest

from jaxunlearn.evaluation.attacks import Recovered, curve, largest_mean, recovery
from jaxunlearn.evaluation.attacks.recovered import largest_so_far


@pytest.fixture
def found():
    values = np.random.default_rng(0).uniform(size=(3, 30))
    return Recovered((0, 1, 2), values)


def test_a_model_against_itself_is_exactly_nothing(found):
    result = recovery(found, found)
    assert not result.recovers
    for part in (result.excess, result.unattacked, result.added):
        assert part[:3] == (0.0, 0.0, 0.0)


def test_what_was_there_and_what_the_attack_adds(found):
    noise = np.random.default_rng(1).normal(scale=0.01, size=(3, 30))
    steps = np.array([[0.2], [0.3], [0.6]])
    more = Recovered(found.strengths, found.values + steps + noise)
    result = recovery(more, found)
    assert result.recovers
    for part, truth in (
        (result.excess, 0.6),
        (result.unattacked, 0.2),
        (result.added, 0.4),
    ):
        assert part.low < truth < part.high
        assert part.low > truth - 0.02
    assert not recovery(found, more).recovers
    alone = recovery(more, found, starts_unattacked=False)
    assert (alone.unattacked, alone.added) == (None, None)
    assert alone.excess == result.excess


def test_rows_that_only_noise_sets_apart_are_seldom_taken_for_a_recovery():
    draw = np.random.default_rng(2)
    seen = [
        largest_mean(draw.normal(size=(8, 20)), seed=i, resamples=300).low > 0
        for i in range(200)
    ]
    # One side of a 95 % band: 2.5 %, give or take three standard errors. The largest
    # mean with its own percentile interval would be above 0 in about a fifth.
    assert np.mean(seen) < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 200)


def test_the_band_of_one_row_is_the_student_interval():
    from scipy.stats import t

    values = np.random.default_rng(3).normal(size=(1, 50))
    found = largest_mean(values, resamples=20000)
    half = t.ppf(0.975, 49) * values.std(ddof=1) / np.sqrt(50)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.03)
    assert found.value - found.low == pytest.approx(half, rel=0.03)


def test_more_rows_widen_the_band_and_the_order_of_rows_does_not_matter():
    values = np.random.default_rng(4).normal(size=(4, 25))
    widths = [largest_mean(values[:k]).high - values[:k].mean(1).max() for k in (1, 4)]
    assert widths[1] > 0
    for order in itertools.islice(itertools.permutations(range(4)), 6):
        again = largest_mean(values[list(order)])
        np.testing.assert_allclose(again, largest_mean(values), rtol=1e-12)
    # A row repeated is no further chance to be large.
    repeated = largest_mean(np.repeat(values[:1], 5, axis=0))
    np.testing.assert_allclose(repeated, largest_mean(values[:1]), rtol=1e-12)


def test_a_sure_small_mean_counts_beside_an_unsure_large_one():
    draw = np.random.default_rng(5)
    sure, unsure = draw.normal(0.5, 0.01, size=40), draw.normal(1.0, 20.0, size=40)
    found = largest_mean(np.stack([sure, unsure - unsure.mean() + 1.0]))
    assert found.value == pytest.approx(1.0)
    assert 0.45 < found.low < 0.5
    assert found.high > 5


def test_a_constant_difference_needs_no_spread():
    assert largest_mean(np.full((2, 4), 0.5))[:3] == (0.5, 0.5, 0.5)


def test_curves_hold_the_means(found):
    points = curve(found, resamples=50)
    assert [p.x for p in points] == [0, 1, 2]
    np.testing.assert_allclose([p.value for p in points], found.values.mean(axis=1))
    assert all(p.low < p.value < p.high for p in points)


def test_the_best_so_far():
    values = largest_so_far([[1, 5], [3, 4], [2, 6]])
    np.testing.assert_array_equal(values, [[1, 5], [3, 5], [3, 6]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f._replace(strengths=(0, 1, 3)), "attack both alike"),
        (lambda f: f._replace(values=f.values[:, :5]), "the same examples"),
        (lambda f: f._replace(values=f.values * np.nan), "not finite"),
        (lambda f: f._replace(values=f.values[0]), r"\[strengths, examples\]"),
        (lambda f: f._replace(values=f.values[:, :0]), "at least one"),
    ],
)
def test_bad_input(found, change, message):
    with pytest.raises(ValueError, match=message):
        recovery(found, change(found))


def test_one_example_has_no_interval():
    with pytest.raises(ValueError, match="1 examples"):
        largest_mean(np.ones((2, 1)))


def test_what_is_sure_and_too_small_to_matter_is_no_recovery():
    small = 1e-4 + 1e-6 * np.random.default_rng(0).normal(size=(1, 40))
    ours, theirs = Recovered((0,), small), Recovered((0,), np.zeros((1, 40)))
    assert recovery(ours, theirs).recovers
    found = recovery(ours, theirs, least=0.01)
    assert found.excess.low > 0
    assert not found.recovers
