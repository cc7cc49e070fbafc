"""Which options go with which method of ``influence.scores``, and what they may be."""

import math
import operator
from collections.abc import Mapping
from typing import Any

from jaxunlearn.gradients.kronecker.inverse import Damping, as_rule
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence.methods.inverses import INVERSES
from jaxunlearn.influence.work import CURVATURES, Checkpoint, TrainingRun

INVERTED = tuple(name for name in INVERSES if name != "identity")

DIRECTED = ("gradient_dot", "cosine", "relatif", *INVERTED)
"""Methods whose scores are products of one direction a query with all gradients, each
over a number of the training example's own (cosine, relatif)."""

RESUMABLE = (*DIRECTED, "tracin", "self_influence")
"""Methods that keep finished parts in ``state``."""

PROJECTED = ("trak", "logra")
WITHOUT_GRADIENTS = ("act_act", "act_grad")
NAMES = (*RESUMABLE, *PROJECTED, "source", "unrolled", *WITHOUT_GRADIENTS)

SOLVED = ("cg", "ekfac_cg", "lissa")
SKETCHED = ("lanczos", "nystroem")


def all_but(*names: str) -> tuple[str, ...]:
    """Return all methods but some."""
    return tuple(name for name in NAMES if name not in names)


USED_BY = {
    "aggregate": all_but("self_influence"),
    "by_layer": ("gradient_dot", *INVERTED),
    "by_token": ("gradient_dot", *INVERTED),
    "checkpoints": ("tracin", "source", *PROJECTED),
    "curvature": (*SOLVED, *SKETCHED),
    "damping": (*INVERTED, "relatif", "self_influence", *PROJECTED),
    "inverse": ("relatif", "self_influence"),
    "keep_directions": DIRECTED,
    "key": (*SOLVED, *SKETCHED),
    "layers": all_but("unrolled"),
    "max_steps": SOLVED,
    "projection": PROJECTED,
    "query_loss": all_but("self_influence"),
    "rank": SKETCHED,
    "run": ("unrolled",),
    "state": RESUMABLE,
    "tolerance": SOLVED,
}
"""Option -> the methods that it changes; what is not here goes with every method."""

DEFAULTS = {
    "curvature": "fisher",
    "inverse": "ekfac",
    "rank": 50,
    "tolerance": 1e-4,
    "max_steps": 100,
}
"""What None stands for, where the method uses the option."""


def goes_with(option: str, method: str) -> bool:
    """Return whether an option changes what a method does.

    >>> goes_with("rank", "lanczos"), goes_with("rank", "cg")
    (True, False)
    """
    return method in USED_BY.get(option, NAMES)


def used_by(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that go with a method."""
    return {k: v for k, v in options.items() if goes_with(k, method)}


def resolved(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method with their defaults.

    Args:
      method: Its name in ``METHODS``.
      given: Option -> value; None, False and () are as good as not given.

    Returns:
      A value for every option of ``USED_BY``.

    Raises:
      ValueError: An option does not go with the method or with another option, is out
        of range or missing.
    """
    for option, value in given.items():
        if is_given(value) and not goes_with(option, method):
            raise ValueError(
                f"{told(option, value)} does not go with method={method!r}, where it "
                f"changes nothing: leave it out, or take one of "
                f"{', '.join(USED_BY[option])}"
            )
    options = dict.fromkeys(USED_BY) | dict(given)
    options |= {k: v for k, v in DEFAULTS.items() if options[k] is None}
    check_choices(options)
    check_ranges(options)
    check_kinds(method, options)
    if options["inverse"] == "identity" and options["damping"] is not None:
        raise ValueError(
            f"{told('damping', options['damping'])} does not go with inverse="
            f"'identity', which nothing is added to: leave one of them out"
        )
    return options


def is_given(value: Any) -> bool:
    """Return whether a value was given: not None, False or an empty sequence."""
    empty = isinstance(value, tuple | list) and not value
    return not (value is None or value is False or empty)


def told(option: str, value: Any) -> str:
    """Return an option with its value, where that is short."""
    short = isinstance(value, str | int | float | Damping | Projection)
    return f"{option}={value!r}" if short else option


def check_choices(options: Mapping[str, Any]) -> None:
    """Refuse words that are none of those known."""
    for option, known in (
        ("aggregate", (None, "sum", "mean")),
        ("curvature", CURVATURES),
        ("inverse", ("ekfac", "identity")),
    ):
        if options[option] not in known:
            names = " or ".join(f'"{x}"' if x else "None" for x in known)
            raise ValueError(f"{option}={options[option]!r}: must be {names}")


def check_ranges(options: Mapping[str, Any]) -> None:
    """Refuse numbers that make no sense."""
    for option in ("rank", "max_steps"):
        try:
            whole = operator.index(options[option])
        except TypeError:
            whole = 0
        if whole < 1:
            raise ValueError(
                f"{option}={options[option]!r}: must be a whole number of at least 1"
            )
    check_number("tolerance", options["tolerance"])
    if options["damping"] is not None:
        check_number("damping", as_rule(options["damping"]).value)
    for point in options["checkpoints"] or ():
        if not isinstance(point, Checkpoint):
            raise ValueError(
                f"checkpoints: a {type(point).__name__} is there; give "
                f"Checkpoint(params, learning_rate, steps)"
            )
        check_number("checkpoints: learning_rate", point.learning_rate)
        if point.steps < 1:
            raise ValueError(f"checkpoints: steps={point.steps}: must be at least 1")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no finite number of at least 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}={value!r}: must be a finite number of at least 0")


def check_kinds(method: str, options: Mapping[str, Any]) -> None:
    """Refuse what is missing, or of another type."""
    for option, kind in (("run", TrainingRun), ("projection", Projection)):
        value = options[option]
        if value is not None and not isinstance(value, kind):
            raise ValueError(
                f"{option} is of type {type(value).__name__}: give a {kind.__name__}"
            )
    if method in ("lissa", *SKETCHED) and options["key"] is None:
        raise ValueError(
            f"key=None: method={method!r} draws at random; give jax.random.key(0)"
        )
