"""The options of each unlearning method, made from its function's keyword defaults."""

import dataclasses
import re
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxunlearn.commands.arguments import plain
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.unlearning.forms import Method
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.requirements import options_of, walks

RECIPE_OPTIONS = (
    *("learning_rate", "epochs", "optimizer", "weight_decay", "schedule"),
    *("warmup_steps", "clip_norm", "seed"),
)
"""What an objective takes of a recipe; --batch-size is everybody's."""

Field = tuple[str, Any, Any]
"""Name, annotated type and default."""


def field_of(name: str, kind: Any, default: Any, text: str) -> Field:
    """Return an option with its help."""
    return name, Annotated[kind, tyro.conf.arg(help=text)], default


def own_fields(row: Method) -> list[Field]:
    """Return the options of a method, and of its form."""
    hints = typing.get_type_hints(row.function)
    texts = argument_texts(row.function.__doc__)
    fields = [
        field_of(name, hints[name], parameter.default, texts.get(name, ""))
        for name, parameter in options_of(row).items()
    ]
    return fields + form_fields(row)


def form_fields(row: Method) -> list[Field]:
    """Return the options that come with a method's form."""
    from jaxunlearn.training.recipe import Recipe
    from jaxunlearn.unlearning.descent import Criterion
    from jaxunlearn.unlearning.runner import RECIPE

    if row.form == "edit" and not walks(row):
        text = "Take this multiple of the step, above 0, instead of calibrating one."
        return [field_of("scale", float | None, None, text)]
    saved = field_of("work", Path | None, None, "Folder to save and take up work in.")
    if row.form == "exact":
        return [saved]
    if row.form != "objective":
        return []
    hints, texts = typing.get_type_hints(Recipe), argument_texts(Recipe.__doc__)
    every = "Steps between evaluations; default: an epoch of the forget set."
    best = "Take all steps, with no target, and keep the best evaluated checkpoint."
    return [
        *(field_of(n, hints[n], getattr(RECIPE, n), texts[n]) for n in RECIPE_OPTIONS),
        field_of("evaluate_every", int | None, None, every),
        field_of("keep_best", Criterion | None, None, best),
        saved,
    ]


def argument_texts(docstring: str | None) -> dict[str, str]:
    """Return what a docstring says of each argument.

    >>> argument_texts("Do.\\n\\nArgs:\\n  beta: How\\n    soon.\\n")
    {'beta': 'How soon.'}
    """
    return dict(re.findall(r"^  (\w+): (.*)$", plain(docstring), re.MULTILINE))


def ignored_options(row: Method, method: str) -> set[str]:
    """Return which options of all methods one has no use for, and refuses.

    Args:
      row: The method's row.
      method: The method, as it was given.
    """
    found = set() if row.form in ("objective", "edit") else {"layers"}
    if row.form == "exact":
        found |= {"target", "max_retain_increase"}
    return found if method == "first_epoch" else found | {"mode"}


def shared_fields(row: Method, method: str) -> list[Field]:
    """Return the options of all methods that one hides, or has other defaults for."""
    hints, texts = typing.get_type_hints(Options), argument_texts(Options.__doc__)
    step, name = row.limits.max_relative_step, "max_relative_step"
    fields = {name: field_of(name, float | None, step, texts[name])}
    usual = {"layers": row.layers, "max_retain_increase": price_text(row.limits)}
    for name, default in usual.items():
        hint = f"(default: {default})"
        shown = tyro.conf.arg(help=texts[name], help_behavior_hint=hint)
        fields[name] = (name, Annotated[hints[name], shown], None)
    hidden = ignored_options(row, method)
    if row.form == "exact":  # not refused: a file of --config may hold it
        hidden |= {"max_relative_step"}
    for name in sorted(hidden):
        default = fields[name][2] if name in fields else None
        fields[name] = (name, Annotated[hints[name], tyro.conf.Suppress], default)
    return list(fields.values())


def price_text(limits: Limits) -> str:
    """Return by how much the retain loss may rise, as the option is typed.

    >>> price_text(Limits()), price_text(Limits(max_retain_nats=None))
    ('0.02nats', 'none')
    """
    if limits.max_retain_nats is not None:
        return f"{limits.max_retain_nats:g}nats"
    share = limits.max_retain_increase
    return "none" if share is None else f"{100 * share:g}%"


def options_class(row: Method, method: str) -> type[Options]:
    """Return ``Options`` with a method's own ones after them.

    Args:
      row: The method's row.
      method: The method, as it was given.
    """
    fields = shared_fields(row, method) + own_fields(row)
    made = dataclasses.make_dataclass("Options", fields, bases=(Options,), frozen=True)
    made.__doc__ = Options.__doc__
    return made
