"""``jaxunlearn unlearn NAME``: which method's options the arguments are of."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxunlearn.commands.arguments import plain
from jaxunlearn.commands.unlearn_methods import options_class, own_fields
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_rows import rows_with, sound_row


def check_own(name: str, given: dict[str, Any], method: str) -> None:
    """Refuse options that only other methods read.

    Args:
      name: The method's row.
      given: Names and values.
      method: The method, as it was given.

    Raises:
      ValueError: Names the option, its value and the methods that read it.
    """
    known = {f.name for f in dataclasses.fields(Options)}
    known |= {field[0] for field in own_fields(sound_row(name))}
    for option, value in given.items():
        others = [] if option in known else rows_with(option)
        if others:
            raise ValueError(
                f"{option}={value} has no effect with --method {method}: leave it out, "
                f"or use --method {' or '.join(others)}"
            )


def for_arguments(
    command: Callable[[Options], int], arguments: Sequence[str]
) -> tuple[Callable[[Any], int], list[str]]:
    """Return the subcommand with the options of the method that is asked for.

    Args:
      command: The function of all methods.
      arguments: The subcommand's name and its arguments, with ``--method NAME``.
    """
    given = typed_options(arguments)
    method = given.get("method")
    if method is None:
        return command, list(arguments)
    iterative = method == "first_epoch" and given.get("mode") == "iterative"
    name = "iterative" if iterative else method
    row = sound_row(name)
    check_own(name, given, method)

    def unlearn(options: Any) -> int:
        return command(options)

    does = (
        "removes" if row.removes else "suppresses, and leaves the weights as they are"
    )
    unlearn.__name__ = f"unlearn {method}"  # as its help is asked for
    unlearn.__annotations__ = {"options": options_class(row, method), "return": int}
    first = plain(row.function.__doc__).split("\n\n")[0]
    unlearn.__doc__ = (
        f"{first}\n\nForm: {row.form}, which {does}. Needs: "
        f"{', '.join(sorted(row.needs)) or 'nothing more'}. Cost: {row.cost}. Source: "
        f"{row.source}.\n\n{plain(command.__doc__)}"
    )
    return unlearn, list(arguments)


def typed_options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options that were typed, by the names of their arguments.

    >>> typed_options(["unlearn", "--method", "npo", "--batch-size=2", "--overwrite"])
    {'method': 'npo', 'batch_size': '2', 'overwrite': ''}
    """
    found = {}
    for position, word in enumerate(arguments):
        if not word.startswith("--"):
            continue
        name, equals, value = word.partition("=")
        after = arguments[position + 1 : position + 2]
        if not equals and after and not after[0].startswith("--"):
            value = after[0]
        found[name.removeprefix("--").replace("-", "_")] = value
    return found


def named_method(arguments: Sequence[str]) -> list[str]:
    """Return ``unlearn NAME ...`` as ``unlearn --method NAME ...``.

    Raises:
      ValueError: There is no such method, or its row is wrong.
    """
    command, *rest = arguments
    if not rest or rest[0].startswith("-"):
        return [command, *rest]
    sound_row(rest[0])
    return [command, "--method", rest[0], *rest[1:]]
