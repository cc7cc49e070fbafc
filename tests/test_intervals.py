import math

import numpy as np
import pytest
from scipy import stats

from jaxunlearn.intervals import bootstrap, mean_interval, paired_bootstrap


def test_the_interval_of_a_mean_nears_the_normal_one():
    values = np.random.default_rng(0).normal(size=4000)
    found = bootstrap(np.mean, values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == values.mean()
    # The quantiles of 4,000 resamples scatter by some 3 %.
    np.testing.assert_allclose(
        [found.low, found.high],
        [found.value - half, found.value + half],
        atol=0.1 * half,
    )


def test_nine_in_ten_intervals_hold_the_truth():
    draws = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        found = bootstrap(
            np.mean, draws.exponential(size=60), resamples=200, level=0.9, seed=trial
        )
        held += found.low <= 1 <= found.high
    # Binomial with p = 0.9 less the bootstrap's known shortfall at this size.
    assert 0.82 <= held / 200 <= 0.96


def test_pairs_are_drawn_together():
    a = np.random.default_rng(2).normal(size=50)
    same = paired_bootstrap(lambda x, y: np.mean(x - y), a, a + 1)
    np.testing.assert_allclose(same[:3], -1)
    apart = bootstrap(lambda x, y: np.mean(x) - np.mean(y), a, a + 1)
    assert apart.high - apart.low > 0.3


def test_the_seed_decides_and_the_level_widens():
    values = np.arange(30.0)
    assert bootstrap(np.mean, values, seed=3) == bootstrap(np.mean, values, seed=3)
    wide, narrow = (bootstrap(np.mean, values, level=x) for x in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_constant_samples_have_an_interval_of_no_width():
    assert bootstrap(np.mean, np.full(9, 2.5))[:3] == (2.5, 2.5, 2.5)


def test_the_t_interval_is_scipys():
    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(mean_interval(values)[1:3], [low, high])


def test_one_seed_has_no_interval():
    found = mean_interval([3.0])
    assert found.value == 3
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap(np.mean, []), "empty"),
        (lambda: bootstrap(np.mean), "at least one"),
        (lambda: bootstrap(np.mean, [1.0, math.nan]), "NaN"),
        (lambda: bootstrap(np.mean, [1.0], level=1), "level=1"),
        (lambda: bootstrap(np.mean, [1.0], resamples=0), "resamples=0"),
        (lambda: paired_bootstrap(np.mean, [1.0], [1.0, 2.0]), "the same of each"),
        (lambda: mean_interval([]), "empty"),
    ],
)
def test_what_has_no_interval_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
