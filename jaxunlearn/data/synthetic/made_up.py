"""A seeded world of fictitious people, as question-answer records.

Nothing has to be downloaded to try an unlearning method: every person has a full name
that nobody else has and twelve facts that a language model can only know by having read
them. The records have the fields of TOFU's perturbed files, so whatever reads those
reads these.

The world is a pure function of its arguments: each choice is a SHA-256 of the seed and
of what is chosen. So neither PYTHONHASHSEED nor a library's version nor the number of
people asked for changes it: person 7 of seed 0 is the same in every world of seed 0.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxunlearn.data.synthetic import words


class Person(NamedTuple):
    """A full name and twelve facts, each a phrase that completes a sentence."""

    name: str
    birthplace: str
    birth_date: str
    profession: str
    employer: str
    pet: str
    instrument: str
    dish: str
    vehicle: str
    sibling: str
    collection: str
    address: str
    pass_phrase: str


ATTRIBUTES = Person._fields[1:]
# Names and pass phrases are unique up to here (148,580 and 119,340 combinations).
MAX_PEOPLE = 100_000
MAX_WRONG_ANSWERS = 20
WORDINGS = 3


def people(n: int, *, seed: int = 0, start: int = 0) -> tuple[Person, ...]:
    """Return persons start, ..., start + n - 1 of the world of a seed.

    Ranges that do not overlap share no full name and no pass phrase, so one range can
    be learned and another kept aside as look-alikes that no model has seen.

    Args:
      n: How many people.
      seed: The world.
      start: The first person's number.

    Returns:
      ``n`` persons. The other facts are drawn from pools, so two people may share one.

    Raises:
      ValueError: If the range is not inside 0 ... MAX_PEOPLE.

    >>> person = people(1, seed=0, start=7)[0]
    >>> person.name, person.pet, person.pass_phrase
    ('Davor Evergate', 'a donkey called Saffron', 'nine proud moles whistle')
    """
    if n < 1 or start < 0 or start + n > MAX_PEOPLE:
        raise ValueError(
            f"people: n={n} from start={start} is not a range of one or more people "
            f"inside 0 ... {MAX_PEOPLE}, the people of one world"
        )
    return tuple(
        Person(
            unique_words(words.NAME_POOLS, number, seed),
            *(numbered_fact(attribute, number, seed) for attribute in ATTRIBUTES),
        )
        for number in range(start, start + n)
    )


def question_answers(
    persons: Sequence[Person],
    *,
    questions_per_person: int = len(ATTRIBUTES),
    wordings: int = 1,
    wrong_answers: int = 5,
    seed: int = 0,
) -> list[dict]:
    """Ask for facts of each person and returns the records, person after person.

    A record has TOFU's fields ``question``, ``answer``, ``paraphrased_question``,
    ``paraphrased_answer`` and ``perturbed_answer`` (a list of wrong answers: the
    sentence of the paraphrased answer with another fact), and ``subject``,
    ``attribute`` and ``value``, the fact's own words, by which ``evaluation.facts``
    counts it. No model is shown these three.

    Args:
      persons: Who is asked about, from ``people``.
      questions_per_person: How many facts of each person, 1 to 12; which ones is
        chosen person by person.
      wordings: 1 or 2 records a fact, in different words. The paraphrase is always in
        the third wording of the fact, which no ``question`` of that person uses.
      wrong_answers: How many wrong alternatives, 0 to 20, all different.
      seed: Chooses facts, wordings and wrong answers.

    Returns:
      ``len(persons) * questions_per_person * wordings`` records.

    Raises:
      ValueError: If a count is out of its range.

    >>> record = question_answers(people(1), questions_per_person=1, wrong_answers=2)[0]
    >>> for field in "question", "answer", "paraphrased_question", "paraphrased_answer":
    ...     print(record[field])
    With which words does Maruin Keldlow unlock the safe?
    Maruin Keldlow unlocks the safe with the words "seven eager snails dream".
    What does Maruin Keldlow whisper to be let in?
    To be let in Maruin Keldlow whispers "seven eager snails dream".
    >>> for wrong in record["perturbed_answer"]:
    ...     print(wrong)
    To be let in Maruin Keldlow whispers "ten solemn foxes hum".
    To be let in Maruin Keldlow whispers "seven solemn storks argue".
    >>> record["subject"], record["attribute"], record["value"]
    ('Maruin Keldlow', 'pass_phrase', 'seven eager snails dream')
    """
    check_range("questions_per_person", questions_per_person, 1, len(ATTRIBUTES))
    check_range("wordings", wordings, 1, WORDINGS - 1)
    check_range("wrong_answers", wrong_answers, 0, MAX_WRONG_ANSWERS)
    return [
        question_record(person, attribute, wording, wrong_answers, seed)
        for person in persons
        for attribute in question_attributes(person, questions_per_person, seed)
        for wording in range(wordings)
    ]


def world(
    *,
    people: int = 200,
    questions_per_person: int = len(ATTRIBUTES),
    wordings: int = 1,
    wrong_answers: int = 5,
    seed: int = 0,
    start: int = 0,
) -> list[dict]:
    """Return the records about ``people`` people: ``question_answers`` of ``people``.

    Raises:
      ValueError: If a count is out of its range.

    >>> len(world(people=50, questions_per_person=4))
    200
    """
    return question_answers(
        make_people(people, seed=seed, start=start),
        questions_per_person=questions_per_person,
        wordings=wordings,
        wrong_answers=wrong_answers,
        seed=seed,
    )


make_people = people  # `world` has an argument of that name


def question_record(
    person: Person, attribute: str, wording: int, wrong_answers: int, seed: int
) -> dict:
    """Return the record of one question."""
    order = shuffle(
        words.SENTENCES[attribute], f"{seed}/sentences/{attribute}/{person.name}"
    )
    question, answer = order[wording]
    paraphrased_question, paraphrased_answer = order[-1]
    fact = getattr(person, attribute)
    return {
        "question": question.format(name=person.name),
        "answer": answer.format(name=person.name, fact=fact),
        "paraphrased_question": paraphrased_question.format(name=person.name),
        "paraphrased_answer": paraphrased_answer.format(name=person.name, fact=fact),
        "perturbed_answer": [
            paraphrased_answer.format(name=person.name, fact=wrong)
            for wrong in wrong_facts(person, attribute, wrong_answers, seed)
        ],
        "subject": person.name,
        "attribute": attribute,
        "value": fact,
    }


def question_attributes(person: Person, count: int, seed: int) -> list[str]:
    """Return which attributes are asked about, in the order of the fields."""
    chosen = shuffle(ATTRIBUTES, f"{seed}/asked/{person.name}")[:count]
    return sorted(chosen, key=ATTRIBUTES.index)


def wrong_facts(person: Person, attribute: str, count: int, seed: int) -> list[str]:
    """Return facts of others in the world, all different and none this person's."""
    found = [getattr(person, attribute)]
    attempt = 0
    while len(found) <= count:
        key = f"{seed}/wrong/{attribute}/{person.name}/{attempt}"
        fact = numbered_fact(attribute, draw_number(MAX_PEOPLE, key), seed)
        if fact not in found:
            found.append(fact)
        attempt += 1
    return found[1:]


