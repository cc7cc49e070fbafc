"""What an unlearning step must not pass: how far it goes, and at what price."""

import math
import re
from typing import NamedTuple


class Limits(NamedTuple):
    """What an unlearning step must not pass; where several are given, all hold.

    The price is limited in nats a token: a rise of 0.02 multiplies the perplexity of
    what is kept by 1.02, whatever the loss was, where a share of a loss near zero says
    little and a share of a large one allows much.

    Attributes:
      max_retain_increase: Rise of the retain loss as a share of it; None: any.
      max_relative_step: ``|step| / |parameters of the layers|``; None: any.
      tolerance: How far above the target, relative, is near enough.
      max_trials: Most scales tried.
      max_retain_nats: Rise of the retain loss in nats a token; None: any.
    """

    max_retain_increase: float | None = None
    max_relative_step: float | None = 1.0
    tolerance: float = 1e-3
    max_trials: int = 40
    max_retain_nats: float | None = 0.02


def check_limits(limits: Limits) -> None:
    """Refuse limits that mean nothing.

    Raises:
      ValueError: One is negative or no number, or no trial is allowed.
    """
    for name in ("max_retain_increase", "max_retain_nats", "max_relative_step"):
        value = getattr(limits, name)
        if value is not None and not value >= 0:
            raise ValueError(f"{name}={value}: must be at least 0, or None for any")
    if not 0 <= limits.tolerance < math.inf:
        raise ValueError(f"tolerance={limits.tolerance}: must be at least 0")
    if limits.max_trials < 1:
        raise ValueError(f"max_trials={limits.max_trials}: must be at least 1")


def unbounded(limits: Limits) -> Limits:
    """Return the limits without those on retain loss and length of the step."""
    return limits._replace(
        max_retain_increase=None, max_retain_nats=None, max_relative_step=None
    )


def highest_retain_loss(before: float, limits: Limits) -> float:
    """Return the retain loss that the limits allow, from what it was before.

    >>> highest_retain_loss(2.0, Limits(max_retain_increase=0.05))
    2.02
    >>> highest_retain_loss(0.5, Limits(max_retain_increase=0.5))
    0.52
    """
    share, nats = limits.max_retain_increase, limits.max_retain_nats
    allowed = [] if share is None else [before * (1 + share)]
    allowed += [] if nats is None else [before + nats]
    return min(allowed, default=math.inf)


def price_limit(text: str) -> dict[str, float | None]:
    """Return the limits of the retain loss that a text names, as fields of `Limits`.

    >>> price_limit("5%")
    {'max_retain_nats': None, 'max_retain_increase': 0.05}
    >>> price_limit("0.02nats")
    {'max_retain_nats': 0.02, 'max_retain_increase': None}
    """
    found = re.fullmatch(r"\s*(none|([\d.eE+-]+)\s*(%|nats?)?)\s*", text)
    try:
        if found is None:
            raise ValueError
        value = None if found[2] is None else float(found[2])
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(
            f"max_retain_increase={text!r}: nats a token such as 0.02nats, a share of "
            f"the loss such as 5%, or none"
        )
    if found is not None and (found[3] or "").startswith("nat"):
        return {"max_retain_nats": value, "max_retain_increase": None}
    if value is not None and found is not None and found[3] == "%":
        value /= 100
    return {"max_retain_nats": None, "max_retain_increase": value}
