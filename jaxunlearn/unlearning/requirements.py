"""What a method needs and takes, checked before any work."""

import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from jaxunlearn.unlearning.calibration import check_scale, check_target
from jaxunlearn.unlearning.forms import FORMS, NEEDS, Method, Sets
from jaxunlearn.unlearning.limits import check_limits

CONTEXT = (
    "run",
    "indices",
    "layers",
    "key",
    "target",
    "limits",
    "losses",
    "on_step",
    "directory",
)
"""Keyword arguments of a method that the runner gives; all others are options."""

SETTINGS = {
    "objective": {
        "target",
        "limits",
        "layers",
        "recipe",
        "stop",
        "evaluate_every",
        "keep_best",
        "directory",
    },
    "edit": {"target", "limits", "layers", "scale"},
    "wrapper": {"target", "limits"},
    "exact": {"directory"},
}
"""The runner's settings that go with a form."""


def method_named(method: str | Method, methods: Mapping[str, Method]) -> Method:
    """Return a row of the table, or the row that was given.

    Raises:
      ValueError: There is no such method, or its form or a need is not known.
    """
    if isinstance(method, str):
        if method not in methods:
            raise ValueError(f"method={method!r}: one of {', '.join(methods)}")
        method = methods[method]
    if method.form not in FORMS:
        raise ValueError(f"form={method.form!r}: one of {', '.join(FORMS)}")
    unknown = sorted(method.needs - NEEDS.keys())
    if unknown:
        raise ValueError(f"needs={unknown}: known are {', '.join(NEEDS)}")
    return method


def options_of(method: Method) -> dict[str, inspect.Parameter]:
    """Return a method's own options by name: its keyword arguments with a default."""
    return {
        name: parameter
        for name, parameter in inspect.signature(method.function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in CONTEXT
    }


def walks(method: Method) -> bool:
    """Return whether an edit goes to the target itself, step by step."""
    asked = inspect.signature(method.function).parameters
    return method.form == "edit" and "target" in asked


def check_settings(method: Method, given: Mapping[str, Any]) -> None:
    """Refuse settings of the runner that do not go with a method's form.

    Raises:
      ValueError: One has no effect or is out of range, or a target is missing.
    """
    fitting = SETTINGS[method.form] - ({"scale"} if walks(method) else set())
    for name, value in given.items():
        if name not in fitting:
            raise ValueError(
                f"{name}={value!r:.80} has no effect with this method, of form "
                f"{method.form}: leave it out"
            )
    if method.form == "edit" and not {"target", "scale"} & given.keys():
        raise ValueError(
            "target=None: give the forget loss to reach"
            + ("" if walks(method) else ", or the scale of the edit")
        )
    checks = {"target": check_target, "limits": check_limits, "scale": check_scale}
    for name in checks.keys() & given.keys():
        checks[name](given[name])


def check_options(
    method: Method, given: Mapping[str, Any], methods: Mapping[str, Method]
) -> None:
    """Refuse options that a method does not use, and those that it lacks.

    Of a value the kind is checked, by its annotation; its range knows the method.

    Raises:
      ValueError: Names the option, and its values or the methods that use it.
    """
    own = options_of(method)
    for name, value in given.items():
        if name in own:
            check_kind(name, value, own[name].annotation)
            continue
        others = [n for n, row in methods.items() if name in options_of(row)]
        remedy = (
            f"leave it out, or use {' or '.join(others)}"
            if others
            else (f"its options are {', '.join(own) or 'none'}")
        )
        raise ValueError(
            f"{name}={value!r:.80} has no effect with this method: {remedy}"
        )
    missing = [n for n, p in own.items() if p.default is p.empty and n not in given]
    if missing:
        raise ValueError(f"{missing[0]}=: this method needs it, give it a value")


def check_kind(name: str, value: Any, annotation: Any) -> None:
    """Refuse a value that its annotation does not allow, and numbers that are none.

    Raises:
      ValueError: Names the option and what it may be.

    >>> check_kind("beta", float("nan"), float | None)
    Traceback (most recent call last):
    ValueError: beta=nan: a finite number or None
    """
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    kinds = typing.get_args(annotation) if union else (annotation,)
    if not any(is_of_kind(value, kind) for kind in kinds):
        raise ValueError(f"{name}={value!r:.80}: {' or '.join(map(kind_text, kinds))}")


def is_of_kind(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind; of one that is not known here, any is."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        several = isinstance(value, Collection) and not isinstance(value, str)
        return (
            several and len(value) > 0 and all(is_of_kind(x, inner[0]) for x in value)
        )
    if kind is types.NoneType:
        return value is None
    if kind not in (int, float):
        return True
    if isinstance(value, bool):
        return False
    if kind is int:
        return hasattr(value, "__index__")
    return hasattr(value, "__float__") and math.isfinite(value)


def kind_text(kind: Any) -> str:
    """Return a kind in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return f"one or more, each {kind_text(inner[0])}"
    names = {int: "a whole number", float: "a finite number", types.NoneType: "None"}
    return names.get(kind, str(kind))


def check_needs(method: Method, task: Any, sets: Sets, run: Any, indices: Any) -> None:
    """Refuse a method whose needs are not met.

    Raises:
      ValueError: Names what is missing.
    """
    present = {
        "retain": sets.retain is not None,
        "unseen": sets.unseen is not None,
        "run": run is not None,
        "indices": indices is not None,
        "outputs": hasattr(task, "outputs") and hasattr(task, "loss_of_outputs"),
        "targets": hasattr(task, "targets"),
        "states": hasattr(task, "states"),
    }
    for need in sorted(method.needs):
        if not present[need]:
            raise ValueError(f"this method needs {need}: give {NEEDS[need]}")
