"""First-epoch unlearning in rounds: the example that is remembered best goes first."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import collate
from jaxunlearn.gradients.arguments import selection
from jaxunlearn.training.replay import compiled_gradient, replayed_gradients
from jaxunlearn.training.runs import Run
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.calibration import (
    Measure,
    calibrate,
    check_target,
    passed_limit,
)
from jaxunlearn.unlearning.edits.recorded import (
    DEFAULT_PART,
    ascent_direction,
    check_part,
    replaying,
)
from jaxunlearn.unlearning.edits.rounds import CALIBRATION, iterative_unlearning
from jaxunlearn.unlearning.forms import Losses, Progress, Sets, telling_steps
from jaxunlearn.unlearning.limits import Limits, check_limits, highest_retain_loss
from jaxunlearn.unlearning.outcome import Outcome, PathPoint, Status, Trial
from jaxunlearn.unlearning.stopping import History

HELD_CHECKS = 2


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
    on_step: Callable[[Trial], None] | None = None,
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
      on_step: Called after each round.

    Returns:
      The outcome; a round that would pass a limit ends it with that status and the
      parameters before that round.
    """
    check_exposures(max_exposures)
    if max_rounds is not None and max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds}: must be at least 1")
    check_target(target)
    check_limits(limits)
    losses = example_losses(params)
    if losses.mean() >= target:
        return Outcome(params, Status.ALREADY, 0)
    rounds = 4 * len(examples) if max_rounds is None else max_rounds
    retain_before = retain_loss(params)
    seen: list[np.ndarray] = []  # the losses at each point
    stale: set[int] = set()  # whose recorded gradient does not raise the loss
    fresh = False  # whether the direction of this round is
    failed: list[Trial] = []

    def rank(point: Params) -> np.ndarray:
        seen.append(example_losses(point))
        return np.where(np.isnan(seen[-1]), -np.inf, -seen[-1])

    def measure(point: Params) -> dict[str, float]:
        return {"forget": float(seen[-1].mean()), "retain": retain_loss(point)}

    def direction(point: Params, example: int, used: int) -> Params:
        nonlocal fresh
        fresh = used >= max_exposures or example in stale
        return fresh_direction(point, example) if fresh else recorded_direction(example)

    def rounds_left() -> bool:
        return len(seen) - 1 + len(stale) < rounds

    def calibrated(point: Params, way: Params, example: int) -> Outcome:
        position = examples.index(example)
        step = calibrate(
            point,
            way,
            forget_loss=lambda p: float(example_losses(p)[position]),
            retain_loss=retain_loss,
            target=target,
            layer_norm=layer_norm,
            limits=rest_of(limits, retain_before, retain_loss(point)),
        )
        if step.status == Status.NO_ASCENT and not fresh:
            stale.add(example)  # which took a round
            if not rounds_left():
                return Outcome(point, Status.ROUNDS, 0)
            return calibrated(point, direction(point, example, 0), example)
        if not step.reached:
            moved = float(tree.norm(tree.subtract(point, params))) / layer_norm
            failed.append(Trial(0.0, float(seen[-1].mean()), retain_loss(point), moved))
        return step

    def stop(history: History) -> Status | None:
        held = [one.mean() >= target for one in seen[-HELD_CHECKS:]]
        if seen[-1].min() >= target or len(held) == HELD_CHECKS and all(held):
            return Status.REACHED
        return None if rounds_left() else Status.ROUNDS

    def refuse(history: History) -> Status | None:
        trial = trial_of(history[-1])
        if on_step is not None:
            on_step(trial)
        return passed_limit(trial, retain_before, limits)

    path = iterative_unlearning(
        params,
        examples=examples,
        rank=rank,
        direction=direction,
        measure=measure,
        stop=stop,
        refuse=refuse,
        calibrated=calibrated,
        layer_norm=layer_norm,
        max_rounds=rounds,
    )
    trials = (*map(trial_of, path.history[1:]), *failed)
    return Outcome(
        path.params,
        Status(path.reason.removeprefix(CALIBRATION)),
        len(path.history) - 1 - path.refused,
        trials,
        history=path.history,
        limits=limits,
    )


def trial_of(point: PathPoint) -> Trial:
    """Return a point of a path as a trial."""
    return Trial(point.scale, point.forget, point.retain, point.relative_step)


def check_exposures(max_exposures: int) -> None:
    """Refuse a negative number of uses."""
    if max_exposures < 0:
        raise ValueError(f"max_exposures={max_exposures}: 0 or more")


def rest_of(limits: Limits, before: float, now: float) -> Limits:
    """Return the limits with what has been spent of the retain loss taken off."""
    left = highest_retain_loss(before, limits) - now
    left = left if left > 0 else 0.0  # also where a loss is no number
    return limits._replace(max_retain_increase=None, max_retain_nats=left)


def unlearn_one_by_one(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    run: Run,
    indices: Sequence[int],
    layers: str,
    losses: Losses,
    target: float,
    limits: Limits,
    on_step: Callable[[Progress], None],
    part: Literal["tied", "input", "output"] = DEFAULT_PART,
    epochs: tuple[int, ...] = (1,),
    weight: Literal["unit", "sgd"] = "unit",
    max_exposures: int = 1,
) -> Outcome:
    """Add back recorded gradients example by example, looking again after each.

    Args:
      task: The per-example loss.
      params: Trained parameters.
      sets: Examples; those of ``forget`` in the order of ``indices``.
      run: The training run.
      indices: Positions in its data of the examples to forget.
      layers: What to change.
      losses: Losses of the sets.
      target: The forget loss to reach.
      limits: What the way must not pass, in total.
      on_step: Called after each replayed step, and after each round.
      part: Which use of the tied embedding to change.
      epochs: Whose gradients to add back; 1 is the first.
      weight: unit: each gradient counts the same; sgd: as SGD applied it.
      max_exposures: How often one recorded gradient may be used.
    """
    check_exposures(max_exposures)
    mask = selection(task, params, layers)
    check_part(part, mask, layers)
    recorded = replayed_gradients(
        run.model,
        run.recipe,
        run.data,
        run.start,
        indices,
        epochs=epochs,
        weight=weight,
        on_step=replaying(run, indices, epochs, on_step),
    )

    def fresh(point: Params, index: int) -> Params:
        one = collate(
            run.data,
            [index],
            batch_size=1,
            length=run.data.length,
        )
        gradient = compiled_gradient(run.model, point, one, np.ones(1, np.float32))
        return ascent_direction(gradient, mask, part)

    return iterative_first_epoch(
        params,
        recorded_direction=lambda i: ascent_direction(recorded[i], mask, part),
        fresh_direction=fresh,
        examples=indices,
        example_losses=losses.examples,
        retain_loss=losses.retain,
        target=target,
        layer_norm=float(tree.norm(params, mask)),
        limits=limits,
        max_exposures=max_exposures,
        on_step=telling_steps("Unlearning one by one", on_step),
    )
