"""Rules that choose a damping, by name and never silently."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax


def damping_from_mean_eigenvalue(
    trace: jax.Array | float, size: int, *, share: float = 0.1
) -> float:
    """Return ``share * trace / size``: a share of A's mean eigenvalue.

    The rule of EK-FAC's influence functions (Grosse et al., 2023) with their share.

    Args:
      trace: trace(A): the sum of a known diagonal, or
        :func:`~jaxunlearn.gradients.hutchinson.hutchinson_trace`.
      size: The number of parameters that A acts on (selected ones only).
      share: Of the mean eigenvalue.

    Raises:
      ValueError: ``trace``, ``size`` or ``share`` is not positive and finite.

    >>> damping_from_mean_eigenvalue(50.0, 100)
    0.05
    """
    trace = float(trace)
    if not 0 < trace < math.inf:
        raise ValueError(
            f"trace={trace}: only a positive mean eigenvalue can be shared; take the "
            "trace of a positive semi-definite curvature, as of gauss_newton_vp"
        )
    if size < 1:
        raise ValueError(f"size={size}: must be at least one parameter")
    if not 0 < share < math.inf:
        raise ValueError(f"share={share}: must be positive")
    return share * trace / size


class DampingChoice(NamedTuple):
    """The damping that scored best, beside all that were tried.

    Attributes:
      damping: The best candidate.
      candidates: What was tried, from the smallest up.
      scores: The score of each.
      at_edge: The best is the smallest or the largest of several: try wider.
    """

    damping: float
    candidates: tuple[float, ...]
    scores: tuple[float, ...]
    at_edge: bool


def damping_by_validation(
    candidates: Sequence[float], score_fn: Callable[[float], float]
) -> DampingChoice:
    """Return the damping whose score is highest, of equals the largest.

    Args:
      candidates: Dampings, usually a geometric grid.
      score_fn: From a damping to how good it is, such as the correlation of its scores
        with leave-one-out retraining; a NaN never wins.

    Raises:
      ValueError: There is no candidate, one is negative, or every score is NaN.

    >>> damping_by_validation([1.0, 0.1, 0.01], lambda d: -abs(d - 0.1)).damping
    0.1
    """
    candidates = sorted(float(c) for c in candidates)
    if not candidates or not candidates[0] >= 0 or math.isnan(sum(candidates)):
        raise ValueError(f"candidates={candidates}: must be dampings of at least 0")
    scores = [float(score_fn(c)) for c in candidates]
    finite = [i for i, score in enumerate(scores) if not math.isnan(score)]
    if not finite:
        raise ValueError(f"score_fn gave NaN for every damping of {candidates}")
    best = max(finite, key=lambda i: (scores[i], candidates[i]))
    at_edge = len(candidates) > 1 and best in (0, len(candidates) - 1)
    return DampingChoice(candidates[best], tuple(candidates), tuple(scores), at_edge)
