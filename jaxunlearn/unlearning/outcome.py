"""What unlearning comes to: where it ended, why, by which steps, at what cost."""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxunlearn.types import Params
from jaxunlearn.unlearning.limits import Limits


class Status(enum.StrEnum):
    """How unlearning ended; ``explain`` says cause and remedy.

    A string, so that it stands in a file, and compares, as it is spelled.
    """

    REACHED = "reached"  # the target is met
    ALREADY = "already"  # the loss is at the target without a step
    GIVEN_SCALE = "given_scale"  # applied as given, short of the target
    APPLIED = "applied"  # no target was set: all that was asked for was done
    SHORT = "short"  # applied in full, which does not come to the target
    NO_CHANGE = "no_change"  # a given step is lost in rounding
    RETAIN_LIMIT = "retain_limit"  # the target lies beyond what may be paid
    STEP_LIMIT = "step_limit"  # the target lies further than one may go
    NO_ASCENT = "no_ascent"  # the direction does not raise the forget loss
    TRIALS = "trials"  # too few trials allowed
    ROUNDS = "rounds"  # too few rounds allowed
    STEPS = "steps"  # a recipe's steps ran out
    STOPPED = "stopped"  # a rule ended it before the target


DONE = frozenset(
    {
        *(Status.REACHED, Status.ALREADY, Status.GIVEN_SCALE, Status.APPLIED),
        *(Status.SHORT, Status.STOPPED),
    }
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
      limits: What the way was not to pass; None where nothing was limited.
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
    limits: Limits | None = None

    @property
    def reached(self) -> bool:
        """Whether what was asked for was done: the target met, or the step applied."""
        return self.status in DONE
