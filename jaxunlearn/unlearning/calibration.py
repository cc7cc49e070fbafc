"""How far to go along a direction: far enough to forget, not so far as to harm."""

import math
from collections.abc import Callable

from jaxunlearn import tree
from jaxunlearn.types import Params
from jaxunlearn.unlearning.limits import Limits, check_limits, highest_retain_loss
from jaxunlearn.unlearning.outcome import Outcome, Status, Trial

FIRST_RELATIVE_STEP = 1e-3

Measure = Callable[[Params], float]


def check_target(target: float) -> None:
    """Refuse a target that is not a finite number."""
    if isinstance(target, str) or not math.isfinite(target):
        raise ValueError(
            f"target={target!r} is not a number: give a finite forget loss, such as "
            f"unlearning.targets.forget_target finds for 'unseen' or 'before'"
        )


def check_scale(scale: float) -> None:
    """Refuse a scale that is not above 0."""
    if not 0 < scale < math.inf:
        raise ValueError(
            f"scale={scale}: must be a finite number above 0 (a negative one would "
            f"train further); None calibrates it"
        )


def passed_limit(trial: Trial, retain_before: float, limits: Limits) -> Status | None:
    """Return the status of the limit that a trial passes, or None.

    A loss that is not a finite number passes no limit, whatever is allowed.
    """
    if not math.isfinite(trial.forget) or not math.isfinite(trial.retain):
        return Status.RETAIN_LIMIT
    if not trial.retain <= highest_retain_loss(retain_before, limits):
        return Status.RETAIN_LIMIT
    step = limits.max_relative_step
    if step is not None and not abs(trial.relative_step) <= step:
        return Status.STEP_LIMIT
    return None


def calibrate(
    params: Params,
    direction: Params,
    *,
    forget_loss: Measure,
    retain_loss: Measure,
    target: float,
    layer_norm: float,
    limits: Limits = Limits(),
    scale: float | None = None,
) -> Outcome:
    """Take the smallest step along ``direction`` that lifts the forget loss to target.

    Finds the least s with ``forget_loss(theta + s d) >= target`` by doubling s from a
    relative step of 0.001 until the target is bracketed, then by bisection. Every
    trial is of the parameters as they are stored: ``theta + s d`` is summed in float32
    and :func:`~jaxunlearn.tree.rounded` to theta's dtypes.

    Args:
      params: theta; not changed.
      direction: d, zero outside the chosen layers.
      forget_loss: Loss of what is to be forgotten, of parameters.
      retain_loss: Loss of what is to be kept.
      target: The forget loss to reach.
      layer_norm: Norm of the parameters in the chosen layers, for ``relative_step``.
      limits: What a step must not pass.
      scale: A given s above 0: no search, but the limits hold.

    Returns:
      The outcome. If the target lies beyond a limit, the parameters are returned as
      they came, bit for bit, and the trials show how far one could have gone.

    Raises:
      ValueError: The direction is zero or not finite, the target not a number, the
        scale not above 0 (a negative one would train further), or a limit senseless.

    Cost: one evaluation of both losses a trial, usually 10 to 20.
    """
    check_limits(limits)
    length = float(tree.norm(direction))
    if not (math.isfinite(length) and length > 0):
        raise ValueError(
            f"the direction has norm {length}: the chosen layers and part have no "
            f"gradient for these examples; choose other layers="
        )
    check_target(target)
    if scale is not None:
        check_scale(scale)
    retain_before = retain_loss(params)
    masters = tree.master_weights(params)
    trials: list[Trial] = []

    def at(s: float) -> Params:
        return tree.rounded(tree.add_scaled(masters, s, direction), params)

    def attempt(s: float) -> Trial:
        moved = at(s)
        step = float(tree.norm(tree.subtract(moved, params))) / layer_norm
        trial = Trial(s, forget_loss(moved), retain_loss(moved), step)
        trials.append(trial)
        return trial

    def broken(trial: Trial) -> Status | None:
        return passed_limit(trial, retain_before, limits)

    def outcome(status: Status, trial: Trial | None) -> Outcome:
        if trial is None:
            point, steps, length = params, 0, 0.0
        else:
            point, steps, length = at(trial.scale), 1, trial.scale
        return Outcome(point, status, steps, tuple(trials), scale=length, limits=limits)

    if scale is not None:
        trial = attempt(scale)
        status = Status.NO_CHANGE if trial.relative_step == 0 else broken(trial)
        if status is not None:
            return outcome(status, None)
        near = trial.forget >= target
        return outcome(Status.REACHED if near else Status.GIVEN_SCALE, trial)
    start = forget_loss(params)
    if start >= target:
        return outcome(Status.ALREADY, None)
    low, high = 0.0, FIRST_RELATIVE_STEP * layer_norm / length
    while True:
        trial = attempt(high)
        if trial.forget >= target:
            break
        status = broken(trial)
        if status is not None:
            ascended = any(t.forget > start for t in trials)
            return outcome(status if ascended else Status.NO_ASCENT, None)
        if len(trials) >= limits.max_trials:
            return outcome(Status.TRIALS, None)
        low, high = high, 2 * high
    best = trial
    while (
        best.forget > target * (1 + limits.tolerance)
        and len(trials) < limits.max_trials
        and high - low > 1e-7 * high
    ):
        middle = attempt((low + high) / 2)
        if middle.forget >= target:
            best, high = middle, middle.scale
        else:
            low = middle.scale
    status = broken(best)
    return outcome(status or Status.REACHED, None if status else best)
