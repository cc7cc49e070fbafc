"""The path of an unlearning run: what was measured before it and after each step."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxunlearn.unlearning.calibration import Trial


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


History = Sequence[PathPoint]

Rule = Callable[[History], str | None]
"""From the points so far to the reason to stop, or None."""


class Stop(NamedTuple):
    """Where a rule stops: the position in the history, and why."""

    position: int
    reason: str


def first_stop(history: History, rule: Rule) -> Stop | None:
    """Return where a rule would have ended this path, or None."""
    for position in range(len(history)):
        reason = rule(history[: position + 1])
        if reason is not None:
            return Stop(position, reason)
    return None


def exposures(history: History) -> dict[Any, int]:
    """Return how often a step went along each example's direction.

    >>> exposures([PathPoint(0, 1, 1), PathPoint(1, 2, 1, example=7)])
    {7: 1}
    """
    return dict(Counter(p.example for p in history if p.example is not None))


def history_of(
    trials: Iterable[Trial], *, forget: float, retain: float
) -> list[PathPoint]:
    """Return the path of an outcome's trials, for rules to be asked.

    Of ``gradient_ascent`` and ``iterative_first_epoch`` the trials are the path; of
    ``calibrate`` they are in the order of the search, not of the scale.

    Args:
      trials: Of the outcome.
      forget: Forget loss before the first step.
      retain: Retain loss before it.
    """
    points = [PathPoint(0, forget, retain)]
    return points + [
        PathPoint(i, t.forget, t.retain, scale=t.scale, relative_step=t.relative_step)
        for i, t in enumerate(trials, start=1)
    ]
