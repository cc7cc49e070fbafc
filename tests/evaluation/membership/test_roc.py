import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxunlearn.evaluation.membership.roc import (
    MUSE_REFERENCE_AUC,
    against_reference,
    auc,
    privleak,
    roc_curve,
    s_mia,
    separation,
    tpr_at_fpr,
)

tied = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def as_sklearn(forget, holdout):
    labels = np.repeat([0, 1], [len(forget), len(holdout)])
    return labels, np.concatenate([forget, holdout]).astype(float)


@settings(deadline=None, max_examples=60)
@given(tied, tied)
def test_auc_and_curve_are_those_of_scikit_learn_ties_included(forget, holdout):
    labels, scores = as_sklearn(forget, holdout)
    expected = metrics.roc_auc_score(labels, scores)
    assert auc(forget, holdout) == pytest.approx(expected, abs=1e-14)
    # There positives have high scores; here members, label 0, have low ones.
    fpr, tpr, threshold = metrics.roc_curve(
        1 - labels, -scores, drop_intermediate=False
    )
    curve = roc_curve(forget, holdout)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.true_positive_rate, tpr)
    np.testing.assert_array_equal(curve.threshold[1:], -threshold[1:])
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(expected, abs=1e-14)


@settings(deadline=None, max_examples=60)
@given(tied, tied, st.sampled_from([0.0, 0.01, 0.1, 0.34, 1.0]))
def test_tpr_is_the_best_of_all_thresholds(forget, holdout, max_fpr):
    forget, holdout = np.array(forget), np.array(holdout)
    best = 0.0
    for threshold in np.arange(-1, 8):
        if np.mean(holdout <= threshold) <= max_fpr:
            best = max(best, np.mean(forget <= threshold))
    assert tpr_at_fpr(forget, holdout, max_fpr=max_fpr) == best


def test_direction_symmetry_and_invariance():
    rng = np.random.default_rng(0)
    forget, holdout = rng.normal(size=40), 0.5 + rng.normal(size=30)
    assert auc([0.0, 1.0], [2.0, 3.0]) == 1.0
    assert auc([2.0, 3.0], [0.0, 1.0]) == 0.0
    assert auc(forget, forget) == 0.5
    assert auc(forget, holdout) > 0.5
    assert auc(holdout, forget) == pytest.approx(1 - auc(forget, holdout))
    assert auc(np.exp(forget), np.exp(holdout)) == auc(forget, holdout)
    assert auc([1.0, np.inf], [np.inf, np.inf]) == 0.75
    assert tpr_at_fpr([0.0, 1.0], [2.0, 3.0]) == 1.0
    # One in a hundred may be called falsely, two may not.
    holdout = np.arange(100.0)
    assert tpr_at_fpr([0.5, 1.5], holdout) == 0.5
    assert tpr_at_fpr([0.5, 1.5], holdout, max_fpr=0.02) == 1.0


def test_privleak_of_the_reference_is_0_and_of_a_full_memory_minus_100():
    for reference in (0.3, 0.5, *MUSE_REFERENCE_AUC.values()):
        assert privleak(reference, reference) == 0
        assert privleak(1.0, reference) == pytest.approx(-100)
        assert privleak(0.99, reference) < 0 < privleak(0.01, reference)
    # As published: 100 (A - A_ref) / A_ref in MUSE's own areas, A = 1 - AUC.
    assert privleak(1 - 0.2, MUSE_REFERENCE_AUC["news"]) == pytest.approx(
        100 * (0.2 - 0.4772) / 0.4772
    )
    assert privleak(1 - 0.8, MUSE_REFERENCE_AUC["books"]) == pytest.approx(
        100 * (0.8 - 0.5393) / 0.5393
    )


def test_s_mia_is_1_at_the_reference_and_never_below_0():
    assert s_mia(0.55, 0.55) == 1
    assert s_mia(0.6, 0.5) == pytest.approx(0.8)
    assert s_mia(0.4, 0.5) == pytest.approx(0.8)
    assert s_mia(1.0, 0.4) == 0


def test_intervals_hold_the_value_and_shrink_with_more_examples():
    rng = np.random.default_rng(1)
    lengths = []
    for size in (30, 300):
        forget, holdout = rng.normal(size=size), 1 + rng.normal(size=size)
        found = separation(forget, holdout, resamples=200, level=0.9)
        assert found.auc.value == auc(forget, holdout)
        assert found.tpr_at_fpr.value == tpr_at_fpr(forget, holdout)
        for interval in found:
            assert interval.low <= interval.value <= interval.high
            assert interval.level == 0.9
        lengths.append(found.auc.high - found.auc.low)
    assert lengths[1] < 0.6 * lengths[0]
    rate = separation(forget, holdout, max_fpr=0.2, resamples=5).tpr_at_fpr
    assert rate.value == tpr_at_fpr(forget, holdout, max_fpr=0.2)


def test_both_models_scores_of_an_example_are_drawn_together():
    rng = np.random.default_rng(2)
    forget, holdout = rng.normal(size=(2, 40))
    same = against_reference(
        s_mia, forget, holdout, reference_forget=forget, reference_holdout=holdout
    )
    assert same[:3] == (1, 1, 1)
    other = against_reference(
        privleak,
        forget,
        holdout,
        reference_forget=rng.normal(size=40),
        reference_holdout=holdout,
        resamples=100,
    )
    assert other.low < other.value < other.high


@pytest.mark.parametrize("function", [auc, roc_curve, tpr_at_fpr, separation])
@pytest.mark.parametrize(
    ("forget", "holdout", "message"),
    [
        ([], [1.0], "forget has shape"),
        ([1.0], [], "holdout has shape"),
        ([[1.0]], [1.0], "forget has shape"),
        ([1.0], [1.0, np.nan], "holdout holds NaN"),
        ([-np.inf], [1.0], "forget holds NaN or -inf"),
    ],
)
def test_what_has_no_order_is_refused(function, forget, holdout, message):
    with pytest.raises(ValueError, match=message):
        function(forget, holdout)


def test_missing_or_senseless_references_are_refused():
    for function in (privleak, s_mia):
        with pytest.raises(TypeError):
            function(0.5)
        for bad in (-0.1, 1.1, np.nan):
            with pytest.raises(ValueError, match="^auc="):
                function(bad, 0.5)
            with pytest.raises(ValueError, match="reference_auc="):
                function(0.5, bad)
    with pytest.raises(ValueError, match="apart completely"):
        privleak(0.5, 1.0)
    with pytest.raises(ValueError, match="sign of the scores"):
        s_mia(0.5, 0.0)
    with pytest.raises(ValueError, match="max_fpr"):
        tpr_at_fpr([1.0], [1.0], max_fpr=1.5)
    with pytest.raises(ValueError, match="same examples"):
        against_reference(
            privleak, [1.0], [1.0], reference_forget=[1, 2], reference_holdout=[1.0]
        )
