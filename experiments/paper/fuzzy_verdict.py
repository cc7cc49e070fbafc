"""What the measurements of claim 5 say."""

from collections.abc import Mapping
from typing import Any

from experiments.paper.judging import below, combined, raised, told

EXACT, LOOSEST = "exact", "name, 0.55"
ASCENT, ITERATIVE = "ascent on all", "iterative"
BARRIER = 0.01  # of the original's kept loss
FURTHER = 0.1  # of the exact one's distance
SLOWER = 0.05  # nats
LESS = 0.01  # extraction strength


def judged(result: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the verdicts on the claim, and why, from ``fuzzy.by_way``'s JSON."""
    return {
        "fuzzy moves to a new optimum": new_optimum(result),
        "iterative more complete than exact": completeness(result, EXACT),
        "iterative more complete than fuzzy": completeness(result, LOOSEST),
    }


def new_optimum(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return whether the loosest request ends further away, and in an optimum there.

    Where there is no other optimum, it has to be further at least to be ``partly``.
    """
    ways, seeds = result["ways"], result["seeds"]
    fuzzy, exact = ways[LOOSEST], ways[EXACT]
    flat = below(fuzzy["barrier"], BARRIER)
    barrier = None if flat is None else not flat
    optimum = either(barrier, below(fuzzy["retain_rise"], 0.0))
    verdict = combined([raised(fuzzy["further"], FURTHER), optimum])
    if verdict == "undecided" and optimum is False:
        verdict = "does not reproduce"
    if min(fuzzy["reached"], exact["reached"]) < seeds:
        verdict = "undecided"
    return verdict, (
        f"The loosest request, of precision {told(fuzzy['precision'], '%')}, ends "
        f"{told(fuzzy['further'], '%')} further from the original than exact (at a "
        f"common scale it goes {told(fuzzy['step at a common scale'])} times as far); "
        f"the barrier on the way is {told(fuzzy['barrier'], '%')} of the kept loss, "
        f"which rose {told(fuzzy['retain_rise'], '%')}, with exact "
        f"{told(exact['retain_rise'], '%')}; the gradient of that is there "
        f"{told(fuzzy['slope'])} times the original's. {fuzzy['reached']} of {seeds} "
        f"seeds get to the target."
    )


def completeness(result: Mapping[str, Any], other: str) -> tuple[str, str]:
    """Return whether iterating is more complete than another way, and why.

    Where one of the two measures is on the wrong side of 0 and the other does not speak
    for the claim, it does not reproduce.
    """
    ways, seeds = result["ways"], result["seeds"]
    iterative, beside = ways[ITERATIVE], ways[other]
    less = iterative["less"][other]
    slower, lower = less["relearned"], negative(less["extraction"])
    verdict = combined([raised(slower, SLOWER), raised(lower, LESS)])
    if verdict == "undecided" and True in [below(x, 0.0) for x in (slower, lower)]:
        verdict = "does not reproduce"
    if min(iterative["reached"], beside["reached"]) < seeds:
        verdict = "undecided"
    return verdict, (
        f"While half is taught the other half's loss is "
        f"{told(iterative['relearned'], 'nats')}, less that of {other!r} "
        f"{told(slower)}; retrained {told(ways['retrained']['relearned'])}, ascent on "
        f"all at once {told(ways[ASCENT]['relearned'])}. Extraction "
        f"{told(iterative['extraction'])}, difference {told(less['extraction'])}. The "
        f"kept loss rose {told(iterative['retain_rise'], '%')}, there "
        f"{told(beside['retain_rise'], '%')}. {iterative['reached']} of {seeds} seeds "
        f"get to the target."
    )


def either(a: bool | None, b: bool | None) -> bool | None:
    """Return ``a or b`` where None is unknown.

    >>> either(None, True), either(None, False), either(False, False)
    (True, None, False)
    """
    if a or b:
        return True
    return None if None in (a, b) else False


def negative(found: Mapping) -> dict[str, Any]:
    """Return the summary of what has the other sign."""
    if found.get("low") is None:
        return dict(found)
    return {"mean": -found["mean"], "low": -found["high"], "high": -found["low"]}
