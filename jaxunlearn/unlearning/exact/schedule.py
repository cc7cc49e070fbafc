"""When a run first uses an example, and what a replay from there costs.

Both are functions of the recipe and the number of examples; nothing is stored.
"""

import math
from collections.abc import Collection

import numpy as np

from jaxunlearn.data import epoch_order
from jaxunlearn.training.recipe import Recipe, steps_per_epoch


def first_use(recipe: Recipe, n: int, forget: Collection[int]) -> int:
    """Return the first step, from 0, whose batch holds one of the examples.

    Args:
      recipe: The run's recipe: its seed and batch size decide.
      n: Examples of the run.
      forget: Positions of examples, at least one.

    Raises:
      ValueError: There is none, or one is outside the data.

    Cost: one sort of n numbers.
    """
    outside = sorted(i for i in forget if not 0 <= i < n)
    if not forget or outside:
        raise ValueError(
            f"forget={sorted(forget)[:5]}: name at least one example, each from 0 to "
            f"{n - 1}" + (f"; {outside[:5]} are not in the data" if outside else "")
        )
    order = epoch_order(recipe.seed, 0, n)
    places = np.flatnonzero(np.isin(order, np.asarray(list(forget), np.int64)))
    return int(places[0]) // recipe.batch_size


def unused_examples(recipe: Recipe, n: int, steps: int) -> list[int]:
    """Return the examples that the first ``steps`` steps of a run do not use.

    Args:
      recipe: The run's recipe.
      n: Examples of the run.
      steps: Steps done; after an epoch every example was used.
    """
    order = epoch_order(recipe.seed, 0, n)
    return sorted(int(i) for i in order[steps * recipe.batch_size :])


def expected_replayed_share(
    recipe: Recipe, n: int, forgotten: int, *, keep_every: int | None = None
) -> float:
    """Return the share of a run's steps that an exact replay takes, on average.

    ``1 - E[c floor(s / c)] / S`` with s the first of S steps that uses one of m
    examples drawn at random from n, and a checkpoint every c steps:
    ``E[c floor(s / c)] = c sum_j C(n - j c B, m) / C(n, m)`` over the checkpoints
    j = 1, 2, ... of the first epoch, B the batch size.

    Every example is used in the first epoch, so a replay saves less than one epoch:
    with k checkpoints an epoch about ``1 / (m + 1) - 1 / (2 k)`` of it. It pays for
    few examples and few epochs; of many examples one is nearly always among the first.

    Args:
      recipe: The run's recipe.
      n: Examples of the run.
      forgotten: m, how many are to be forgotten.
      keep_every: c, the cadence of the checkpoints; None has none but the start.

    Raises:
      ValueError: ``forgotten`` is not 1 to n, or ``keep_every`` is below 1.
    """
    if not 1 <= forgotten <= n:
        raise ValueError(f"forgotten={forgotten}: must be from 1 to {n}, all examples")
    if keep_every is None:
        return 1.0
    if keep_every < 1:
        raise ValueError(f"keep_every={keep_every}: must be at least 1, or None")
    total = recipe.epochs * steps_per_epoch(recipe, n)
    span = keep_every * recipe.batch_size
    behind = range(span, n - forgotten + 1, span)
    ways = sum(math.comb(n - place, forgotten) for place in behind)
    return 1.0 - keep_every * (ways / math.comb(n, forgotten)) / total
