import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxunlearn.influence.truth.subset_training import random_subsets
from jaxunlearn.influence.truth.validation import (
    leave_one_out,
    linear_datamodelling_score,
    rank_correlation,
)

DRAW = np.random.default_rng(0)
QUERIES, EXAMPLES, SUBSETS = 4, 20, 40
SCORES = DRAW.normal(size=(QUERIES, EXAMPLES)).astype(np.float32)
MASKS = random_subsets(SUBSETS, EXAMPLES, fraction=0.5)


def linear_run(weights, seed):
    """A training run whose query losses fall by exactly the scores."""
    return 3.0 + seed - jnp.asarray(SCORES) @ weights


def losses_of(noise=0.0):
    exact = 3.0 - MASKS @ SCORES.T
    return exact + noise * DRAW.normal(size=exact.shape)


def test_leaving_out_shows_the_scores_of_a_linear_run():
    found = leave_one_out(linear_run, EXAMPLES, seeds=(0, 5))
    np.testing.assert_allclose(found, SCORES, atol=1e-5)
    some = leave_one_out(linear_run, EXAMPLES, which=[7, 2], group=1)
    np.testing.assert_allclose(some, SCORES[:, [7, 2]], atol=1e-5)


@pytest.mark.parametrize("which", [[], [20], [-1]])
def test_leaving_out_an_example_that_is_not_there_is_refused(which):
    with pytest.raises(ValueError, match="which="):
        leave_one_out(linear_run, EXAMPLES, which=which)


def test_true_scores_have_one_and_turned_scores_minus_one():
    losses = losses_of()
    assert linear_datamodelling_score(SCORES, MASKS, losses).mean == pytest.approx(1)
    assert linear_datamodelling_score(-SCORES, MASKS, losses).mean == pytest.approx(-1)


def test_scale_and_shift_of_a_query_do_not_matter_and_nothing_counts_as_zero():
    losses = losses_of(noise=2.0)
    expected = linear_datamodelling_score(SCORES, MASKS, losses)
    scale = np.array([[1e-6], [1.0], [3.0], [1e6]])
    found = linear_datamodelling_score(scale * SCORES, MASKS, losses)
    np.testing.assert_allclose(found.per_query, expected.per_query)
    constant = linear_datamodelling_score(np.ones_like(SCORES), MASKS, losses)
    assert constant.mean == 0


def test_it_is_scipys_correlation_of_each_query():
    losses = losses_of(noise=2.0).round()
    scores = SCORES.round()
    found = linear_datamodelling_score(scores, MASKS, losses, resamples=2)
    for q in range(QUERIES):
        expected = scipy.stats.spearmanr(MASKS @ scores[q], -losses[:, q]).statistic
        assert found.per_query[q] == pytest.approx(expected)
    assert found.mean == pytest.approx(found.per_query.mean())


def test_the_intervals_cover_the_truth_as_often_as_they_say():
    """Bivariate normal rows of known correlation: 200 repetitions at 80 %."""
    draw = np.random.default_rng(3)
    truth = 6 / np.pi * np.arcsin(0.5 / 2)  # Spearman's of Pearson's 0.5
    covered = np.zeros(2)
    for _ in range(200):
        a = draw.normal(size=(12, 30))
        b = 0.5 * a + np.sqrt(1 - 0.5**2) * draw.normal(size=a.shape)
        found = rank_correlation(a, b, resamples=60, confidence=0.8)
        for i, (low, high) in enumerate((found.over_queries, found.over_runs)):
            covered[i] += low <= truth <= high
    # Rows and runs are independent, so either bootstrap sees all there is; the small
    # bias of Spearman's in samples of 30, and of the percentiles, is allowed for.
    assert (np.abs(covered / 200 - 0.8) < 0.12).all()


def test_intervals_narrow_with_more_of_what_they_resample():
    losses = losses_of(noise=3.0)
    wide = linear_datamodelling_score(SCORES, MASKS[:10], losses[:10])
    narrow = linear_datamodelling_score(SCORES, MASKS, losses)
    assert np.ptp(narrow.over_runs) < np.ptp(wide.over_runs)
    same = np.repeat(SCORES[:1], QUERIES, axis=0)
    equal = linear_datamodelling_score(same, MASKS, np.repeat(losses[:, :1], 4, axis=1))
    assert np.ptp(equal.over_queries) == pytest.approx(0)
    again = linear_datamodelling_score(SCORES, MASKS, losses)
    assert again.over_runs == narrow.over_runs
    other = linear_datamodelling_score(SCORES, MASKS, losses, seed=1)
    assert other.over_runs != narrow.over_runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SCORES, MASKS[:, :-1], losses_of()), "subset_masks"),
        ((SCORES[0], MASKS, losses_of()), r"scores \(20,\)"),
        ((SCORES, MASKS, losses_of().T), r"= \(40, 4\) needed; average over seeds"),
        ((SCORES, MASKS[:2], losses_of()[:2]), "2 runs"),
        ((SCORES * np.nan, MASKS, losses_of()), "predicted holds"),
        ((SCORES, MASKS, losses_of() + np.inf), "observed holds"),
    ],
)
def test_misuse_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_datamodelling_score(*arguments)


@pytest.mark.parametrize("options", [{"resamples": 0}, {"confidence": 1.0}])
def test_bad_options_of_the_bootstrap_are_refused(options):
    with pytest.raises(ValueError, match="resamples=.*confidence="):
        rank_correlation(SCORES, SCORES, **options)
    with pytest.raises(ValueError, match="two arrays"):
        rank_correlation(SCORES, SCORES[:2])
