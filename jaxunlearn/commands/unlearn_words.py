"""What ``jaxunlearn unlearn`` says of an outcome."""

from collections.abc import Collection, Mapping
from typing import Any

from jaxunlearn.commands.arguments import option_name
from jaxunlearn.commands.wording import in_options


def explanation(
    outcome: Any, target: float | None, retain_before: float, options: Collection[str]
) -> str:
    """Return what an outcome means, in the words of the command line.

    Args:
      outcome: The outcome.
      target: The forget loss that was to be reached.
      retain_before: The retain loss before.
      options: The names of the method's options.
    """
    from jaxunlearn.unlearning import explain

    names = {name: option_name(name, None) for name in options}
    # One option sets both: in nats, or as a share.
    names["max_retain_nats"] = option_name("max_retain_increase", None)
    return in_options(explain(outcome, target, retain_before), names)


def warning_of(outcome: Any, rise: float) -> str | None:
    """Return what to beware of in a model that is written, or None.

    Args:
      outcome: The outcome.
      rise: Of the retain loss.
    """
    from jaxunlearn.unlearning import Status

    short = "The target is not met: the forgotten are told better than was asked for."
    found = [short if outcome.status == Status.SHORT else None, price_warning(rise)]
    return " ".join(filter(None, found)) or None


def price_warning(rise: float) -> str | None:
    """Return a warning where retain loss rose past the limit of careful methods."""
    from jaxunlearn.unlearning import Limits

    usual = Limits().max_retain_nats
    if usual is None or rise <= usual:
        return None
    return (
        f"Retain loss rose by {rise:.3f} nats a token, more than {usual}: the model "
        f"is worse on what it keeps."
    )


def loss_rows(
    outcome: Any,
    target: float | None,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return the losses before, and after; where it was refused, of what was tried."""
    from jaxunlearn.unlearning.explanation import judged_trial

    if outcome.reached:
        return [{"records": n, "before": before[n], "after": after[n]} for n in before]
    tried = judged_trial(outcome, target)
    return [
        {"records": n, "before": before[n], "tried, not kept": getattr(tried, n, "-")}
        for n in before
    ]
