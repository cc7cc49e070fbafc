import jax
import numpy as np
import pytest

from jaxunlearn.data import prompt_and_completion
from jaxunlearn.evaluation.text.greedy import answers, prompt_ids
from jaxunlearn.evaluation.text.restor import (
    Fact,
    Knowledge,
    answer_rates,
    kind_named,
    knowledge,
    object_masses,
    restoration,
)

ROOM = 4  # tokens of an answer


@pytest.fixture(scope="module")
def facts(small):
    """Facts whose objects are colours; the first model answer is made an object."""
    prompts = [prompt_and_completion(record)[0] for record in small.records[:4]]
    said = answers(
        small.model, small.params, small.tokenizer, prompts, max_new_tokens=ROOM
    )
    named = next(i for i, text in enumerate(said) if any(map(str.isalnum, text)))
    found = [Fact(p, ("red",), ("blue", "grey"), ("green",)) for p in prompts]
    found[named] = found[named]._replace(corrupted=(said[named], "grey"))
    return found, named


@pytest.fixture(scope="module")
def known(small, facts):
    return knowledge(
        small.model,
        small.params,
        small.tokenizer,
        facts[0],
        max_new_tokens=ROOM,
        batch_size=3,
    )


def test_log_probabilities_are_those_of_each_text_alone(small, facts, known):
    logits = jax.jit(small.model.logits)
    for i, fact in enumerate(facts[0]):
        for kind in ("clean", "corrupted", "random"):
            means = []
            for name in getattr(fact, kind):
                (start,) = prompt_ids(small.tokenizer, [fact.prompt])
                (end,) = small.tokenizer([" " + name])["input_ids"]
                ids = np.zeros((1, 64), np.int32)
                ids[0, : len(start + end)] = start + end
                log_p = jax.nn.log_softmax(logits(small.params, {"input_ids": ids}))
                places = np.arange(len(start) - 1, len(start + end) - 1)
                means.append(np.mean(log_p[0, places, end]))
            assert known.log_probability[kind][i] == pytest.approx(
                np.mean(means), abs=1e-4
            )


def test_the_kind_that_a_model_names_is_found(facts, known):
    _, named = facts
    assert known.answered[named] == "corrupted"
    assert len(known.answered) == 4


def test_batches_change_nothing(small, facts, known):
    again = knowledge(
        small.model,
        small.params,
        small.tokenizer,
        facts[0],
        max_new_tokens=ROOM,
        batch_size=32,
    )
    assert again.answered == known.answered
    for kind, values in known.log_probability.items():
        np.testing.assert_allclose(again.log_probability[kind], values, atol=1e-4)


def test_an_answer_names_the_longest_object_that_it_begins_with():
    fact = Fact("?", ("York", "St. Ives"), ("New York",), ("New", "York City"))
    for answer, kind in [
        ("York.", "clean"),
        ("YORK, England", "clean"),
        ("St Ives", "clean"),
        ("New York", "corrupted"),
        ("New", "random"),
        ("York City", "random"),
        ("Yorkshire", "other"),
        ("In York", "other"),
        ("", "other"),
        ("...", "other"),
    ]:
        assert kind_named(answer, fact) == kind, answer


def test_objects_are_named_in_any_script():
    fact = Fact("?", ("東京",), ("हिन्दी",), ("Núñez",))
    said = {"東京都": "clean", "हिन्दी में": "corrupted", "NU\u0301N\u0303ez": "random"}
    for answer, kind in said.items():
        assert kind_named(answer, fact) == kind
    # A vowel sign is part of its word.
    assert kind_named("हि", fact) == kind_named("Nunez", fact) == "other"


def state(answered, clean, corrupted, random):
    """Knowledge with given answers and log-probabilities."""
    names = {"c": "clean", "x": "corrupted", "r": "random", "o": "other"}
    values = dict(clean=clean, corrupted=corrupted, random=random)
    size = len(answered)
    return Knowledge(
        tuple(names[letter] for letter in answered),
        {kind: np.full(size, float(value)) for kind, value in values.items()},
    )


def test_shares_restored():
    log = np.log
    clean = state("cccccccc", log(0.8), log(0.1), log(0.1))
    corrupted = state("ccxxxxxx", log(0.1), log(0.8), log(0.1))
    half = state("cccccxor", log(0.45), log(0.45), log(0.1))
    found = restoration(clean=clean, corrupted=corrupted, unlearned=half)
    assert found.restored == pytest.approx(0.5)
    assert found.restored_mass == pytest.approx(0.5)
    assert found.rates["corrupted"] == {
        "clean": 0.25,
        "corrupted": 0.75,
        "random": 0.0,
        "other": 0.0,
    }
    assert found.rates["unlearned"]["other"] == 1 / 8
    assert found.masses["clean"] == pytest.approx(
        {"clean": 0.8, "corrupted": 0.1, "random": 0.1}
    )
    # The ends, and below them.
    assert restoration(clean=clean, corrupted=corrupted, unlearned=clean)[2:] == (1, 1)
    nothing = restoration(clean=clean, corrupted=corrupted, unlearned=corrupted)
    assert nothing[2:] == (0, 0)
    worse = state("oooooooo", log(0.0001), log(0.8), log(0.1))
    below = restoration(clean=clean, corrupted=corrupted, unlearned=worse)
    assert below.restored < 0
    assert below.restored_mass < 0


def test_forgetting_is_not_restoring():
    # Both objects gone: every kind has the same third, and no answer is right.
    clean = state("cc", -1.0, -5.0, -5.0)
    corrupted = state("xx", -5.0, -1.0, -5.0)
    ascent = state("oo", -60.0, -60.0, -60.0)
    assert object_masses(ascent) == pytest.approx(
        dict.fromkeys(("clean", "corrupted", "random"), 1 / 3)
    )
    found = restoration(clean=clean, corrupted=corrupted, unlearned=ascent)
    assert found.restored == 0.0
    assert 0 < found.restored_mass < 0.4


def test_without_corruption_there_is_nothing_to_restore():
    clean, corrupted = state("co", 0, 0, 0), state("oc", 0, 0, 0)
    found = restoration(clean=clean, corrupted=corrupted, unlearned=clean)
    assert found.restored is None
    assert found.restored_mass is None


def test_rates_and_masses_sum_to_one(known):
    assert sum(answer_rates(known).values()) == pytest.approx(1)
    assert sum(object_masses(known).values()) == pytest.approx(1)


def test_misuse(small):
    def ask(*facts):
        knowledge(small.model, small.params, small.tokenizer, facts, max_new_tokens=4)

    good = Fact("What?", ("red",), ("blue",), ("green",))
    with pytest.raises(ValueError, match="facts is empty"):
        ask()
    for wrong in ((), ("...",), ("red", " "), "red"):
        with pytest.raises(ValueError, match=r"facts\[1\]\.random="):
            ask(good, good._replace(random=wrong))
    with pytest.raises(ValueError, match="64 tokens: shorten the prompts"):
        ask(good._replace(random=("green " * 40,)))
    with pytest.raises(TypeError, match="corrupted"):
        restoration(clean=state("c", 0, 0, 0), unlearned=state("c", 0, 0, 0))
    two, three = state("cc", 0, 0, 0), state("ccc", 0, 0, 0)
    with pytest.raises(ValueError, match="'corrupted': 3"):
        restoration(clean=two, corrupted=three, unlearned=two)
    none = Knowledge((), {kind: np.empty(0) for kind in two.log_probability})
    with pytest.raises(ValueError, match="at least one"):
        restoration(clean=none, corrupted=none, unlearned=none)
