import numpy as np
import pytest

from jaxunlearn.evaluation.classification import (
    FEATURES,
    accuracy,
    average_gap,
    confidence,
    correctness,
    entropy,
    mia_efficacy,
    modified_entropy,
    unlearning_accuracy,
)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.dirichlet(0.5 * np.ones(5), size=9), rng.integers(5, size=9)


def unlearn_sparse(p, labels):
    """Its modified entropy, with log p for log(1 - p) and columns for elements."""
    mixed, logs = p.copy(), np.log(p)
    mixed[:, labels] = 1 - p[:, labels]
    return -(mixed * logs).sum(axis=1)


def test_modified_entropy_is_its_definition_row_by_row(batch):
    p, labels = batch
    for row, label, found in zip(p, labels, modified_entropy(p, labels), strict=True):
        expected = -(1 - row[label]) * np.log(row[label])
        for i, other in enumerate(row):
            if i != label:
                expected -= other * np.log(1 - other)
        assert found == pytest.approx(expected)


def test_modified_entropy_has_neither_defect_of_unlearn_sparse():
    # The distribution for which its value is 8.574 in a batch of four, and 1.597 alone.
    p = np.array([0.29490113, 0.29153946, 0.41177582, 0.00178358])
    p /= p.sum()
    four, labels = np.stack([p, *np.full((3, 4), 0.25)]), np.arange(4)
    assert unlearn_sparse(four, labels)[0] == pytest.approx(8.574, abs=5e-4)
    assert unlearn_sparse(p[None], labels[:1])[0] == pytest.approx(1.597, abs=5e-4)
    alone = modified_entropy(p[None], labels[:1])
    assert alone[0] == pytest.approx(1.180, abs=5e-4)
    assert modified_entropy(four, labels)[0] == alone[0]


def test_features_at_certainty_and_ignorance():
    sure, unsure = np.eye(4), np.full((4, 4), 0.25)
    right, wrong = np.arange(4), (np.arange(4) + 1) % 4
    assert (modified_entropy(sure, right) == 0).all()
    assert (modified_entropy(sure, wrong) > 100).all()
    assert np.isfinite(modified_entropy(sure, wrong)).all()
    assert (entropy(sure, wrong) == 0).all()
    np.testing.assert_allclose(entropy(unsure, right), np.log(4))
    assert (confidence(sure, right) == 1).all()
    assert (confidence(sure, wrong) == 0).all()
    assert (correctness(sure, right) == 1).all()
    assert (correctness(sure, wrong) == 0).all()


def test_accuracies(batch):
    p, _ = batch
    labels = p.argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 5
    assert accuracy(np.log(p), labels) == pytest.approx(6 / 9)
    assert unlearning_accuracy(p, labels) == pytest.approx(3 / 9)


def test_an_attacker_who_can_tell_does_and_one_who_cannot_does_not():
    rng = np.random.default_rng(1)
    members, unseen = 0.9 + 0.02 * rng.normal(size=(2, 60)), 0.3 * np.ones(50)
    unseen = unseen + 0.02 * rng.normal(size=50)
    assert mia_efficacy(members[0], unseen, members[1]) == 0
    assert mia_efficacy(members[0], unseen, unseen + 0.01) == 1
    wide = np.stack([members[0], 1 - members[0]], axis=1)
    assert mia_efficacy(wide, wide[:20] - 0.6, wide[20:]) == 0


def test_efficacy_is_that_of_the_papers_machine():
    from sklearn.svm import SVC

    rng = np.random.default_rng(2)
    retain, test, forget = rng.beta(5, 2, 80), rng.beta(3, 2, 50), rng.beta(4, 2, 40)
    retain[50:] = 0.1  # these take no part
    machine = SVC(C=3, kernel="rbf", gamma="auto").fit(
        np.concatenate([retain[:50], test])[:, None], [1] * 50 + [0] * 50
    )
    expected = 1 - machine.predict(forget[:, None]).mean()
    found = mia_efficacy(retain, test, forget)
    assert 0 < found < 1
    assert found == pytest.approx(expected)
    assert mia_efficacy(retain[:50], test, forget) == found


def test_gap_is_a_distance_to_the_retrained_model():
    own = {"UA": 5.0, "RA": 99.0, "TA": 90.0, "MIA": 12.0}
    retrained = {"UA": 6.0, "RA": 100.0, "TA": 94.0, "MIA": 10.0}
    assert average_gap(own, retrained) == average_gap(retrained, own) == 2
    assert average_gap(own, own) == 0


@pytest.mark.parametrize("function", FEATURES.values())
def test_features_refuse_what_is_no_distribution(function):
    labels = np.array([0, 1])
    for p, message in (
        (np.zeros((0, 2)), "at least one"),
        (np.ones(2) / 2, "at least one"),
        (np.full((3, 2), 0.5), "labels"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), "NaN in 1 rows"),
        (np.array([[0.5, 0.5], [2.0, 3.0]]), "row 1 is no distribution"),
        (np.array([[0.5, 0.5], [-0.5, 1.5]]), "row 1 is no distribution"),
    ):
        with pytest.raises(ValueError, match=message):
            function(p, labels)
    for bad in ([0, 2], [-1, 0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="integers in 0..1"):
            function(np.full((2, 2), 0.5), np.array(bad))


def test_bad_sets_and_names_are_refused():
    with pytest.raises(ValueError, match="retain has 2 examples, test 3"):
        mia_efficacy([0.1, 0.2], [0.1, 0.2, 0.3], [0.1])
    with pytest.raises(ValueError, match="forget has shape"):
        mia_efficacy([0.1], [0.1], [])
    with pytest.raises(ValueError, match="test has shape"):
        mia_efficacy([0.1], [np.nan], [0.1])
    with pytest.raises(ValueError, match="features an example"):
        mia_efficacy([[0.1, 0.2]], [[0.1, 0.3]], [0.1])
    with pytest.raises(ValueError, match="same names"):
        average_gap({"UA": 1.0}, {"RA": 1.0})
    with pytest.raises(ValueError, match="at least one"):
        average_gap({}, {})
    with pytest.raises(ValueError, match="not all are finite"):
        average_gap({"UA": np.nan}, {"UA": 1.0})
