import hashlib
import json
import math
import os
import re
import subprocess
import sys

import pytest

from jaxunlearn.data.synthetic import made_up as synthetic
from jaxunlearn.data.synthetic import words as synthetic_words
from jaxunlearn.data.synthetic.made_up import (
    ATTRIBUTES,
    people,
    question_answers,
    world,
)


def _digest(records):
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()


@pytest.fixture(scope="module")
def records():
    return world(people=60, seed=3)


def test_sizes(records):
    assert len(people(17, seed=1)) == 17
    assert len(records) == 60 * len(ATTRIBUTES)
    assert len(world(people=5, questions_per_person=4, wordings=2)) == 5 * 4 * 2
    assert all(len(record["perturbed_answer"]) == 5 for record in records)
    assert world(people=1, wrong_answers=0)[0]["perturbed_answer"] == []


def test_the_fields_are_strings_and_a_list_of_strings(records):
    for record in records:
        assert list(record) == [
            "question",
            "answer",
            "paraphrased_question",
            "paraphrased_answer",
            "perturbed_answer",
            "subject",
            "attribute",
            "value",
        ]
        values = dict(record)
        wrong = values.pop("perturbed_answer")
        assert all(type(value) is str for value in [*values.values(), *wrong])


@pytest.mark.parametrize("seed", [0, 1])
def test_names_and_pass_phrases_are_unique_in_a_whole_world(seed):
    for pools in (synthetic_words.NAME_POOLS, synthetic_words.PASS_PHRASE_POOLS):
        # Coprime lengths and no word twice in a pool: what uniqueness rests on.
        assert all(len(set(pool)) == len(pool) for pool in pools)
        lengths = [len(pool) for pool in pools]
        assert math.lcm(*lengths) == math.prod(lengths) >= synthetic.MAX_PEOPLE
    everyone = people(5000, seed=seed, start=synthetic.MAX_PEOPLE - 5000)
    assert len({person.name for person in everyone}) == 5000
    assert len({person.pass_phrase for person in everyone}) == 5000


def test_no_name_is_contained_in_another():
    names = sorted(person.name for person in people(3000))
    for name, following in zip(names, names[1:], strict=False):
        assert not following.startswith(name)


def test_disjoint_ranges_are_disjoint_and_ranges_compose():
    first, second = people(300, seed=5), people(200, seed=5, start=300)
    assert first + second == people(500, seed=5)
    assert not {p.name for p in first} & {p.name for p in second}
    assert not {p.pass_phrase for p in first} & {p.pass_phrase for p in second}


def test_a_person_does_not_depend_on_how_many_are_asked_for():
    assert people(1, seed=2, start=9)[0] == people(30, seed=2)[9]
    assert world(people=3, seed=2) == world(people=9, seed=2)[: 3 * len(ATTRIBUTES)]


def test_another_seed_is_another_world():
    names = {person.name for person in people(50, seed=0)}
    assert len(names & {person.name for person in people(50, seed=1)}) < 5


@pytest.mark.parametrize("hash_seed", ["1", "2718"])
def test_another_process_with_another_hash_seed_makes_the_same_world(hash_seed):
    program = (
        "import hashlib, json; from jaxunlearn.data.synthetic.made_up import world;"
        "print(hashlib.sha256(json.dumps(world(people=20, questions_per_person=7,"
        "wordings=2, seed=11)).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = _digest(world(people=20, questions_per_person=7, wordings=2, seed=11))
    assert there == here


def test_the_subject_is_named_in_every_sentence(records):
    for record in records:
        for field in ("question", "answer", "paraphrased_question"):
            assert record["subject"] in record[field]
        for answer in [record["paraphrased_answer"], *record["perturbed_answer"]]:
            assert record["subject"] in answer


def test_answers_state_the_fact_and_wrong_answers_state_another(records):
    facts = {person.name: person for person in people(60, seed=3)}
    for record in records:
        fact = getattr(facts[record["subject"]], record["attribute"])
        assert record["value"] == fact
        assert fact in record["answer"]
        assert fact in record["paraphrased_answer"]
        before, after = record["paraphrased_answer"].split(fact)
        stated = [
            wrong.removeprefix(before).removesuffix(after)
            for wrong in record["perturbed_answer"]
        ]
        for wrong, sentence in zip(stated, record["perturbed_answer"], strict=True):
            assert sentence == before + wrong + after
            assert wrong != fact
        assert len(set(stated)) == len(stated)


def test_twenty_wrong_answers_are_found_for_every_attribute():
    for record in world(people=10, wrong_answers=20):
        assert len(set(record["perturbed_answer"])) == 20
        assert record["paraphrased_answer"] not in record["perturbed_answer"]


def test_wordings_differ_and_the_paraphrase_is_held_out():
    twice = world(people=20, wordings=2)
    for first, second in zip(twice[::2], twice[1::2], strict=True):
        assert first["attribute"] == second["attribute"]
        assert first["question"] != second["question"]
        assert first["paraphrased_question"] == second["paraphrased_question"]
        asked = {first["question"], second["question"]}
        assert first["paraphrased_question"] not in asked
    assert [r["question"] for r in twice[::2]] == [
        r["question"] for r in world(people=20)
    ]


def test_each_attribute_is_asked_once_and_all_wordings_occur():
    some = world(people=60, questions_per_person=5)
    for start in range(0, len(some), 5):
        assert len({record["attribute"] for record in some[start : start + 5]}) == 5
    assert {record["attribute"] for record in some} == set(ATTRIBUTES)
    bare = {r["question"].replace(r["subject"], "{name}") for r in world(people=60)}
    assert len(bare) == 3 * len(ATTRIBUTES)


def test_articles_agree_and_sentences_end(records):
    for record in records:
        questions = (record["question"], record["paraphrased_question"])
        assert all(question.endswith("?") for question in questions)
        answers = (record["answer"], record["paraphrased_answer"])
        for answer in (*answers, *record["perturbed_answer"]):
            assert answer[0].isupper()
            assert answer.endswith(".")
            assert not re.search(r"\b[Aa] [aeioAEIO]", answer)
            assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", answer)
            assert not re.search(r"[{}]|  ", answer)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": 0}, "n=0"),
        ({"n": 3, "start": -1}, "start=-1"),
        ({"n": synthetic.MAX_PEOPLE, "start": 1}, "start=1"),
    ],
)
def test_a_range_outside_the_world_is_an_error(arguments, named):
    with pytest.raises(ValueError, match=named):
        people(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"questions_per_person": 0},
        {"questions_per_person": 13},
        {"wordings": 0},
        {"wordings": 3},
        {"wrong_answers": -1},
        {"wrong_answers": 21},
    ],
)
def test_a_count_out_of_range_is_an_error(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        question_answers(people(1), **arguments)
