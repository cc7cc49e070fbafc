import numpy as np
import pytest

from jaxunlearn.evaluation.aggregates import (
    aggregate,
    faithfulness,
    memorization_score,
    privacy_score,
    quantization_robustness,
    relative_utility,
    relearning_robustness,
)

# TOFU forget10, Llama-3.2-1B, gnueaj/unlearning-depth-score's published results: Agg,
# Mem, Privacy, relative utility.
PUBLISHED = {
    "retain": (0.807, 0.582, 1.000, 1.000),
    "AltPO": (0.784, 0.589, 0.952, 0.926),
    "NPO": (0.752, 0.547, 0.875, 0.983),
    "SimNPO": (0.733, 0.539, 0.816, 0.988),
    "IdkDPO": (0.720, 0.550, 0.757, 0.975),
    "GradDiff": (0.686, 0.501, 0.789, 0.901),
    "RMU": (0.631, 0.666, 0.711, 0.542),
    "UNDIAL": (0.088, 0.594, 0.091, 0.047),
    "IdkNLL": (0.000, 0.369, 0.000, 0.904),
    "full": (0.000, 0.103, 0.000, 1.000),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_aggregate_is_the_published_number_to_its_last_digit(method):
    expected, memorization, privacy, utility = PUBLISHED[method]
    found = aggregate(memorization=memorization, privacy=privacy, utility=utility)
    assert round(found, 3) == expected
    if expected == 0:
        assert found == 0


def test_memorization_and_privacy_are_harmonic_means():
    parts = {
        "extraction_strength": 0.1,
        "exact_memorization": 0.6,
        "paraphrase_probability": 0.2,
        "truth_ratio": 0.5,
    }
    expected = 4 / sum(1 / (1 - x) for x in parts.values())
    assert memorization_score(**parts) == pytest.approx(expected)
    assert memorization_score(**{**parts, "exact_memorization": 1.0}) == 0
    attacks = {"loss": 0.5, "zlib": 0.6, "min_k": 0.7, "min_k_pp": 0.8}
    expected = 4 / sum(1 / x for x in attacks.values())
    assert privacy_score(**attacks) == pytest.approx(expected)
    assert privacy_score(**{**attacks, "zlib": 0.0}) == 0


def test_utility_is_relative_and_capped():
    assert relative_utility(0.3, 0.6) == 0.5
    assert relative_utility(0.7, 0.6) == 1
    assert relative_utility(0.0, 0.6) == 0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("own", "reference", "ratio", "symmetric"),
    [
        (0.4, 0.4, 1.0, 1.0),
        (0.4, 0.1, 0.25, 1 - 0.3 / 0.5),  # hidden, not removed: it comes back faster
        (0.1, 0.4, 1.0, 1 - 0.3 / 0.5),
        (0.0, 0.4, 1.0, 0.0),
        (0.4, 0.0, 0.0, 0.0),
        (0.4, -0.1, 0.0, 0.0),
        (0.0, 0.0, 1.0, 1.0),
    ],
)
def test_relearning_robustness(sign, own, reference, ratio, symmetric):
    models = {
        "before": 0.0,
        "after": sign * own,
        "reference_before": 0.0,
        "reference_after": sign * reference,
    }
    assert relearning_robustness(**models) == pytest.approx(ratio)
    found = relearning_robustness(**models, symmetric=True)
    assert found == pytest.approx(symmetric)
    # Only changes count.
    shifted = {name: value + 2 for name, value in models.items()}
    assert relearning_robustness(**shifted, symmetric=True) == pytest.approx(symmetric)


def test_quantization_robustness_falls_only_where_knowledge_returns():
    def q(before, after, **options):
        return quantization_robustness(before=before, after=after, **options)

    assert q(0.2, 0.4) == 0.5
    assert q(0.4, 0.2) == 1
    assert q(0.0, 0.2) == 0
    assert q(0.4, 0.2, higher_is_recovered=False) == 0.5
    assert q(0.2, 0.4, higher_is_recovered=False) == 1
    for options in ({}, {"higher_is_recovered": False}, {"symmetric": True}):
        assert q(0.0, 0.0, **options) == 1
        assert q(0.3, 0.3, **options) == 1
    assert q(0.2, 0.4, symmetric=True) == q(0.4, 0.2, symmetric=True)
    assert q(0.2, 0.4, symmetric=True) == pytest.approx(1 - 0.2 / 0.6)


def test_faithfulness_counts_the_pairs_in_order():
    present, absent = np.array([0.9, 0.5, 0.4]), np.array([0.1, 0.4])
    pairs = np.sign(present[:, None] - absent[None]) / 2 + 0.5
    assert faithfulness(present, absent) == pytest.approx(pairs.mean())
    assert faithfulness([2, 3], [0, 1]) == 1
    with pytest.raises(ValueError, match="empty|at least one"):
        faithfulness([], [0.1])


def test_numbers_out_of_range_are_refused():
    fine = {"memorization": 0.5, "privacy": 0.5, "utility": 0.5}
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="privacy="):
            aggregate(**{**fine, "privacy": bad})
        with pytest.raises(ValueError, match="truth_ratio="):
            memorization_score(
                extraction_strength=0.1,
                exact_memorization=0.1,
                paraphrase_probability=0.1,
                truth_ratio=bad,
            )
        with pytest.raises(ValueError, match="min_k="):
            privacy_score(loss=1, zlib=1, min_k=bad, min_k_pp=1)
    for utility, full in ((-0.1, 0.5), (0.5, 0.0), (np.nan, 0.5), (0.5, np.inf)):
        with pytest.raises(ValueError, match="utility="):
            relative_utility(utility, full)
    with pytest.raises(ValueError, match="reference_after=nan"):
        relearning_robustness(
            before=0, after=0, reference_before=0, reference_after=np.nan
        )
    for before in (-0.1, np.nan):
        with pytest.raises(ValueError, match="before="):
            quantization_robustness(before=before, after=0.1)
    with pytest.raises(TypeError):
        relearning_robustness(before=0, after=0)
