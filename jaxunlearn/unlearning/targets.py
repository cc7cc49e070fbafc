"""How far to forget: the forget loss that a removal goes to, and what it means."""

from collections.abc import Callable
from typing import NamedTuple

from jaxunlearn.types import Params
from jaxunlearn.unlearning.forms import Losses

NO_REFERENCE_RISE = 1.0
"""Nats by which the forget loss is to rise where no reference says how far."""


class Target(NamedTuple):
    """The forget loss to reach."""

    loss: float
    meaning: str
    is_guess: bool = False  # no reference says how far


def forget_target(
    losses: Losses,
    params: Params,
    *,
    target: float | str | None,
    start: Callable[[], Params] | None = None,
) -> Target:
    """Return the forget loss to reach.

    Args:
      losses: Mean losses of the sets.
      params: The trained parameters.
      target: A number; ``"unseen"``, the loss of look-alikes that were never seen;
        ``"before"``, the loss of the same examples before training. None: unseen where
        there are look-alikes, else before where there is a start, else the loss now
        plus 1 nat.
      start: Gives the parameters before training; called where they are needed.

    Raises:
      ValueError: The target asks for what is not there.
    """
    if isinstance(target, int | float):
        return Target(float(target), "given")
    if target is None:
        target = "before" if losses.unseen is None else "unseen"
        if start is None and losses.unseen is None:
            now = losses.forget(params)
            return Target(now + NO_REFERENCE_RISE, "loss now plus 1 nat", True)
    if target == "unseen" and losses.unseen is not None:
        loss = losses.unseen(params)
        return Target(loss, "loss of look-alikes that were never seen")
    if target == "before" and start is not None:
        loss = losses.forget(start())
        return Target(loss, "loss of the same examples before training")
    raise ValueError(
        f"target={target!r}: a number, unseen (with sets.unseen) or before (with start)"
    )


def check_rise(target: Target, now: float) -> None:
    """Refuse a target that is not above the forget loss now.

    Raises:
      ValueError: There is nothing to forget.
    """
    if not target.loss > now:
        raise ValueError(
            f"the forget loss is {now:.4f} already, and its target {target.loss:.4f} "
            f"({target.meaning}) is not above it: there is nothing to forget; if there "
            f"is, give a higher target, or other unseen records"
        )
