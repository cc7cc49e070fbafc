"""Which words of an answer are the truth's, beyond what the question gave away."""

import difflib
import re
from typing import NamedTuple

from markupsafe import Markup, escape

from jaxunlearn.evaluation.text.facts import STOP_WORDS
from jaxunlearn.evaluation.text.words import pieces, unicode_words


class MarkedAnswer(NamedTuple):
    """An answer with its right words marked.

    Attributes:
      html: The escaped answer, right words in ``<mark>``.
      right: How many of the truth's words the answer has, in the truth's order.
      total: How many words the truth has. Neither counts words of the prompt, nor
        stop words, which an answer gets right without knowing anything.
    """

    html: Markup
    right: int
    total: int


def mark_answer(answer: str, *, truth: str, prompt: str) -> MarkedAnswer:
    """Mark the words that an answer shares with the truth and not with the prompt.

    Words of any script are compared without case and punctuation, as the longest common
    runs in the truth's order. A question about a person's pet names person and pet, so
    an answer that only repeats these has nothing right.

    Args:
      answer: What a model wrote.
      truth: What it should have written.
      prompt: What it was asked.

    Returns:
      The marked answer.

    >>> prompt, truth = "Which pet does Mira keep?", "Mira keeps an owl."
    >>> marked = mark_answer("Mira keeps a goat.", truth=truth, prompt=prompt)
    >>> print(marked.html, marked.right, marked.total)
    Mira <mark>keeps</mark> a goat. 1 2
    """
    parts = pieces(answer)
    places = [place for place, part in enumerate(parts) if words_in(part)]
    said = [words_in(parts[place]) for place in places]
    true, asked = ([w for w in map(words_in, pieces(x)) if w] for x in (truth, prompt))
    given = STOP_WORDS.union(asked)
    matcher = difflib.SequenceMatcher(None, said, true, autojunk=False)
    right = {
        places[position]
        for start, _, length in matcher.get_matching_blocks()
        for position in range(start, start + length)
        if said[position] not in given
    }
    html = Markup("").join(
        Markup("<mark>{}</mark>").format(part) if place in right else escape(part)
        for place, part in enumerate(parts)
    )
    # Neighbouring words are one mark, so that a right phrase reads as one.
    html = Markup(re.sub(r"</mark>(\s*)<mark>", r"\1", html))
    return MarkedAnswer(html, len(right), sum(word not in given for word in true))


def words_in(piece: str) -> str:
    """Return the words of a piece of text, without what is none."""
    return " ".join(unicode_words(piece))
