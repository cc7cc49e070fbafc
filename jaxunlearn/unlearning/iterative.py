"""Iterative unlearning: one example a round, and all looked at again after it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import tree
from jaxunlearn.types import Params
from jaxunlearn.unlearning.calibration import (
    Limits,
    Measure,
    Outcome,
    Trial,
    calibrate,
    check_limits,
    highest_retain_loss,
    passed_limit,
)
from jaxunlearn.unlearning.path import PathPoint, Rule, exposures

HELD_CHECKS = 2
Direction = Callable[[Params, Any, int], Params]
"""(parameters, example, how often it was used before) -> a direction like them."""


class Path(NamedTuple):
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
) -> Path:
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

    def path(reason: str, refused: bool = False) -> Path:
        return Path(current, reason, refused, tuple(history), np.stack(rankings))

    while True:
        step, reason = len(history), stop(history)
        if reason is None and step > max_rounds:
            reason = "rounds"
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
                return path(f"calibration: {outcome.status}")
            moved, scale = outcome.params, outcome.scale
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


def iterative_first_epoch(
    params: Params,
    *,
    recorded_direction: Callable[[int], Params],
    fresh_direction: Callable[[Params, int], Params],
    examples: Sequence[int],
    example_losses: Callable[[Params], np.ndarray],
    retain_loss: Measure,
    target: float,
    layer_norm: float,
    limits: Limits = Limits(),
    max_exposures: int = 1,
    max_rounds: int | None = None,
) -> Outcome:
    """Unlearn example by example, looking again after each.

    A round takes the example that is remembered best (lowest loss), steps along its own
    gradient until its loss is at the target, and measures all again. It stops when the
    mean loss has been at the target on two checks in a row (a single one may be a lucky
    point on the way), or when every example is at the target.

    Args:
      params: Trained parameters.
      recorded_direction: Example -> its recorded gradient on the chosen layers.
      fresh_direction: (parameters, example) -> its gradient there, for an example
        whose recorded gradient was used ``max_exposures`` times.
      examples: What to forget, as the two functions know it.
      example_losses: Parameters -> losses in the order of ``examples``.
      retain_loss: Loss of examples to keep.
      target: The loss to reach.
      layer_norm: Norm of the parameters in the chosen layers.
      limits: Retain loss and relative step are limited in total, from ``params`` on.
      max_exposures: How often a recorded gradient may be used; over-exposure to one
        stale gradient ruins more than it removes.
      max_rounds: Default 4 rounds an example.

    Returns:
      The outcome; a round that would pass a limit ends it with that status and the
      parameters before that round.
    """
    if max_exposures < 0:
        raise ValueError(f"max_exposures={max_exposures}: 0 or more")
    if max_rounds is not None and max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds}: must be at least 1")
    if not math.isfinite(target):
        raise ValueError(f"target={target} is not a number")
    check_limits(limits)
    used = dict.fromkeys(examples, 0)
    retain_before = retain_loss(params)
    current, held, trials = params, 0, []
    losses = example_losses(current)
    if losses.mean() >= target:
        return Outcome(params, "already", 0.0, ())
    rounds = 4 * len(examples) if max_rounds is None else max_rounds
    for _ in range(rounds):
        if losses.min() >= target:
            return Outcome(current, "reached", float("nan"), tuple(trials))
        position = int(losses.argmin())
        example = examples[position]
        recorded = used[example] < max_exposures
        if recorded:
            direction = recorded_direction(example)
            used[example] += 1
        else:
            direction = fresh_direction(current, example)
        step = calibrate(
            current,
            direction,
            forget_loss=lambda p, i=position: float(example_losses(p)[i]),
            retain_loss=retain_loss,
            target=target,
            layer_norm=layer_norm,
            limits=rest_of(limits, retain_before, retain_loss(current)),
        )
        if step.status == "no_ascent" and recorded:
            used[example] = max_exposures  # the recorded one is stale: go on fresh
            continue
        moved = float(tree.norm(tree.subtract(step.params, params))) / layer_norm
        losses = example_losses(step.params)
        trial = Trial(step.scale, float(losses.mean()), retain_loss(step.params), moved)
        trials.append(trial)
        status = step.status
        if step.reached:  # this round kept the limits: have all of them together?
            status = passed_limit(trial, retain_before, limits)
        if status is not None:
            return Outcome(current, status, float("nan"), tuple(trials))
        current = step.params
        held = held + 1 if losses.mean() >= target else 0
        if held >= HELD_CHECKS:
            return Outcome(current, "reached", float("nan"), tuple(trials))
    status = "reached" if losses.min() >= target else "rounds"
    return Outcome(current, status, float("nan"), tuple(trials))


def rest_of(limits: Limits, before: float, now: float) -> Limits:
    """Return the limits with what has been spent of the retain loss taken off."""
    left = highest_retain_loss(before, limits) - now
    left = left if left > 0 else 0.0  # also where a loss is no number
    return limits._replace(max_retain_increase=None, max_retain_nats=left)
