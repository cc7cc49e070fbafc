"""The training examples that scores put first and last, and their tokens' shares."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.data import Batches, collate
from jaxunlearn.gradients import token_contributions
from jaxunlearn.influence.result import InfluenceScores
from jaxunlearn.types import Params, PerExampleLoss

DIVIDED = ("cosine", "relatif")
"""Methods whose scores are divided by a length of the training example."""


class TopK(NamedTuple):
    """The k strongest examples of each query, the strongest first."""

    scores: np.ndarray  # float32[Q,k]
    ids: np.ndarray  # int32[Q,k]


class Extremes(NamedTuple):
    """Both ends of the ranking."""

    proponents: TopK  # the highest scores
    opponents: TopK  # the lowest


def extremes(found: InfluenceScores, *, k: int, queries: int | None = None) -> Extremes:
    """Return the strongest proponents and opponents of queries.

    Args:
      found: The scores [Q, N].
      k: How many of each; fewer where there are fewer examples.
      queries: Of the first so many queries; None is all of them.

    Raises:
      ValueError: A score of these queries is not finite.
    """
    rows = found.scores[:queries]
    for position, row in enumerate(rows):
        if not np.isfinite(row).all():
            raise ValueError(
                f"{int((~np.isfinite(row)).sum())} scores of query {position} are not "
                f"finite; {' '.join(found.notes) or 'raise damping=NUMBER'}"
            )
    order = np.argsort(-rows, axis=1, kind="stable")
    ends = (order[:, :k], order[:, ::-1][:, :k])
    return Extremes(
        *(
            TopK(np.take_along_axis(rows, end, 1), np.asarray(found.index)[end])
            for end in ends
        )
    )


def token_shares(
    found: InfluenceScores,
    loss: PerExampleLoss,
    params: Params,
    train: Batches,
    examples: Sequence[int],
    *,
    queries: int | None = None,
) -> np.ndarray:
    """Return each token's part of the scores, float64[Q, examples, T].

    The parts of an example add up to its score; where a method divides by a length of
    the training example (:data:`DIVIDED`), to the score before that.

    Args:
      found: Scores with their ``directions``.
      loss: The per-example loss.
      params: Where the scores were taken.
      train: The training data.
      examples: Positions in it.
      queries: Of the first so many queries; None is all of them.

    Cost: a pass forward and back over the examples.
    """
    directions: Mapping[str, Any] = found.directions or {}
    parts = [
        collate(
            train.data,
            examples[start : start + train.batch_size],
            batch_size=train.batch_size,
            length=train.length,
        )
        for start in range(0, len(examples), train.batch_size)
    ]
    shares = token_contributions(
        loss,
        params,
        parts,
        {name: x[:queries] for name, x in directions.items()},
        layers=found.coverage["layers"],
    )
    return np.asarray(shares)[:, : len(examples)].astype(np.float64)
