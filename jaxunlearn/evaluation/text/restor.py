"""Whether unlearning a false fact brings the true one back (RESTOR).

Three models are asked the same questions: a clean one, one that was then trained on
false facts (corrupted), and that one after unlearning them. Forgetting is not enough:
the unlearned model should answer as the clean one, not just otherwise than the
corrupted one.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxunlearn.data import in_order, tokenize
from jaxunlearn.data.text.examples import TruncationWarning
from jaxunlearn.evaluation.text.greedy import answers
from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    mean_losses,
    token_statistics,
)
from jaxunlearn.evaluation.text.words import unicode_words
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("clean", "corrupted", "random")
OTHER = "other"


class Fact(NamedTuple):
    """A question about a subject, and objects that may answer it, at least one a kind.

    Attributes:
      prompt: What the model goes on from, such as ``"Question: ...\\nAnswer:"``, with
        examples of the relation before it for a model that was not taught to answer.
      clean: True objects.
      corrupted: The false objects that were trained in.
      random: Objects of the same kind of thing that nobody trained in.
    """

    prompt: str
    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    random: tuple[str, ...]


class Knowledge(NamedTuple):
    """What one model makes of n facts.

    Attributes:
      answered: The kind of object that each answer names, or ``"other"``.
      log_probability: By kind float64[n]: mean log-probability of a token of its
        objects, in nats; the mean over the objects.
    """

    answered: tuple[str, ...]
    log_probability: dict[str, np.ndarray]


class Restoration(NamedTuple):
    """The three-way comparison.

    Attributes:
      rates: By model (``clean``, ``corrupted``, ``unlearned``), then kind: see
        :func:`answer_rates`. ``rates[model]["clean"]`` is its accuracy.
      masses: By model, then kind: see :func:`object_masses`.
      restored: Share of the accuracy lost to corruption that unlearning brought back.
        1 = as clean, 0 = as corrupted; below 0, more was lost. None if corruption did
        not lower the accuracy: there is nothing to bring back.
      restored_mass: Likewise of the clean objects' mass.
    """

    rates: dict[str, dict[str, float]]
    masses: dict[str, dict[str, float]]
    restored: float | None
    restored_mass: float | None


def restoration(
    *, clean: Knowledge, corrupted: Knowledge, unlearned: Knowledge
) -> Restoration:
    """Return what three models make of the same facts, and the share restored.

    ``restored = (a_unlearned - a_corrupted) / (a_clean - a_corrupted)``, with a the
    accuracy (the share of answers that name a clean object) or the clean objects' mass.
    Higher = better. Because random objects share the mass, a model that merely forgot
    both has 1/3 of it.

    Args:
      clean: :func:`knowledge` of the model that never saw the false facts.
      corrupted: Of the model that was trained on them.
      unlearned: Of the corrupted model after unlearning.

    Raises:
      ValueError: There is no fact, or the three are not of as many.

    Source: RESTOR, arXiv 2411.00204: its comparison of generations and of logits. A
    chat model judges answers there, the words do here; the share restored is our
    summary.
    """
    models = {"clean": clean, "corrupted": corrupted, "unlearned": unlearned}
    sizes = {name: len(model.answered) for name, model in models.items()}
    if len(set(sizes.values())) > 1 or not sizes["clean"]:
        raise ValueError(
            f"facts: {sizes}; the same, at least one, are needed of all three models"
        )
    rates = {name: answer_rates(model) for name, model in models.items()}
    masses = {name: object_masses(model) for name, model in models.items()}
    return Restoration(rates, masses, share_restored(rates), share_restored(masses))


def answer_rates(known: Knowledge) -> dict[str, float]:
    """Return the share of the answers that name each kind of object, or another."""
    size = len(known.answered)
    return {kind: known.answered.count(kind) / size for kind in (*KINDS, OTHER)}


def object_masses(known: Knowledge) -> dict[str, float]:
    """Return each kind's share of probability, the mean over the facts.

    ``mass_k = exp(l_k) / sum_j exp(l_j)`` over the three kinds, with l a fact's
    ``log_probability``: 1/3 each for a model that knows nothing.
    """
    logits = np.stack([known.log_probability[kind] for kind in KINDS])
    shares = np.exp(logits - logits.max(axis=0))
    means = (shares / shares.sum(axis=0)).mean(axis=1)
    return dict(zip(KINDS, means.tolist(), strict=True))


def share_restored(shares: dict[str, dict[str, float]]) -> float | None:
    """Return which part of the way from corrupted to clean the unlearned model is."""
    clean, corrupted, unlearned = (
        shares[name]["clean"] for name in ("clean", "corrupted", "unlearned")
    )
    if clean <= corrupted:
        return None
    return (unlearned - corrupted) / (clean - corrupted)


def knowledge(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    facts: Sequence[Fact],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
) -> Knowledge:
    """Return what a model answers, greedily, and how likely it finds each object.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      facts: The facts to ask.
      max_new_tokens: Most tokens of an answer; an object that is longer cannot be
        named.
      batch_size: Prompts or objects at a time.

    Raises:
      ValueError: There is no fact, a fact lacks a kind of object, or a prompt with its
        object or answer is longer than the model takes.

    Cost: one forward pass over every prompt and object, and the generation.
    """
    if len(facts) == 0:
        raise ValueError("facts is empty: there is nothing to ask")
    for i, fact in enumerate(facts):
        for kind in KINDS:
            objects = getattr(fact, kind)
            named = [bool(unicode_words(name)) for name in objects]
            if isinstance(objects, str) or not named or not all(named):
                raise ValueError(
                    f"facts[{i}].{kind}={objects!r}: a tuple of at least one object, "
                    f"in words, is needed"
                )
    said = answers(
        model,
        params,
        tokenizer,
        [fact.prompt for fact in facts],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    asked = [
        (kind, i, name)
        for kind in KINDS
        for i, fact in enumerate(facts)
        for name in getattr(fact, kind)
    ]
    losses = object_losses(
        model,
        params,
        tokenizer,
        [(facts[i].prompt, name) for _, i, name in asked],
        batch_size=batch_size,
    )
    found: dict[str, list[list[float]]] = {kind: [[] for _ in facts] for kind in KINDS}
    for (kind, i, _), loss in zip(asked, losses, strict=True):
        found[kind][i].append(-loss)
    return Knowledge(
        tuple(kind_named(text, fact) for text, fact in zip(said, facts, strict=True)),
        {kind: np.array([np.mean(x) for x in rows]) for kind, rows in found.items()},
    )


def object_losses(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int,
) -> np.ndarray:
    """Return the mean token loss of each object behind its prompt, float64[n]."""
    length = model.positions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # an error here
        data = tokenize(
            [{"prompt": prompt, "gt": name} for prompt, name in pairs],
            tokenizer,
            max_length=length,
        )
    if data.truncated:
        raise ValueError(
            f"{data.truncated} prompts with their objects have more than the model's "
            f"{length} tokens: shorten the prompts"
        )
    statistics = token_statistics(model, params, in_order(data, batch_size=batch_size))
    # Without the end of text: whether the model stops there is not the question.
    objects = [TokenStatistics(*(x[:-1] for x in one)) for one in statistics]
    return mean_losses(objects)


def kind_named(answer: str, fact: Fact) -> str:
    """Return the kind of the object that an answer begins with, or ``"other"``.

    Case and punctuation do not count; of several objects the longest is meant.

    >>> fact = Fact("Born in:", ("York",), ("New York",), ("Rome",))
    >>> kind_named("new york, in 1950.", fact), kind_named("Yorkshire", fact)
    ('corrupted', 'other')
    """
    said = unicode_words(answer)
    objects = [
        (unicode_words(name), kind) for kind in KINDS for name in getattr(fact, kind)
    ]
    found = [
        (len(name), kind)
        for name, kind in objects
        if name and said[: len(name)] == name
    ]
    # The first of the longest: an object of two kinds counts as the clean one.
    return max(found, key=lambda pair: pair[0])[1] if found else OTHER
