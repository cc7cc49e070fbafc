"""What a method needs and takes, checked before any work."""

import inspect
from collections.abc import Mapping
from typing import Any

from jaxunlearn.unlearning.forms import FORMS, NEEDS, Method, Sets

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
      ValueError: One has no effect, or a target is missing.
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


def check_options(
    method: Method, given: Mapping[str, Any], methods: Mapping[str, Method]
) -> None:
    """Refuse options that a method does not use, and those that it lacks.

    Raises:
      ValueError: Names the option and the methods that use it.
    """
    own = options_of(method)
    for name, value in given.items():
        if name in own:
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
