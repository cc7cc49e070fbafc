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
from jaxunlearn.unlearning.methods import METHODS
from jaxunlearn.unlearning.requirements import method_named, options_of, walks

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


def options_class(name: str) -> type[Options]:
    """Return ``Options`` with a method's own ones after them.

    Raises:
      ValueError: There is no such method.
    """
    fields = own_fields(method_named(name, METHODS))
    made = dataclasses.make_dataclass("Options", fields, bases=(Options,), frozen=True)
    made.__doc__ = Options.__doc__
    return made


def table_text() -> str:
    """Return the table of methods: four short lines each."""
    return "\n".join(
        f"{name}\n"
        f"  {row.form}; {'removes' if row.removes else 'suppresses at inference'}; "
        f"needs {', '.join(sorted(row.needs)) or 'nothing more'}\n"
        f"  cost: {row.cost}\n"
        f"  source: {row.source}"
        for name, row in METHODS.items()
    )
