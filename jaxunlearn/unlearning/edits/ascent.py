"""Whole-model gradient ascent, the baseline that first-epoch unlearning is held to."""

import math
from collections.abc import Callable

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import stacked_folders
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.calibration import (
    Measure,
    calibrate,
    check_target,
    passed_limit,
)
from jaxunlearn.unlearning.forms import Losses, Progress, Sets, telling_steps
from jaxunlearn.unlearning.limits import Limits, check_limits, unbounded
from jaxunlearn.unlearning.outcome import Outcome, Status, Trial

RELATIVE_STEP = 1e-3
"""Length of a step of gradient ascent, relative to the parameters of its layers."""


def gradient_ascent(
    params: Params,
    *,
    gradient: Callable[[Params], Params],
    layers: str = ".",
    stacked: tuple[str, ...] | None = None,
    forget_loss: Measure,
    retain_loss: Measure,
    target: float,
    limits: Limits = Limits(),
    learning_rate: float | None = None,
    relative_step: float | None = None,
    max_steps: int = 500,
    on_step: Callable[[Trial], None] | None = None,
) -> Outcome:
    """Climb the forget loss, ``theta <- theta + eta grad L_F(theta)``, to the target.

    Args:
      params: Trained parameters.
      gradient: Parameters -> gradient of the mean forget loss there.
      layers: What to change, as for :func:`jaxunlearn.tree.select`; all of it for the
        usual baseline.
      stacked: Folders of stacked layers, as for the same function.
      forget_loss: Loss of the examples to forget, of parameters.
      retain_loss: Loss of examples to keep.
      target: The forget loss to reach; the last step is shortened to meet it, so that
        methods are compared at the same forget loss.
      limits: What the way must not pass, in total.
      learning_rate: eta. None takes steps of constant length instead,
        ``eta = relative_step |theta| / |grad|``: the gradient of a memorised example is
        next to nothing and grows as it is forgotten, so a constant rate first stalls
        and then leaps.
      relative_step: Length of a step, relative to the parameters; default 0.001.
      max_steps: Most steps.
      on_step: Called after each step.

    Returns:
      The outcome, with a trial a step; parameters as they came if a limit was passed.

    Raises:
      ValueError: A number is out of range, both ``learning_rate`` and
        ``relative_step`` are given, or the gradient is zero or not finite.
    """
    check_limits(limits)
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate={learning_rate}: a finite number above 0")
    if learning_rate is not None and relative_step is not None:
        raise ValueError(
            f"relative_step={relative_step} does not go with learning_rate="
            f"{learning_rate}, which sets the length of a step: give one of them"
        )
    if relative_step is None:
        relative_step = RELATIVE_STEP
    if not 0 < relative_step < math.inf:
        raise ValueError(f"relative_step={relative_step}: a finite number above 0")
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: must be at least 1")
    check_target(target)
    mask = tree.select(params, layers, stacked=stacked)
    layer_norm = float(tree.norm(params, mask))
    before = retain_loss(params)
    # Steps add up in float32; what is measured and returned is rounded from there.
    current, trials = tree.master_weights(params), []
    if forget_loss(params) >= target:
        return Outcome(params, Status.ALREADY, 0)

    def stored(point: Params) -> Params:
        return tree.rounded(point, params)

    def trial_at(point: Params) -> Trial:
        point = stored(point)
        moved = float(tree.norm(tree.subtract(point, params))) / layer_norm
        return Trial(moved, forget_loss(point), retain_loss(point), moved)

    for _ in range(max_steps):
        direction = tree.masked(gradient(current), mask)
        length = float(tree.norm(direction))
        if not (math.isfinite(length) and length > 0):
            raise ValueError(
                f"the gradient of the forget loss has norm {length} after "
                f"{len(trials)} steps: choose other layers="
            )
        if learning_rate is None:
            eta = relative_step * layer_norm / length
        else:
            eta = learning_rate
        moved = tree.add_scaled(current, eta, direction)
        trial = trial_at(moved)
        if trial.forget >= target:
            last = calibrate(
                current,
                direction,
                forget_loss=lambda point: forget_loss(stored(point)),
                retain_loss=lambda point: retain_loss(stored(point)),
                target=target,
                layer_norm=layer_norm,
                limits=unbounded(limits),
            )
            moved = last.params
            trial = trial_at(moved)
        trials.append(trial)
        if on_step is not None:
            on_step(trial)
        status = passed_limit(trial, before, limits)
        if status is not None:
            return Outcome(params, status, 0, tuple(trials), limits=limits)
        if trial.forget >= target:
            return Outcome(stored(moved), Status.REACHED, len(trials), tuple(trials))
        current = moved
    return Outcome(params, Status.TRIALS, 0, tuple(trials))


def climb(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    layers: str,
    losses: Losses,
    target: float,
    limits: Limits,
    on_step: Callable[[Progress], None],
    learning_rate: float | None = None,
    relative_step: float | None = None,
    max_steps: int = 500,
) -> Outcome:
    """Climb the loss of the examples to forget, from step to step, to the target.

    Args:
      task: The per-example loss.
      params: Trained parameters.
      sets: Examples; only ``forget`` is climbed.
      layers: What to change.
      losses: Mean losses of the sets.
      target: The forget loss to reach.
      limits: What the way must not pass, in total.
      on_step: Called after each step.
      learning_rate: Of plain ascent; without it, steps of constant relative length.
      relative_step: Length of a step as a share of the layers; without it, 0.001.
      max_steps: Most steps.
    """
    return gradient_ascent(
        params,
        gradient=losses.gradient,
        layers=layers,
        stacked=stacked_folders(task, params),
        forget_loss=losses.forget,
        retain_loss=losses.retain,
        target=target,
        limits=limits,
        learning_rate=learning_rate,
        relative_step=relative_step,
        max_steps=max_steps,
        on_step=telling_steps("Gradient ascent", on_step),
    )
