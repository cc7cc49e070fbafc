"""Facts counted by value: whether an answer states the very words that carry a fact.

A model that has learned the form of an answer repeats the name and the sentence of the
question and gets most words right without knowing anything. So a fact counts by its
value alone, the city and not the sentence around it, and only whole.
"""

import re
from collections.abc import Sequence

import numpy as np

from jaxunlearn.evaluation.text.words import unicode_words

# Words that carry no fact. Those that may also be names or values are not among them
# (will, may, it, who, i).
STOP_WORDS = frozenset(
    """
    a an the of in on at to for from by with into as and or but that this these those
    is are was were be been being has have had do does did his her hers its their our
    my your he she they we you called named
    """.split()
)
# Inside a number these part nothing: 5 is not the value of 10.5.
IN_NUMBER = re.compile(r"(?<=\d)[.,](?=\d)")
# A capital stands for itself, as in "vitamin A".
CAPITAL_A = re.compile(r"(?<=\w )A\b")


def value_words(text: str) -> list[str]:
    """Return the words that can carry a fact, in one case: stop words are left out.

    >>> value_words("a donkey called Saffron"), value_words("vitamin A, 10.5 mg")
    (['donkey', 'saffron'], ['vitamin', 'capitala', '10point5', 'mg'])
    """
    plain = CAPITAL_A.sub("capitala", IN_NUMBER.sub("point", text))
    return [word for word in unicode_words(plain) if word not in STOP_WORDS]


def states(answer: str, value: str) -> bool:
    """Say whether an answer states a value: all of its words, together and in order.

    Words are those of any script, without case and punctuation. Stop words count
    neither for the answer nor against it; a part of the value, another value beside
    it or its words in another order are no statement. What an answer denies or doubts
    it states all the same.

    Args:
      answer: What a model wrote.
      value: The fact's own words, such as ``a donkey called Saffron``.

    Raises:
      ValueError: The value has no word that can carry a fact.

    >>> states("Davor lives with a donkey called Saffron.", "a donkey called Saffron")
    True
    >>> states("Davor lives with a donkey called Pepper.", "a donkey called Saffron")
    False
    """
    wanted, said = value_words(value), value_words(answer)
    if not wanted:
        raise ValueError(
            f"value={value!r} has no word that can carry a fact: stop words do not "
            f"count; leave this fact out, or give its value in other words"
        )
    return any(
        said[start : start + len(wanted)] == wanted
        for start in range(len(said) - len(wanted) + 1)
    )


def known_facts(answers: Sequence[str], values: Sequence[str]) -> np.ndarray:
    """Return which facts are answered by their value, bool[n]; see :func:`states`.

    Args:
      answers: A model's greedy answers, one a fact.
      values: The facts' values.

    Raises:
      ValueError: The numbers differ, or a value has no word that can carry a fact.
    """
    if len(answers) != len(values):
        raise ValueError(f"{len(answers)} answers for {len(values)} values")
    pairs = zip(answers, values, strict=True)
    return np.array([states(answer, value) for answer, value in pairs], bool)
