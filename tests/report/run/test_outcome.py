import math

import pytest

from jaxunlearn.report.run.outcome import (
    check_results,
    loss_rows,
    methods,
    percent,
    probability,
    retain_change,
    verdict,
    way_to_target,
)


def _set(results, *, forget, retain):
    results["losses"]["first-epoch unlearning"] = {"forget": forget, "retain": retain}
    return results


@pytest.mark.parametrize(
    ("forget", "retain", "level"),
    [
        (2.1, 0.2, "good"),
        (2.1, 0.2199, "good"),  # 0.02 nats more than 0.2 are allowed
        (2.1, 0.2201, "price"),
        (2.01, 0.2, "good"),  # 95.5 % of the way from 0.1 to 2.1
        (1.99, 0.2, "partly"),
        (1.11, 0.2, "partly"),
        (1.09, 0.2, "not"),
        (0.1, 0.2, "not"),
        (2.59, 0.2, "good"),  # 124.5 %
        (2.61, 0.2, "past"),
        (math.nan, 0.2, "failed"),
        (2.1, math.inf, "failed"),
    ],
)
def test_the_verdict_follows_the_numbers(results, forget, retain, level):
    assert verdict(_set(results, forget=forget, retain=retain)).level == level


def test_the_tolerance_can_be_stated(results):
    _set(results, forget=2.1, retain=0.25)
    assert verdict(results).level == "price"
    results["target"]["retain_tolerance"] = 0.06
    assert verdict(results).level == "good"
    assert "within the 0.06 allowed" in " ".join(verdict(results).sentences)


def test_a_model_at_the_target_has_nothing_to_forget(results):
    results["target"]["forget_loss"] = 0.1
    assert verdict(results).level == "nothing"
    assert math.isnan(way_to_target(results, "gradient ascent"))


def test_the_way_is_affine_between_trained_and_target(results):
    assert way_to_target(results, "trained") == 0
    assert way_to_target(results, "retrained without them") == 1
    results["losses"]["gradient ascent"]["forget"] = 0.6
    assert way_to_target(results, "gradient ascent") == pytest.approx(0.25)
    assert retain_change(results, "gradient ascent") == pytest.approx(0.1)


def test_the_sentences_hold_the_numbers_of_every_model(results):
    text = " ".join(verdict(results).sentences)
    for part in (
        "0.1 to 2.1",
        "90 %",
        "12 %",
        "100 % of the way",
        "+0.002 nats",
        "+0.1 nats",
    ):
        assert part in text
    assert results["target"]["meaning"] in text
    assert "Gradient ascent" in text
    assert "retrained" in text


def test_a_loss_past_the_target_is_warned_of(results):
    assert "give them away" not in " ".join(verdict(results).sentences)
    _set(results, forget=5.0, retain=0.2)
    assert "give them away" in " ".join(verdict(results).sentences)


def test_rows_hold_the_losses_and_compare_only_what_came_after_training(results):
    rows = loss_rows(results)
    assert [row["model"] for row in rows] == list(results["losses"])
    for row in rows:
        losses = results["losses"][row["model"]]
        assert {name: row[name] for name in losses} == losses
    assert [row["way to target"] for row in rows] == [None, None] + ["100 %"] * 3
    assert [row["retain change"] for row in rows[2:]] == ["+0.002", "+0.1", "0"]


def with_facts(results, *, after=(0, 0, 0), kept=49, retrained=(0, 0, 0)):
    """Results whose trained model knows 3 of 3 facts to forget and 50 of 51 to keep."""
    knew = [True] * 50 + [False]
    left = [True] * kept + [False] * (50 - kept) + [True]
    method, other = methods(results)
    results["facts"] = {
        "forget": {
            "trained": [True] * 3,
            method: list(map(bool, after)),
            other: [False] * 3,
            "retrained without them": list(map(bool, retrained)),
        },
        "retain": {"trained": knew, method: left, other: [False] * 51},
    }
    return results


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({}, "good"),  # 1 of the 50 that were known is lost: 2 %
        ({"kept": 48}, "price"),
        ({"after": (1, 0, 0)}, "partly"),
        ({"after": (1, 0, 0), "retrained": (1, 0, 0)}, "good"),
        # As many as the retrained model knows, but another one.
        ({"after": (1, 0, 0), "retrained": (0, 1, 0)}, "partly"),
    ],
)
def test_facts_are_judged_beside_the_losses(results, facts, level):
    assert verdict(with_facts(results, **facts)).level == level


def test_without_a_retrained_model_no_fact_may_be_left(results):
    with_facts(results, after=(1, 0, 0), retrained=(1, 0, 0))
    del results["facts"]["forget"]["retrained without them"]
    assert verdict(results).level == "partly"


def test_the_facts_of_every_model_stand_in_its_row_and_in_the_first_sentences(results):
    with_facts(results)
    rows = {row["model"]: row for row in loss_rows(results)}
    assert rows["before training"]["knows"] is None
    assert (rows["trained"]["knows"], rows["trained"]["others"]) == (
        "3 of 3",
        "50 of 51",
    )
    # A fact that the trained model did not know counts in the row, not as kept.
    assert rows["first-epoch unlearning"]["others"] == "50 of 51"
    first, second, *_ = verdict(results).sentences
    assert "3 facts to forget the trained model answers 3 right; after" in first
    assert "49 of 50 are still answered right" in second


def test_no_unseen_losses_no_column(results):
    for losses in results["losses"].values():
        del losses["unseen"]
    assert all("unseen" not in row for row in loss_rows(results))
    results["losses"]["trained"]["unseen"] = 1.0
    assert [row["unseen"] for row in loss_rows(results)].count(None) == 4


def test_methods_are_what_is_no_reference(results):
    assert methods(results) == ["first-epoch unlearning", "gradient ascent"]


@pytest.mark.parametrize("key", ["title", "request", "losses", "target"])
def test_a_missing_required_key_is_named(results, key):
    del results[key]
    with pytest.raises(ValueError, match=f"no key '{key}'"):
        check_results(results)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("request", "text"),
        ("request", "how"),
        ("losses", "trained"),
        ("target", "forget_loss"),
        ("target", "meaning"),
    ],
)
def test_a_missing_inner_key_is_named(results, outer, inner):
    del results[outer][inner]
    with pytest.raises(ValueError, match=rf"'{outer}'\] has no key '{inner}'"):
        check_results(results)


def test_a_model_without_a_loss_is_named(results):
    del results["losses"]["gradient ascent"]["retain"]
    with pytest.raises(ValueError, match="'gradient ascent'.*'retain'"):
        check_results(results)


def test_losses_without_a_method_are_an_error(results):
    for method in methods(results):
        del results["losses"][method]
    with pytest.raises(ValueError, match="no method"):
        check_results(results)


def test_percentages():
    assert percent(0.0) == percent(-1e-9, sign=True) == "0 %"
    assert percent(-0.005, sign=True) == "-0.5 %"
    assert percent(0.9999) == "100 %"
    assert percent(123.456) == "12,346 %"
    assert percent(math.nan) == "not a number"
    assert probability(math.inf) == "0 %"
    assert probability(0.0) == "100 %"
