"""A past training run after each of its epochs, computed again by running it again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.training.loop import train
from jaxunlearn.training.recipe import learning_rate, steps_per_epoch
from jaxunlearn.training.runs import Run, check_model
from jaxunlearn.types import Params

SAME = 1e-2
"""Share of their norm by which parameters of the same run differ at most."""


class EpochEnd(NamedTuple):
    """A run after one of its epochs."""

    params: Params
    learning_rate: float  # mean over the epoch's steps


def epoch_checkpoints(
    run: Run,
    params: Params,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> list[EpochEnd]:
    """Return the run's parameters after each epoch, by training it again.

    A run directory keeps its latest states alone, so these are computed anew, to the
    identical trajectory.

    Args:
      run: The training run.
      params: What it gave.
      on_step: Called with the steps that are done and their number.

    Raises:
      ValueError: ``params`` are not what the run gives.
    """
    check_model(run, params)
    steps = steps_per_epoch(run.recipe, len(run.data.examples))
    total = steps * run.recipe.epochs
    kept: list[Params] = []

    def keep(now: Params) -> dict:
        kept.append(jax.device_get(now))
        return {}

    train(
        run.model,
        run.start,
        run.data,
        run.recipe,
        evaluate=keep,
        on_step=lambda p: on_step and on_step(p.step, total),
    )
    difference = tree.norm(tree.subtract(kept[-1], params))
    share = float(difference / tree.norm(params))
    if not share < SAME:
        raise ValueError(
            f"params are not those that the run {run.directory} gives (they are off by "
            f"{share:.1%}): its epochs are those of its own model alone"
        )
    rates = np.asarray([learning_rate(run.recipe, total)(s) for s in range(total)])
    return [
        EpochEnd(after, float(rates[i * steps : (i + 1) * steps].mean()))
        for i, after in enumerate(kept[1:])
    ]
