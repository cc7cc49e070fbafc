"""How well scores foretell what retraining does.

Two truths, both made by real retraining: leave-one-out (one example away), and the
linear datamodelling score (random subsets; Park et al., TRAK: attributing model
behavior at scale, 2023). Scores are compared by rank, so their scale does not matter;
their sign does: a proponent, score > 0, lowers the query's loss.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.influence.truth.subset_training import WeightedRun, train_subsets


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of predictions and outcomes."""

    mean: float  # over the queries
    per_query: np.ndarray  # float64[Q]
    over_queries: tuple[float, float]  # confidence interval: other queries
    over_runs: tuple[float, float]  # confidence interval: other retrained models


def leave_one_out(
    train: WeightedRun,
    examples: int,
    *,
    which: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    group: int = 8,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return how much each query's loss rises when an example is left out.

    ``L_q(w_i = 0) - L_q(w = 1)``, the mean over ``seeds``; > 0 for a proponent, as a
    score. What leaving out means is the run's: with ``make_weighted_step`` the example
    gives no gradient while everything else, batch sizes too, stays; with
    ``renormalise=True`` it also leaves the batch's mean.

    Args:
      train: A training run whose outcomes are query losses.
      examples: N.
      which: The examples to leave out one by one; None is all.
      seeds: Of the runs; with several, the influence on the average model.
      group: Models trained together.
      path: File to keep finished models in, see :func:`train_subsets`.
      progress: Called with (models done, models in all).

    Returns:
      float32[Q, len(which)].

    Raises:
      ValueError: ``which`` is empty or out of range; and as :func:`train_subsets`.

    Cost: ``len(seeds) * (1 + len(which))`` runs.
    """
    chosen = np.arange(examples) if which is None else np.asarray(which, np.int64)
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= examples:
        raise ValueError(f"which={which!r}: positions in 0..{examples - 1}, at least 1")
    weights = np.ones((1 + len(chosen), examples), np.float32)
    weights[1 + np.arange(len(chosen)), chosen] = 0
    outcomes = train_subsets(
        train, weights, seeds=seeds, group=group, path=path, progress=progress
    )
    return (outcomes[1:] - outcomes[:1]).mean(axis=1).T


def linear_datamodelling_score(
    scores: np.ndarray,
    subset_masks: np.ndarray,
    subset_losses: np.ndarray,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RankCorrelation:
    """Return the rank correlation of summed scores and what subsets really gave.

    Per query, Spearman's correlation over the subsets S between ``sum_{i in S}
    scores[q, i]`` and minus the loss of the model trained on S.

    Args:
      scores: [Q, N], > 0 for proponents.
      subset_masks: bool[M, N], see :func:`random_subsets`.
      subset_losses: [M, Q] losses; the mean over seeds, where there are several.
      resamples: Of each bootstrap.
      confidence: Of the intervals.
      seed: Of the bootstrap.

    Raises:
      ValueError: Shapes do not fit together, there are fewer than 3 subsets, or a
        number is not finite.

    >>> scores = np.array([[3.0, 2.0, 1.0]])
    >>> masks = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    >>> losses = np.array([[0.1], [0.2], [0.3]])
    >>> linear_datamodelling_score(scores, masks, losses, resamples=10).mean
    1.0
    """
    scores, masks = np.asarray(scores, np.float64), np.asarray(subset_masks, bool)
    losses = np.asarray(subset_losses, np.float64)
    if scores.ndim != 2 or masks.ndim != 2 or scores.shape[1] != masks.shape[1]:
        raise ValueError(
            f"scores {scores.shape} and subset_masks {masks.shape}: [queries, "
            f"examples] and [subsets, examples] needed"
        )
    if losses.shape != (len(masks), len(scores)):
        raise ValueError(
            f"subset_losses {losses.shape}: [subsets, queries] = "
            f"{(len(masks), len(scores))} needed; average over seeds first"
        )
    return rank_correlation(
        scores @ masks.T,
        -losses.T,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def rank_correlation(
    predicted: np.ndarray,
    observed: np.ndarray,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RankCorrelation:
    """Return Spearman's correlation of each row, with bootstrap intervals of the mean.

    Leave-one-out's agreement with scores is ``rank_correlation(scores[:, which],
    leave_one_out(...))``.

    Args:
      predicted: [Q, M]. A row of equal numbers tells nothing and counts as 0.
      observed: [Q, M].
      resamples: Of each bootstrap: over the Q queries, and over the M runs.
      confidence: Of the intervals, which are percentiles (Efron 1979).
      seed: Of the bootstrap.

    Raises:
      ValueError: The shapes differ, M is below 3, or a number is not finite.
    """
    predicted = np.asarray(predicted, np.float64)
    observed = np.asarray(observed, np.float64)
    if predicted.shape != observed.shape or predicted.ndim != 2:
        raise ValueError(
            f"predicted {predicted.shape} and observed {observed.shape}: two arrays "
            f"[queries, runs] of one shape needed"
        )
    if predicted.shape[0] == 0 or predicted.shape[1] < 3:
        raise ValueError(
            f"{predicted.shape[0]} queries and {predicted.shape[1]} runs: a rank "
            f"correlation needs at least 1 and 3"
        )
    for name, values in (("predicted", predicted), ("observed", observed)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds a number that is not finite")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples={resamples}, confidence={confidence}: at least 1, and between "
            f"0 and 1"
        )
    draw = np.random.default_rng(seed)
    per_query = spearman(predicted, observed)
    queries, runs = predicted.shape
    of_queries = per_query[draw.integers(queries, size=(resamples, queries))].mean(1)
    of_runs = [
        spearman(predicted[:, chosen], observed[:, chosen]).mean()
        for chosen in draw.integers(runs, size=(resamples, runs))
    ]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return RankCorrelation(
        float(per_query.mean()),
        per_query,
        tuple(np.quantile(of_queries, tails).tolist()),
        tuple(np.quantile(of_runs, tails).tolist()),
    )


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each row, ties at their mean rank; constant: 0."""
    from scipy.stats import rankdata

    a, b = (rankdata(x, axis=1) for x in (a, b))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    length = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(length == 0, 1.0, length)
