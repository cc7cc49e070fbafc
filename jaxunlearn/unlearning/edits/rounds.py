"""Rounds of unlearning: one example at a time, and all looked at again after it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import tree
from jaxunlearn.types import Params
from jaxunlearn.unlearning.outcome import Outcome, PathPoint, Status
from jaxunlearn.unlearning.stopping import Rule, exposures

CALIBRATION = "calibration: "
Direction = Callable[[Params, Any, int], Params]
"""(parameters, example, how often it was used before) -> a direction like them."""


class UnlearningPath(NamedTuple):
    """What an iterative run came to.

    Attributes:
      params: The parameters of the last point that was not refused.
      reason: Why it ended: what ``stop`` or ``refuse`` said; ``"rounds"``; or
        ``"calibration: "`` and the status of a step that could not be calibrated.
      refused: Whether the last round was undone.
      history: The points, the first one before any step; a refused one is the last.
      rankings: float64[points, n], the ranking at each point.
    """

    params: Params
    reason: str
    refused: bool
    history: tuple[PathPoint, ...]
    rankings: np.ndarray


def iterative_unlearning(
    params: Params,
    *,
    examples: Sequence[Any],
    rank: Callable[[Params], np.ndarray],
    direction: Direction,
    measure: Callable[[Params], Mapping[str, float]],
    stop: Rule,
    refuse: Rule | None = None,
    step_scale: float | None = None,
    calibrated: Callable[[Params, Params, Any], Outcome] | None = None,
    layer_norm: float,
    max_rounds: int,
) -> UnlearningPath:
    """Unlearn example by example, ranked anew after each step.

    A round takes the example that the ranking puts first (of equals the first in
    order), goes ``theta <- theta + s d`` along its direction, measures and ranks
    everything again, and asks the rules.

    Args:
      params: Trained parameters; not changed.
      examples: n of them, as ``direction`` and ``calibrated`` know them.
      rank: Parameters -> float[n] in that order, the highest goes first: influence on
        the request (``gradient_dot``), or minus the loss for what is remembered best.
      direction: Which way to go; see :func:`recorded_then_fresh`.
      measure: Parameters -> ``forget`` and ``retain`` losses, ``membership`` where it
        is measured, and any other numbers, which become the point's ``scores``. The
        highest ranking is added to these as ``rank``.
      stop: Rule that ends the path where it is.
      refuse: Rule that ends it one round before, such as a limit that was passed.
      step_scale: s, the same in every round; at 0 no bit changes.
      calibrated: Instead of it: (parameters, direction, example) -> the outcome of
        :func:`~jaxunlearn.unlearning.calibration.calibrate` for that round, whose
        parameters the round takes where it reached its target.
      layer_norm: Norm of the parameters in the chosen layers, for ``relative_step``.
      max_rounds: Most rounds.

    Returns:
      The parameters and the whole path.

    Raises:
      ValueError: There is no example; not exactly one of ``step_scale`` and
        ``calibrated`` is given; the ranking has another length or holds NaN; a loss is
        not measured; a direction is not finite.

    Cost: a round is a direction, a ranking and a measurement. Source: a
    reconstruction of the iterative removal of Zagardo (2406.09391, abstract only).
    """
    if not examples:
        raise ValueError("examples is empty: give at least one to forget")
    if (step_scale is None) == (calibrated is None):
        given = f"step_scale={step_scale}, calibrated={calibrated}"
        raise ValueError(f"{given}: give exactly one of them")
    if step_scale is not None and not math.isfinite(step_scale):
        raise ValueError(f"step_scale={step_scale} is not a finite number")
    if max_rounds < 0:
        raise ValueError(f"max_rounds={max_rounds}: 0 or more")
    if not layer_norm > 0:
        raise ValueError(f"layer_norm={layer_norm}: the norm of the layers, above 0")
    current, ranking = params, checked_ranking(rank(params), len(examples))
    masters = tree.master_weights(params)  # in which uncalibrated steps add up
    history = [point_of(measure(params), ranking, step=0)]
    rankings = [ranking]

    def path(reason: str, refused: bool = False) -> UnlearningPath:
        return UnlearningPath(
            current, reason, refused, tuple(history), np.stack(rankings)
        )

    while True:
        step, reason = len(history), stop(history)
        if reason is None and step > max_rounds:
            reason = Status.ROUNDS
        if reason is not None:
            return path(reason)
        example = examples[int(ranking.argmax())]
        way = direction(current, example, exposures(history).get(example, 0))
        if not math.isfinite(float(tree.norm(way))):
            raise ValueError(
                f"the direction of example {example!r} holds NaN or infinity in "
                f"step {step}"
            )
        if calibrated is not None:
            outcome = calibrated(current, way, example)
            if not outcome.reached:
                return path(CALIBRATION + outcome.status)
            moved, scale = outcome.params, outcome.scale or 0.0
        else:
            scale = float(step_scale or 0.0)
            masters = tree.add_scaled(masters, scale, way) if scale else masters
            moved = tree.rounded(masters, params)
        ranking = checked_ranking(rank(moved), len(examples))
        point = point_of(
            measure(moved),
            ranking,
            step=step,
            example=example,
            scale=scale,
            relative_step=float(tree.norm(tree.subtract(moved, params))) / layer_norm,
        )
        history.append(point)
        rankings.append(ranking)
        reason = None if refuse is None else refuse(history)
        if reason is not None:
            return path(reason, refused=True)
        current = moved


def recorded_then_fresh(
    recorded: Callable[[Any], Params],
    fresh: Callable[[Params, Any], Params],
    *,
    max_exposures: int = 1,
) -> Direction:
    """Return the recorded direction of an example at first, then that of here and now.

    Args:
      recorded: Example -> the gradient that training recorded of it.
      fresh: (parameters, example) -> its gradient there.
      max_exposures: How often the recorded one is used; over-exposure to one stale
        gradient ruins more than it removes.

    Raises:
      ValueError: ``max_exposures`` is negative.
    """
    if max_exposures < 0:
        raise ValueError(f"max_exposures={max_exposures}: 0 or more")

    def direction(params: Params, example: Any, used: int) -> Params:
        return recorded(example) if used < max_exposures else fresh(params, example)

    return direction


def checked_ranking(ranking: Any, count: int) -> np.ndarray:
    """Return a ranking as float64[n]."""
    found = np.asarray(ranking, np.float64)
    if found.shape != (count,) or np.isnan(found).any():
        raise ValueError(
            f"rank returned {found}: it must be a number for each of {count} examples"
        )
    return found


def point_of(
    measured: Mapping[str, float], ranking: np.ndarray, **given: Any
) -> PathPoint:
    """Return what was measured as a point of the path."""
    others = dict(measured)
    missing = {"forget", "retain"} - others.keys()
    if missing:
        raise ValueError(
            f"measure returned no {' and no '.join(sorted(missing))}: give both losses"
        )
    return PathPoint(
        forget=others.pop("forget"),
        retain=others.pop("retain"),
        membership=others.pop("membership", None),
        scores={**others, "rank": float(ranking.max())},
        **given,
    )
