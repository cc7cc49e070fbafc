"""What unlearning comes to: where it ended, why, by which steps, at what cost."""

import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxunlearn.types import Params


class Status(enum.StrEnum):
    """How unlearning ended; :func:`explain` says cause and remedy.

    A string, so that it stands in a file, and compares, as it is spelled.
    """

    REACHED = "reached"  # the target is met
    ALREADY = "already"  # the loss is at the target without a step
    GIVEN_SCALE = "given_scale"  # applied as given, short of the target
    APPLIED = "applied"  # no target was set: all that was asked for was done
    NO_CHANGE = "no_change"  # a given step is lost in rounding
    RETAIN_LIMIT = "retain_limit"  # the target lies beyond what may be paid
    STEP_LIMIT = "step_limit"  # the target lies further than one may go
    NO_ASCENT = "no_ascent"  # the direction does not raise the forget loss
    TRIALS = "trials"  # too few trials allowed
    ROUNDS = "rounds"  # too few rounds allowed
    STEPS = "steps"  # a recipe's steps ran out
    STOPPED = "stopped"  # a rule ended it before the target


DONE = frozenset(
    {Status.REACHED, Status.ALREADY, Status.GIVEN_SCALE, Status.APPLIED, Status.STOPPED}
)
"""The statuses of outcomes whose parameters are those that were asked for."""


class Trial(NamedTuple):
    """One scale that was tried, or one point of a way of several steps."""

    scale: float  # the multiple of its direction; where there is none, relative_step
    forget: float  # forget loss there
    retain: float  # retain loss there
    relative_step: float  # |change of the parameters| / |parameters of the layers|


class PathPoint(NamedTuple):
    """What was measured at one point of an unlearning path.

    Attributes:
      step: How many steps were taken; 0 is before the first.
      forget: Loss of the examples to forget.
      retain: Loss of examples to keep.
      membership: AUC of a membership attack on the examples to forget, 0.5 is chance,
        above it they look like members; None if not measured.
      scores: Other numbers by name, such as influence scores.
      example: Along whose direction the step went; None if along no single one's.
      scale: The step's multiple of that direction.
      relative_step: Distance from the start, relative to the layers' norm.
    """

    step: int
    forget: float
    retain: float
    membership: float | None = None
    scores: Mapping[str, float] = {}
    example: Any = None
    scale: float = 0.0
    relative_step: float = 0.0


class Cost(NamedTuple):
    """What unlearning took, beside retraining where that is known.

    Attributes:
      seconds: Wall time, compilation and measuring included.
      peak_bytes: Most memory that one compiled program of it needs, arguments and
        temporaries, as XLA plans it; None where it was not planned.
      flops: Of the matrix products, counted in the traced programs; None where
        something was not counted.
      share_of_retraining: ``flops`` as a share of those of the training run; None
        without a run.
    """

    seconds: float
    peak_bytes: int | None = None
    flops: float | None = None
    share_of_retraining: float | None = None


class Outcome(NamedTuple):
    """What unlearning came to. ``params`` keep every limit, whatever the status.

    Attributes:
      params: The parameters; as they came, bit for bit, where a limit was passed.
      status: How it ended.
      steps: Steps taken from the parameters that came to these.
      trials: What was tried or passed on the way.
      scale: The multiple of the one direction that was gone; 0 where none was, None of
        a way of several steps.
      history: What was measured on a way of several steps, its rules' history.
      task: What is to be evaluated in place of the task; None for the task itself.
      cost: What it took.
      details: What the method tells of itself, as JSON values.
    """

    params: Params
    status: Status
    steps: int
    trials: tuple[Trial, ...] = ()
    scale: float | None = None
    history: tuple[PathPoint, ...] = ()
    task: Any = None
    cost: Cost | None = None
    details: Mapping[str, Any] = {}

    @property
    def reached(self) -> bool:
        """Whether what was asked for was done: the target met, or the step applied."""
        return self.status in DONE


def explain(outcome: Outcome, target: float | None, retain_before: float) -> str:
    """Return one sentence on an outcome, with the remedy where it failed."""
    if outcome.status in (Status.REACHED, Status.ALREADY):
        return "The forget loss is at its target."
    if not outcome.trials:
        return "No step was tried."
    # The point that was judged: the nearest at the target, else the furthest short.
    last = min(
        outcome.trials,
        key=lambda t: (
            not math.isfinite(t.forget),
            target is not None and t.forget < target,
            0.0 if target is None else abs(t.forget - target),
        ),
    )
    aim = "" if target is None else f" (target {target:.3f})"
    rise = 100 * (last.retain / retain_before - 1)
    seen = (
        f"at forget loss {last.forget:.3f}{aim} retain loss has "
        f"changed by {last.retain - retain_before:+.4f} nats ({rise:+.2f} %) and the "
        f"layers by {100 * last.relative_step:.1f} %"
    )
    return REMEDIES[outcome.status].format(seen)


REMEDIES = {
    Status.RETAIN_LIMIT: (
        "Refused, retain loss would rise too far: {}. Allow more with max_retain_nats "
        "or max_retain_increase, lower the target, or choose other layers."
    ),
    Status.STEP_LIMIT: (
        "Refused, the step would be too long: {}. Allow more with max_relative_step, "
        "lower the target, or choose other layers."
    ),
    Status.NO_ASCENT: (
        "Refused, this direction does not raise the forget loss: {}. Choose other "
        "layers or epochs."
    ),
    Status.NO_CHANGE: (
        "Refused, the step is lost in rounding and no weight changes: {}. Give a "
        "larger scale."
    ),
    Status.TRIALS: "Not finished within max_trials: {}.",
    Status.ROUNDS: "Not finished within max_rounds: {}.",
    Status.STEPS: (
        "Refused, the steps ran out before the target: {}. Raise the epochs or the "
        "learning rate, or lower the target."
    ),
    Status.GIVEN_SCALE: "The given scale was applied; {}.",
    Status.APPLIED: "No target was set; {}.",
    Status.STOPPED: "A rule ended it; {}.",
}
