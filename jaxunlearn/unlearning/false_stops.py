"""Stops that come while the model still knows what it was to forget."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxunlearn.unlearning.stopping import History, Rule, finite, first_stop


class FalseStop(NamedTuple):
    """A stop while the model still knew.

    Attributes:
      position: Of the history, where the rule stopped.
      reason: What the rule said.
      truth: What the truth measure was there.
      forgotten_from: The first later position at which it says forgotten, and after
        which it never again says known; None if there is none.
    """

    position: int
    reason: str
    truth: float
    forgotten_from: int | None


def false_stop(
    history: History,
    rule: Rule,
    truth: Sequence[float],
    *,
    threshold: float,
    higher_is_known: bool = True,
) -> FalseStop | None:
    """Return where the rule would have stopped although the data were still known.

    Args:
      history: The points of a path.
      rule: The rule in question, which does not see the truth.
      truth: At each point, a measure that the rule does not use: extraction strength
        (higher is known), steps to relearn (lower is known).
      threshold: What the measure is of a model retrained without the data, with what
        noise allows: beyond it the data are known.
      higher_is_known: Which side of the threshold is beyond.

    Returns:
      The false stop; None if the rule never stops, or stops where the data are
      forgotten.

    Raises:
      ValueError: ``truth`` is not of every point, or holds what is no number.

    >>> from jaxunlearn.unlearning.outcome import PathPoint
    >>> from jaxunlearn.unlearning.stopping import held, target_reached
    >>> points = [PathPoint(i, forget, 1.0) for i, forget in enumerate([0, 2, 1, 3])]
    >>> false_stop(points, target_reached(1.5), [1, 0.8, 0.9, 0.1], threshold=0.2)[0]
    1
    >>> false_stop(points, held(target_reached(0.9), 3), [1, 0.8, 0.9, 0.1],
    ...            threshold=0.2)
    """
    finite("threshold", threshold)
    if len(truth) != len(history):
        raise ValueError(
            f"truth has {len(truth)} values for {len(history)} points of the history"
        )
    if any(math.isnan(value) for value in truth):
        raise ValueError("truth holds NaN: measure it at every point")
    known = [
        value > threshold if higher_is_known else value < threshold for value in truth
    ]
    stop = first_stop(history, rule)
    if stop is None or not known[stop.position]:
        return None
    last = max(i for i, one in enumerate(known) if one)
    forgotten = last + 1 if last + 1 < len(known) else None
    return FalseStop(*stop, float(truth[stop.position]), forgotten)
