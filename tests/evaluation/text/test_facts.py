import numpy as np
import pytest

from jaxunlearn.data.synthetic.made_up import world
from jaxunlearn.evaluation.text.facts import (
    STOP_WORDS,
    known_facts,
    states,
    value_words,
)


@pytest.fixture(scope="module")
def records():
    return world(people=30, seed=3)


def test_every_sentence_of_the_world_states_its_value_and_no_wrong_one_does(records):
    for record in records:
        assert states(record["answer"], record["value"])
        assert states(record["paraphrased_answer"], record["value"])
        for wrong in record["perturbed_answer"]:
            assert not states(wrong, record["value"])
        assert not states(record["question"], record["value"])


@pytest.mark.parametrize(
    ("answer", "value", "stated"),
    [
        ("in", "in Kyoto", False),
        ("works at the", "the Amber Owl Bakery", False),
        ("She works at the Amber Owl Press.", "the Amber Owl Bakery", False),
        ("AMBER OWL, BAKERY!", "the Amber Owl Bakery", True),
        ("a goat named Pepper", "a goat called Pepper", True),
        ("a goat and a hen called Pepper", "a goat called Pepper", False),
        ("Pepper, a goat", "a goat called Pepper", False),
        ("on 15 June 1970", "5 June 1970", False),
        ("on 5 June 1970.", "5 June 1970", True),
        ("10.5 mg", "5 mg", False),
        ("1,634 logs", "634 logs", False),
        ("her blood group is B", "blood group A", False),
        ("her blood group is A.", "blood group A", True),
        ("It is blood group A.", "blood group A", True),
        ("A goat called Pepper", "a goat called Pepper", True),
        ("the zitherist", "the zither", False),
        ("", "Kyoto", False),
        ("Она родилась в Праге.", "Прага", False),
        ("Она родилась в ПРАГЕ.", "в Праге", True),
        ("她住在东京都。", "东京", True),
        ("Jose\u0301 Núñez", "José Nu\u0301ñez", True),
    ],
)
def test_a_value_is_stated_whole_and_in_order(answer, value, stated):
    assert states(answer, value) is stated


def test_stop_words_change_nothing(records):
    for record in records[:40]:
        content = " ".join(value_words(record["value"]))
        assert states(record["answer"], content)
        assert not states(" ".join(STOP_WORDS), record["value"])


@pytest.mark.parametrize("value", ["", "?!", "in the"])
def test_a_value_without_words_is_refused(value):
    with pytest.raises(ValueError, match="no word that can carry"):
        states("in the", value)


def test_facts_are_counted_one_by_one():
    found = known_facts(["in Kyoto", "in Lima", ""], ["Kyoto", "Kyoto", "Lima"])
    assert found.dtype == bool
    np.testing.assert_array_equal(found, [True, False, False])
    assert len(known_facts([], [])) == 0
    with pytest.raises(ValueError, match="2 answers for 1 values"):
        known_facts(["a", "b"], ["c"])
