"""What came of unlearning in one or two sentences, with the remedy where it failed."""

import math

from jaxunlearn.unlearning.calibration import passed_limit
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.outcome import Outcome, Status, Trial


def explain(outcome: Outcome, target: float | None, retain_before: float) -> str:
    """Return what an outcome means, with the remedy where it failed.

    Where a limit was passed this says which, by the argument that sets it, and how far
    one could go within the limits.

    Args:
      outcome: The outcome.
      target: The forget loss that was to be reached; None where none was set.
      retain_before: The retain loss before.
    """
    if outcome.status in (Status.REACHED, Status.ALREADY):
        return "The forget loss is at its target."
    judged = judged_trial(outcome, target)
    if judged is None:
        return "No step was tried."
    if outcome.status in (Status.RETAIN_LIMIT, Status.STEP_LIMIT):
        return refusal(outcome, judged, target, retain_before)
    return REMEDIES[outcome.status].format(measured(judged, target, retain_before))


def judged_trial(outcome: Outcome, target: float | None) -> Trial | None:
    """Return the trial that decided: the nearest at the target, else the furthest.

    None where nothing was tried.
    """
    return min(
        outcome.trials,
        key=lambda t: (
            not math.isfinite(t.forget),
            target is not None and t.forget < target,
            0.0 if target is None else abs(t.forget - target),
        ),
        default=None,
    )


def refusal(
    outcome: Outcome, judged: Trial, target: float | None, retain_before: float
) -> str:
    """Return which limit was passed, how far one could go, and what lifts the limit."""
    limits = outcome.limits or Limits()
    passed = [t for t in outcome.trials if passed_limit(t, retain_before, limits)]
    within = [t for t in outcome.trials if t not in passed]
    # A way of several steps may end before the step that would have passed a limit.
    beyond = judged if judged in passed or not passed else passed[-1]
    furthest = max(within, key=lambda t: t.forget, default=None)
    could = "Nothing that was tried keeps within the limits."
    if furthest is not None:
        seen = measured(furthest, target, retain_before)
        could = f"Within the limits one could go so far: {seen}."
    other = "the target, or choose other layers."
    if not math.isfinite(beyond.forget + beyond.retain):
        return f"Refused, a loss is no finite number any more. {could} Lower {other}"
    name, value = limit_named(outcome.status, retain_before, limits)
    if beyond not in passed:
        reason = f"a further step would pass {name} ({value})"
    else:
        seen = measured(beyond, target, retain_before)
        reason = f"{name} ({value}) is passed: {seen}"
    return f"Refused, {reason}. {could} Allow more with {name}, lower {other}"


def limit_named(
    status: Status, retain_before: float, limits: Limits
) -> tuple[str, str]:
    """Return the argument that sets the passed limit, and its value in words.

    >>> limit_named(Status.RETAIN_LIMIT, 3.0, Limits(max_retain_increase=0.05))
    ('max_retain_nats', '0.02 nats a token')
    >>> limit_named(Status.RETAIN_LIMIT, 0.1, Limits(max_retain_increase=0.05))
    ('max_retain_increase', '5 % of the retain loss')
    """
    if status == Status.STEP_LIMIT:
        return "max_relative_step", f"{limits.max_relative_step:g} of the layers"
    share, nats = limits.max_retain_increase, limits.max_retain_nats
    if nats is None or (share is not None and retain_before * share < nats):
        return "max_retain_increase", f"{100 * (share or 0):g} % of the retain loss"
    return "max_retain_nats", f"{nats:g} nats a token"


def measured(trial: Trial, target: float | None, retain_before: float) -> str:
    """Return what a trial came to."""
    aim = "" if target is None else f" (target {target:.3f})"
    rise = 100 * (trial.retain / retain_before - 1) if retain_before else math.nan
    share = f" ({rise:+.2f} %)" if math.isfinite(rise) else ""
    moved = trial.relative_step
    layers = f" and the layers by {100 * moved:.1f} %" if math.isfinite(moved) else ""
    return (
        f"at forget loss {trial.forget:.3f}{aim} retain loss has changed by "
        f"{trial.retain - retain_before:+.4f} nats{share}{layers}"
    )


REMEDIES = {
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
    Status.SHORT: (
        "Applied in full, which falls short of the target: {}. A method of this form "
        "goes to no target by itself: strengthen it by its options, or lower the "
        "target."
    ),
    Status.STOPPED: "A rule ended it; {}.",
}
