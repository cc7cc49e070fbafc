"""In-context reintroduction: what was forgotten, told again in front of the question.

Any text in front of a question changes the answer, and moves it to later positions. So
an irrelevant text of as many tokens stands against the relevant one, and only what
relevance adds counts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxunlearn.data import TokenizedData, epoch_order, record_text
from jaxunlearn.evaluation.attacks.prompts import prepended
from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.types import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"


def in_context(
    params: Params,
    plain: Callable[[Params], np.ndarray],
    pairs: Sequence[tuple[Callable, Callable]],
    counts: Sequence[int],
) -> Recovered:
    """Measure with relevant and with irrelevant text in front.

    ``value_k = value_0 + relevant_k - irrelevant_k``: as without context, plus the gain
    by k relevant texts over irrelevant ones. May leave 0 to 1.

    Args:
      params: Parameters of the model.
      plain: ``params -> float64[n]`` without context.
      pairs: ``(relevant, irrelevant)`` for each number of texts.
      counts: Those numbers, each above 0 and rising.

    Returns:
      Strengths 0 and ``counts``.

    Source: Shumailov et al. 2024, UnUnlearning: unlearning is not sufficient for
    content regulation in advanced generative AI; no code was published.
    """
    start = plain(params)
    gains = [relevant(params) - irrelevant(params) for relevant, irrelevant in pairs]
    return Recovered((0, *counts), np.stack([start, *(start + g for g in gains)]))


def with_context(
    data: TokenizedData,
    records: Sequence[dict],
    irrelevant: Sequence[dict],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    count: int,
    max_length: int,
    texts: Sequence[dict] | None = None,
    seed: int = 0,
) -> tuple[TokenizedData, TokenizedData]:
    """Put relevant and irrelevant texts in front of each example.

    Args:
      data: The tokenised forget set, one example a record.
      records: Its records: the others are the context of each.
      irrelevant: Records that have nothing to do with them.
      tokenizer: The tokenizer of ``data``.
      count: How many relevant texts, drawn for each example by ``seed``. Irrelevant
        ones follow one another, and begin again if need be, until they have exactly as
        many tokens.
      max_length: Most tokens of an example with its context: a longer context loses its
        beginning.
      texts: Told instead of the other forgotten records: definitions, an article.
      seed: Of the draws.

    Raises:
      ValueError: There are too few relevant texts, or nothing irrelevant; records and
        examples differ in number.

    Returns:
      The examples with relevant and with irrelevant context; contexts bear no loss.
    """
    number = len(data.examples)
    if len(records) != number:
        raise ValueError(f"{len(records)} records for {number} examples: one each")
    available = number - 1 if texts is None else len(texts)
    if not 1 <= count <= available:
        raise ValueError(
            f"count={count}: 1 to {available}, the relevant texts there are"
        )
    if len(irrelevant) == 0:
        raise ValueError(
            "irrelevant is empty: relevance is measured against other text"
        )
    relevant_ids = context_ids(records if texts is None else texts, tokenizer)
    other_ids = context_ids(irrelevant, tokenizer)
    fronts, others = [], []
    for i in range(number):
        order = epoch_order(seed, i, len(relevant_ids))
        chosen = [j for j in order if texts is not None or j != i][:count]
        front = np.concatenate([relevant_ids[j] for j in chosen])
        stream = np.concatenate(
            [other_ids[j] for j in epoch_order(seed, i, len(other_ids))]
        )
        fronts.append(front)
        # Its end, so that the separator stands before the question as it does there.
        others.append(np.resize(stream[::-1], len(front))[::-1])
    relevant, other = (
        prepended(data, rows, tokenizer, max_length=max_length)
        for rows in (fronts, others)
    )
    return relevant, other


def context_ids(
    records: Sequence[dict], tokenizer: "PreTrainedTokenizerBase"
) -> list[np.ndarray]:
    """Return the tokens of each record's text and the separator behind it."""
    texts = [record_text(record) + SEPARATOR for record in records]
    found = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [np.asarray(ids, np.int32) for ids in found]