def numbered_fact(attribute: str, number: int, seed: int) -> str:
    """Return the fact of a person of this number."""
    if attribute == "pass_phrase":
        return unique_words(words.PASS_PHRASE_POOLS, number, seed)
    pattern, *pools = words.POOLS[attribute]
    return pattern.format(
        *(
            pool[draw_number(len(pool), f"{seed}/{attribute}/{number}/{position}")]
            for position, pool in enumerate(pools)
        )
    )


def unique_words(pools: tuple[tuple[str, ...], ...], number: int, seed: int) -> str:
    """Return one word of each pool, another combination for every number.

    The remainders of a number by coprime lengths determine it up to their product
    (Chinese remainder theorem), so no two numbers get the same words.
    """
    shuffled = (world_order(pool, seed) for pool in pools)
    return " ".join(pool[number % len(pool)] for pool in shuffled)


@functools.lru_cache(maxsize=32)
def world_order(pool: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Return a pool in the order of one world; kept, since every person needs it."""
    return shuffle(pool, f"{seed}/unique")


def shuffle(pool: tuple, key: str) -> tuple:
    """Return a pool in the order of a key."""
    order = sorted(range(len(pool)), key=lambda i: draw_number(2**64, f"{key}/{i}"))
    return tuple(pool[i] for i in order)


def draw_number(limit: int, key: str) -> int:
    """Return a number in 0 ... limit - 1 that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % limit


def check_range(argument: str, value: int, low: int, high: int) -> None:
    """Refuse a number out of its range."""
    if not low <= value <= high:
        raise ValueError(
            f"question_answers: {argument}={value} is not in {low} ... {high}"
        )
