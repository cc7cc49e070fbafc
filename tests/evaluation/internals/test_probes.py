import numpy as np
import pytest

from jaxunlearn.evaluation.internals.probes import (
    fit_softmax,
    linear_probe,
    nearest_neighbour_accuracy,
    stratified_folds,
)


def clusters(seed, *, size=60, width=6, classes=3, distance=1.0):
    """Gaussian clusters, and the class of each point."""
    draw = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centres = distance * draw.standard_normal((classes, width))
    return centres[labels] + draw.standard_normal((size, width)), labels


def test_separable_classes_are_found():
    features, labels = clusters(0, distance=40.0)
    probe = linear_probe(features, labels)
    assert probe.accuracy == 1.0
    assert probe.auc == 1.0
    assert probe.correct.all()
    assert probe.converged
    assert probe.chance == pytest.approx(1 / 3)


def test_noise_is_chance_though_it_could_be_learnt_by_heart():
    # More features than examples: a probe scored on what it was fitted to is perfect.
    draw = np.random.default_rng(3)
    features, labels = draw.standard_normal((400, 500)), np.arange(400) % 2
    weights, bias, _ = fit_softmax(features, labels, 2, 1.0)
    assert ((features @ weights + bias).argmax(axis=1) == labels).all()
    probe = linear_probe(features, labels)
    # Four standard deviations of a fair coin thrown 400 times.
    assert abs(probe.accuracy - 0.5) < 4 * 0.5 / 20
    assert abs(probe.auc - 0.5) < 0.1


def test_held_out_examples_do_not_reach_the_fit():
    features, labels = clusters(1)
    fold = stratified_folds(labels, 5, 0)
    probe = linear_probe(features, labels, folds=5, seed=0)
    # The same by hand, one fold left out and everything learnt from the others.
    for number in range(5):
        seen, held = fold != number, fold == number
        mean, deviation = features[seen].mean(0), features[seen].std(0)
        x = (features - mean) / deviation
        weights, bias, _ = fit_softmax(x[seen], labels[seen], 3, 1.0)
        right = (x[held] @ weights + bias).argmax(axis=1) == labels[held]
        np.testing.assert_array_equal(probe.correct[held], right)


def test_one_held_out_example_does_not_change_the_scores_of_the_others():
    features, labels = clusters(1, distance=3.0)
    fold = stratified_folds(labels, 5, 0)
    before = linear_probe(features, labels)
    # Had it part in the standardisation, nothing else would be visible beside it.
    spoilt = features.copy()
    spoilt[0] = 1e7
    after = linear_probe(spoilt, labels)
    others = (fold == fold[0]) & (np.arange(60) != 0)
    np.testing.assert_array_equal(after.correct[others], before.correct[others])
    assert before.correct[others].mean() > 0.8


def test_the_fit_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    features, labels = clusters(2, size=90)
    weights, bias, finished = fit_softmax(features, labels, 3, 0.5)
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=5000).fit(features, labels)
    np.testing.assert_allclose(weights.T, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_, atol=1e-4)
    assert finished


def test_scores_do_not_depend_on_units_or_the_names_of_classes():
    features, labels = clusters(4)
    probe = linear_probe(features, labels)
    shifted = 3 + features * np.array([1, 10, 100, 0.1, 1, 1])
    names = np.array(["a", "b", "c"])[labels]
    again = linear_probe(shifted, names)
    assert again.accuracy == probe.accuracy
    assert again.auc == pytest.approx(probe.auc, abs=1e-3)
    # A feature that never varies says nothing.
    constant = np.concatenate([features, np.ones((60, 1))], axis=1)
    assert linear_probe(constant, labels).accuracy == probe.accuracy


def test_folds_are_even_and_have_every_class():
    labels = np.array([0] * 7 + [1] * 11 + [2] * 5)
    fold = stratified_folds(labels, 5, 0)
    sizes = np.bincount(fold, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for name in range(3):
        counts = np.bincount(fold[labels == name], minlength=5)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1
    assert (stratified_folds(labels, 5, 1) != fold).any()


def test_neighbours_vote_as_scikit_learns_do():
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = clusters(5, size=80, classes=4)
    queries, truth = clusters(6, size=50, classes=4)
    labels, truth = labels * 10 - 5, truth * 10 - 5
    for k in (1, 5, 80):
        theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        expected = theirs.fit(features, labels).score(queries, truth)
        ours = nearest_neighbour_accuracy(features, labels, queries, truth, k=k)
        assert ours == expected


def test_neighbours_are_chosen_by_direction_alone():
    features, labels = clusters(7)
    queries, truth = clusters(8)
    base = nearest_neighbour_accuracy(features, labels, queries, truth)
    draw = np.random.default_rng(0)
    stretched = features * 2.0 ** draw.integers(-5, 5, (60, 1))
    assert nearest_neighbour_accuracy(stretched, labels, queries, truth) == base
    assert nearest_neighbour_accuracy(features, labels, features, labels, k=1) == 1.0
    # A vector of zeros is as near to everything: no error, no NaN.
    zeros = np.zeros((1, 6))
    assert nearest_neighbour_accuracy(features, labels, zeros, [0], k=60) == 1.0


def test_misuse():
    features, labels = clusters(9)
    spoilt = features.copy()
    spoilt[3, 2] = np.nan
    cases = [
        ((features[:, 0], labels), {}, r"\[n,D\] and \[n\]"),
        ((features, labels[1:]), {}, r"\[n,D\] and \[n\]"),
        ((features[:0], labels[:0]), {}, "features is empty"),
        ((spoilt, labels), {}, "not finite"),
        ((features, np.zeros(60)), {}, "one class"),
        ((features, labels), {"folds": 1}, "folds=1"),
        ((features, labels), {"folds": 21}, "folds=21: 2 to 20"),
        ((features, labels), {"l2": 0.0}, "l2=0.0"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            linear_probe(*arguments, **options)
    for k in (0, 61):
        with pytest.raises(ValueError, match=f"k={k}: 1 to 60"):
            nearest_neighbour_accuracy(features, labels, features, labels, k=k)
    with pytest.raises(ValueError, match="of width 6 and test_features of 5"):
        nearest_neighbour_accuracy(features, labels, features[:, :5], labels)
    with pytest.raises(ValueError, match="test_features is empty"):
        nearest_neighbour_accuracy(features, labels, features[:0], labels[:0])
