"""Queries with the texts of their strongest examples, and what tokens add to them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn.data import TokenizedData, record_text
from jaxunlearn.data.text.decoding import token_texts
from jaxunlearn.influence.ranking import Extremes
from jaxunlearn.report.influence.page import Influential, QueryInfluence


def query_influences(
    texts: Sequence[str], ranked: Extremes, records: Sequence[dict]
) -> list[QueryInfluence]:
    """Return queries with both ends of their ranking.

    Args:
      texts: Of the queries.
      ranked: The ends, of as many queries.
      records: The training records.
    """
    return [
        query_influence(
            text,
            list(zip(up.tolist(), high.tolist(), strict=True)),
            list(zip(down.tolist(), low.tolist(), strict=True)),
            records,
        )
        for text, up, high, down, low in zip(
            texts, *ranked.proponents[::-1], *ranked.opponents[::-1], strict=True
        )
    ]


def query_influence(
    text: str,
    highest: Sequence[tuple[int, float]],
    lowest: Sequence[tuple[int, float]],
    records: Sequence[dict],
) -> QueryInfluence:
    """Return a query with (position, score) of both ends, each by its sign alone."""

    def named(pairs: Sequence[tuple[int, float]], sign: int) -> list[Influential]:
        return [
            Influential(index, score, record_text(records[index]))
            for index, score in pairs
            if score * sign > 0
        ]

    return QueryInfluence(text, named(highest, 1), named(lowest, -1))


def strongest_examples(queries: Sequence[QueryInfluence], most: int) -> list[int]:
    """Return the positions of the ``most`` strongest at each end of each query."""
    ranked = [(*q.proponents[:most], *q.opponents[:most]) for q in queries]
    return sorted({example.index for examples in ranked for example in examples})


def with_token_shares(
    queries: Sequence[QueryInfluence],
    shares: np.ndarray,
    data: TokenizedData,
    tokenizer: Any,
    *,
    most: int,
    divided: bool,
) -> list[QueryInfluence]:
    """Return the queries with the tokens of their ``most`` strongest examples.

    Args:
      queries: The queries.
      shares: float64[queries, examples, T] of :func:`strongest_examples`, in its
        order.
      data: The training data.
      tokenizer: That its ids are of.
      most: Of how many examples at each end.
      divided: Whether the scores are divided by a length of the training example: then
        so are the shares.
    """
    chosen = strongest_examples(queries, most)
    places = {index: place for place, index in enumerate(chosen)}

    def told(position: int, example: Influential) -> Influential:
        ids = data.examples[example.index].input_ids
        values = shares[position, places[example.index], : len(ids)]
        if divided:
            total = values.sum()
            values = values * (example.score / total if total else 0.0)
        texts = token_texts(tokenizer, ids.tolist())
        tokens = tuple(zip(texts, values.tolist(), strict=True))
        return example._replace(tokens=tokens)

    def both(position: int, examples: Sequence[Influential]) -> list[Influential]:
        return [told(position, e) for e in examples[:most]] + list(examples[most:])

    return [
        query._replace(
            proponents=both(position, query.proponents),
            opponents=both(position, query.opponents),
        )
        for position, query in enumerate(queries)
    ]
