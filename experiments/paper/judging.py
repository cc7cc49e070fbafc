"""From intervals to verdicts, and how an interval is written in a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper.results import summary


def summaries(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the summary over seeds of each."""
    return {name: summary(x) for name, x in values.items()}


def combined(tests: Sequence[bool | None]) -> str:
    """Return the verdict of tests that say yes, no, or nothing (None).

    >>> combined([True, True]), combined([True, None]), combined([None, False])
    ('reproduces', 'partly', 'undecided')
    """
    if all(tests):
        return "reproduces"
    if any(tests):
        return "partly"
    return "undecided" if None in tests else "does not reproduce"


def below(found: Mapping, bound: float) -> bool | None:
    """Return whether an interval lies below a bound; None: the bound is inside.

    >>> below({"low": 1, "high": 2}, 3), below({"low": 1, "high": 2}, 1.5)
    (True, None)
    """
    if found.get("low") is None:
        return None
    return True if found["high"] < bound else (False if found["low"] > bound else None)


def raised(found: Mapping, margin: float) -> bool | None:
    """Return whether a difference lies above 0; no: it lies below the margin."""
    if found.get("low") is None:
        return None
    return True if found["low"] > 0 else (False if found["high"] < margin else None)


def told(found: Mapping, unit: str = "") -> str:
    """Return a mean with its interval; ``%`` as the unit writes it in per cent.

    >>> told({"mean": 0.5, "low": 0.25, "high": 0.75}, "%")
    '50 % (25 to 75)'
    """
    if found.get("mean") is None:
        return "(no seed)"
    times = 100 if unit == "%" else 1
    mean, *ends = (
        None if found[name] is None else f"{times * found[name]:.3g}"
        for name in ("mean", "low", "high")
    )
    value = f"{mean} {unit}".strip()
    return value if None in ends else f"{value} ({ends[0]} to {ends[1]})"
