"""When to stop unlearning: rules on the path so far.

A rule takes the points of a path, the first of them before any step, and returns None
or the reason to stop. It sees what was measured and nothing else, so that any rule can
be asked afterwards where it would have stopped on a path that went on.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from jaxunlearn.unlearning.outcome import PathPoint, Trial

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


def target_reached(target: float) -> Rule:
    """Stop where the forget loss is at its target, nats a token, or above.

    Raises:
      ValueError: The target is not a finite number.
    """
    finite("target", target)

    def rule(history: History) -> str | None:
        if not history or not history[-1].forget >= target:
            return None
        return f"target: the forget loss is {history[-1].forget:.4g} of {target:.4g}"

    return rule


def held(rule: Rule, checks: int) -> Rule:
    """Stop where another rule held at ``checks`` points in a row.

    A single check may be a lucky point on the way: the early stop while the model is in
    an optimum that still knows the data.

    Raises:
      ValueError: ``checks`` is below 1.
    """
    at_least_one("checks", checks)

    def holds(history: History) -> str | None:
        if len(history) < checks:
            return None
        reasons = [rule(history[: len(history) - i]) for i in range(checks)]
        if any(reason is None for reason in reasons):
            return None
        return f"{reasons[0]}, {checks} checks in a row"

    return holds


def score_below(share: float, score: str) -> Rule:
    """Stop where a score has fallen to ``share`` of what it was at the start, or below.

    Args:
      share: Between 0 and 1.
      score: Its name in ``PathPoint.scores``; positive at the start.

    Raises:
      ValueError: The share is outside 0 to 1; on a history, the score is missing or
        was not positive at the start.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: must be between 0 and 1")

    def rule(history: History) -> str | None:
        if not history:
            return None
        start, now = (score_of(point, score) for point in (history[0], history[-1]))
        if not start > 0:
            raise ValueError(
                f"score={score!r} is {start} at the start: of what is not positive "
                f"there is no share to fall to"
            )
        if not now <= share * start:
            return None
        return f"score: {score} is {now:.4g}, {now / start:.1%} of what it was"

    return rule


def score_of(point: PathPoint, score: str) -> float:
    """Return a score of a point."""
    if score not in point.scores:
        raise ValueError(
            f"score={score!r} was not measured at step {point.step}; there are "
            f"{', '.join(point.scores) or 'none'}"
        )
    return point.scores[score]


def membership_at_chance(tolerance: float = 0.02) -> Rule:
    """Stop where a membership attack does no better than chance.

    That is an AUC of ``0.5 + tolerance`` or below. Of one below ``0.5 - tolerance`` the
    reason says that it is past chance: there, examples are known by looking less like
    members than unseen ones do.

    Raises:
      ValueError: The tolerance is outside 0 to 0.5; on a history, membership was not
        measured.
    """
    if not 0 <= tolerance < 0.5:
        raise ValueError(f"tolerance={tolerance}: must be at least 0 and below 0.5")

    def rule(history: History) -> str | None:
        if not history:
            return None
        area = history[-1].membership
        if area is None:
            step = history[-1].step
            raise ValueError(f"membership was not measured at step {step}: measure it")
        if not area <= 0.5 + tolerance:
            return None
        past = " (past chance)" if area < 0.5 - tolerance else ""
        return f"membership: the attack's AUC is {area:.3f}{past}"

    return rule


def retain_limit(max_increase: float) -> Rule:
    """Stop where the retain loss has risen by more than a share of its start.

    A forget or retain loss that is no finite number stops too.

    Raises:
      ValueError: ``max_increase`` is negative or no number.
    """
    finite("max_increase", max_increase)
    if max_increase < 0:
        raise ValueError(f"max_increase={max_increase}: must be at least 0")

    def rule(history: History) -> str | None:
        if not history:
            return None
        start, now = history[0].retain, history[-1].retain
        if not (math.isfinite(now) and math.isfinite(history[-1].forget)):
            return "retain: a loss is no finite number"
        if now <= start * (1 + max_increase):
            return None
        return f"retain: its loss is {now / start - 1:+.2%} from where it was"

    return rule


def exposure_limit(most: int) -> Rule:
    """Stop where an example's direction was used more than ``most`` times.

    Raises:
      ValueError: ``most`` is below 1.
    """
    at_least_one("most", most)

    def rule(history: History) -> str | None:
        over = [f"{k} ({n} times)" for k, n in exposures(history).items() if n > most]
        return f"exposures: example {', '.join(over)}" if over else None

    return rule


def no_progress(checks: int, *, least: float = 0.0) -> Rule:
    """Stop where the last ``checks`` steps did not raise the highest forget loss.

    Args:
      checks: Steps that may pass without progress.
      least: By how much, nats a token, it has to rise to count.

    Raises:
      ValueError: ``checks`` is below 1, or ``least`` negative.
    """
    at_least_one("checks", checks)
    if not least >= 0:
        raise ValueError(f"least={least}: must be at least 0")

    def rule(history: History) -> str | None:
        if len(history) <= checks:
            return None
        before = max(point.forget for point in history[:-checks])
        if max(point.forget for point in history[-checks:]) > before + least:
            return None
        return f"no progress: the forget loss has stood at {before:.4g} for {checks}"

    return rule


def any_of(*rules: Rule) -> Rule:
    """Stop where one of the rules says so; the first one's reason.

    Raises:
      ValueError: No rule is given.
    """
    some(rules)

    def rule(history: History) -> str | None:
        return next((r for r in (one(history) for one in rules) if r is not None), None)

    return rule


def all_of(*rules: Rule) -> Rule:
    """Stop where all the rules say so; all their reasons.

    Raises:
      ValueError: No rule is given.
    """
    some(rules)

    def rule(history: History) -> str | None:
        reasons = [one(history) for one in rules]
        told = [reason for reason in reasons if reason is not None]
        return "; ".join(told) if len(told) == len(rules) else None

    return rule


def finite(name: str, value: float) -> None:
    """Refuse what is no finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name}={value}: must be a finite number")


def at_least_one(name: str, value: int) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


def some(rules: Sequence[Rule]) -> None:
    """Refuse a combination of nothing."""
    at_least_one("number of rules", len(rules))
