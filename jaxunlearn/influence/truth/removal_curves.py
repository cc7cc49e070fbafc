"""Removal curves: take a query's top proponents away, retrain, see what is lost.

Source: Ilyas et al., Datamodels: predicting predictions from training data, 2022
(brittleness: how few examples a prediction hangs on).
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.influence.truth.subset_training import WeightedRun, train_subsets


class RemovalCurve(NamedTuple):
    """A query's outcome after its top proponents were removed, beside a random removal.

    Each is the mean over the seeds of the runs.
    """

    counts: np.ndarray  # int64[K]: examples removed
    before: np.ndarray  # float32[Q]: nothing removed
    top: np.ndarray  # float32[Q, K]: each query's own top proponents removed
    random: np.ndarray  # float32[Q, K, repeats]: as many random examples removed


def removal_curve(
    train: WeightedRun,
    scores: np.ndarray,
    counts: Sequence[int],
    *,
    repeats: int = 4,
    seeds: Sequence[int] = (0,),
    seed: int = 0,
    group: int = 8,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RemovalCurve:
    """Retrain without each query's ``k`` highest-scored examples, for k in ``counts``.

    Args:
      train: A training run with an outcome for each query.
      scores: [Q, N], > 0 for proponents.
      counts: Numbers of examples to remove.
      repeats: Random removals of each count, drawn once for all queries.
      seeds: Of the runs.
      seed: Of the random removals.
      group: Models trained together.
      path: File to keep finished models in, see :func:`train_subsets`.
      progress: Called with (models done, models in all).

    Raises:
      ValueError: A count is out of range; the run's outcomes are not one a query.

    Cost: ``len(seeds) * (1 + len(counts) * (Q + repeats))`` runs.
    """
    scores = np.asarray(scores)
    queries, examples = scores.shape
    sizes = np.asarray(counts, np.int64)
    if sizes.size == 0 or sizes.min() < 1 or sizes.max() >= examples or repeats < 1:
        raise ValueError(
            f"counts={counts!r}, repeats={repeats}: counts in 1..{examples - 1} and at "
            f"least 1 repeat"
        )
    best = np.argsort(-scores, axis=1, kind="stable")
    draw = np.random.default_rng(seed)
    chance = np.stack([draw.permutation(examples) for _ in range(repeats)])
    orders = np.concatenate([best, chance])
    weights = np.ones((1 + len(orders) * len(sizes), examples), np.float32)
    row = 1
    for order in orders:
        for size in sizes:
            weights[row, order[:size]] = 0
            row += 1
    outcomes = train_subsets(
        train, weights, seeds=seeds, group=group, path=path, progress=progress
    ).mean(axis=1)
    if outcomes.shape[1] != queries:
        raise ValueError(
            f"the run has {outcomes.shape[1]} outcomes, scores have {queries} queries"
        )
    removed = outcomes[1:].reshape(queries + repeats, len(sizes), queries)
    own = np.arange(queries)
    return RemovalCurve(
        sizes, outcomes[0], removed[own, :, own], removed[queries:].transpose(2, 1, 0)
    )


def brittleness(
    curve: RemovalCurve, *, threshold: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of queries that removal carries from below to above a threshold.

    With losses as outcomes: the queries that the model knew (loss below the threshold)
    and no longer knows. For a classifier let the run return minus the margin.

    Args:
      curve: From :func:`removal_curve`.
      threshold: Outcome at which a query counts as lost.

    Returns:
      float64[K] for the top proponents, and float64[K] for as many random examples.

    Raises:
      ValueError: No query lies below the threshold before the removal.
    """
    known = curve.before < threshold
    if not known.any():
        raise ValueError(
            f"threshold={threshold}: no query lies below it before anything is "
            f"removed; their outcomes run from {curve.before.min():.4g} to "
            f"{curve.before.max():.4g}"
        )
    lost_by_top = (curve.top[known] >= threshold).mean(axis=0)
    return lost_by_top, (curve.random[known] >= threshold).mean(axis=(0, 2))
