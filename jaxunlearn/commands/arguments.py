"""How a function becomes a subcommand: its help, its options, its errors."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from jaxunlearn.commands.outputs import check_outputs
from jaxunlearn.ranges import MOST as MOST
from jaxunlearn.ranges import check_number as check_number

REGISTRY = ConstructorRegistry()

TrainingRecords = Annotated[str, tyro.conf.arg(name="data", aliases=("--train",))]
"""The training records of a command: ``--data``, or by its older name ``--train``."""


@REGISTRY.primitive_rule
def optional_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read ``X | None`` as ``X``: None is said by leaving the option away."""
    kinds = [kind for kind in typing.get_args(info.type) if kind is not NoneType]
    if len(kinds) != 1 or NoneType not in typing.get_args(info.type):
        return None
    inner = PrimitiveTypeInfo.make(kinds[0], info.markers)
    found = ConstructorRegistry.get_primitive_spec(inner)
    if not isinstance(found, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        found,
        is_instance=lambda value: value is None or found.is_instance(value),
        str_from_instance=lambda value: (
            ["none"] if value is None else found.str_from_instance(value)
        ),
    )


def as_command(function: Callable[..., int]) -> Callable[..., int]:
    """Return the function with docstrings that read well in a terminal.

    It checks first that its outputs can be written.

    What stands in a docstring over several lines is one paragraph there, and code has
    no double ticks around it. A dataclass of options is not a group of its own.

    Args:
      function: The subcommand.
    """

    def command(*args, **kwargs):
        check_outputs([*args, *kwargs.values()], kwargs)
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = []
    for name, parameter in signature.parameters.items():
        hint = hints[name]
        for options in option_classes(hint):
            options.__doc__ = plain(options.__doc__)
        if dataclasses.is_dataclass(hint):
            hint = Annotated[hint, tyro.conf.arg(name="")]
        parameters.append(parameter.replace(annotation=hint))
    read_by_tyro = {
        "__signature__": signature.replace(parameters=parameters),
        "__annotations__": {p.name: p.annotation for p in parameters},
        "__doc__": plain(function.__doc__),
        "__name__": function.__name__,
        "__module__": function.__module__,
    }
    for name, value in read_by_tyro.items():
        setattr(command, name, value)
    return command


def plain(docstring: str | None) -> str:
    """Return a docstring without markup, a paragraph or an argument in one line.

    >>> plain('''Train it,
    ... slowly.
    ...
    ... Args:
    ...   data: Records, in
    ...     ``JSON``.
    ... ''').splitlines()
    ['Train it, slowly.', '', 'Args:', '  data: Records, in `JSON`.']
    """
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    return re.sub(r"\n {4,}(?=\S)|(?<![:\n])\n(?=\S)", " ", text)


def option_names(function: Callable[..., Any]) -> dict[str, str]:
    """Return argument -> option of the subcommand: batch_size -> --batch-size."""
    hints = typing.get_type_hints(function, include_extras=True)
    named: dict[str, str] = {}
    for name, hint in hints.items():
        classes = option_classes(hint)
        for one in classes:
            inner = typing.get_type_hints(one, include_extras=True)
            named |= {field: option_name(field, hint) for field, hint in inner.items()}
        if not classes and name != "return":
            named[name] = option_name(name, hint)
    return named


def option_name(name: str, hint: Any) -> str:
    """Return how an argument is called on the command line."""
    if hint is TrainingRecords:
        name = "data"
    return "--" + name.replace("_", "-")


def option_classes(hint: Any) -> list[Any]:
    """Return the dataclasses that a type hint names, alone or in a union."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [found for one in typing.get_args(hint) for found in option_classes(one)]


def listed(values: Sequence[str]) -> list[str]:
    """Return the names of an option that takes several, with spaces or commas between.

    >>> listed(["a,b", "c"])
    ['a', 'b', 'c']
    """
    parts = (part.strip() for value in values for part in value.split(","))
    return [part for part in parts if part]
