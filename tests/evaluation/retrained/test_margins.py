import math

import numpy as np
import pytest

from jaxunlearn.evaluation.retrained.margins import (
    MARGIN_LIMIT,
    classification_margin,
    language_model_margin,
)

EPS = float(np.finfo(np.float64).eps)


def test_the_margin_of_a_loss_is_its_log_odds():
    for p in (0.999, 0.75, 0.5, 0.4, 0.01):
        found = language_model_margin(-math.log(p))
        assert found == pytest.approx(math.log(p / (1 - p)), rel=1e-12, abs=1e-12)
    # Losses of both sides of each other: P and 1 - P.
    losses = np.array([1e-6, 0.1, 0.6, math.log(2), 0.8, 5.0])
    other = -np.log(-np.expm1(-losses))
    np.testing.assert_allclose(
        language_model_margin(losses), -language_model_margin(other), atol=1e-9
    )


def test_the_margin_is_safe_at_both_ends_and_grows_with_knowledge():
    # Near P = 1 it is -log L - L / 2, near P = 0 it is -L.
    for loss in (1e-40, 1e-20, 1e-8):
        expected = -math.log(loss) - loss / 2
        assert language_model_margin(loss) == pytest.approx(expected, rel=4 * EPS)
    for loss in (40.0, 700.0, 1e6):
        assert language_model_margin(loss) == -loss
    assert language_model_margin(0.0) == MARGIN_LIMIT
    assert language_model_margin(np.float32(0)) == MARGIN_LIMIT
    margins = language_model_margin(np.geomspace(1e-43, 1e4, 2000))
    assert (np.diff(margins) < 0).all()
    assert language_model_margin(np.ones((2, 3, 4))).shape == (2, 3, 4)


def test_the_margin_of_logits_is_the_log_odds_of_the_true_class():
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(4, 3, 6)) * 3
    labels = draws.integers(0, 6, (4, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = np.take_along_axis(p, labels[..., None], -1)[..., 0]
    found = classification_margin(logits, labels)
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-10, atol=1e-10)
    # With one loss for both, they are one thing.
    np.testing.assert_allclose(found, language_model_margin(-np.log(p)), atol=1e-10)
    # Logits have no zero of their own.
    np.testing.assert_allclose(classification_margin(logits + 9, labels), found)


def test_the_margin_of_logits_is_safe_where_probabilities_are_not():
    logits = np.array([[1e4, -1e4, 0.0], [1e4, 0.0, 0.0]])
    found = classification_margin(logits, np.array([0, 1]))
    assert found.tolist() == [1e4, -1e4]
    assert classification_margin([[800.0, 0.0]], [0]) == 800


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: language_model_margin([-1.0]), "negative or not finite"),
        (lambda: language_model_margin([np.nan]), "negative or not finite"),
        (lambda: language_model_margin([np.inf]), "negative or not finite"),
        (lambda: classification_margin([[1.0, 2.0]], [2]), "from 0 to 1"),
        (lambda: classification_margin([[1.0, 2.0]], [-1]), "from 0 to 1"),
        (lambda: classification_margin([[1.0, 2.0]], [0.0]), "whole numbers"),
        (lambda: classification_margin([[1.0]], [0]), "at least 2 classes"),
        (lambda: classification_margin([[1.0, 2.0]], [0, 1]), r"labels \(2,\)"),
        (lambda: classification_margin([[1.0, np.inf]], [0]), "not finite"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
