"""The rows of the table of methods, held to what the command line asks of them."""

import dataclasses
import textwrap
import typing

from jaxunlearn.commands.arguments import option_name
from jaxunlearn.commands.unlearn_methods import form_fields, own_fields
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.unlearning.forms import Method
from jaxunlearn.unlearning.methods import METHODS
from jaxunlearn.unlearning.requirements import method_named, options_of


def check_row(name: str, row: Method) -> None:
    """Refuse a row that no options of a command can be made of.

    Raises:
      ValueError: Names the row, what is wrong in it, and the remedy.
    """
    where = f"METHODS[{name!r}]"
    try:
        method_named(row, METHODS)
        own, hints = options_of(row), typing.get_type_hints(row.function)
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    taken = {field.name for field in dataclasses.fields(Options)}
    taken |= {field[0] for field in form_fields(row)}
    for option, parameter in own.items():
        default = parameter.default
        if option in taken:
            wrong = "is called as one that the command has already: rename it"
        elif option not in hints:
            wrong = "has no annotation: give it one, such as float"
        elif default is parameter.empty:
            wrong = "has no default: give it one"
        elif type(default).__hash__ is None:
            wrong = f"has the default {default!r}: give one that is fixed, as a tuple"
        else:
            continue
        raise ValueError(f"{where}: its option {option} {wrong}")


def sound_row(name: str) -> Method:
    """Return a method's row; of the others nothing is asked.

    Raises:
      ValueError: There is no such method, or its row is wrong.
    """
    if name in METHODS:
        check_row(name, METHODS[name])
    return method_named(name, METHODS)


def rows_with(option: str) -> list[str]:
    """Return the methods that have an option of their own; wrong rows have none."""
    found = []
    for name, row in METHODS.items():
        if fault(name) is None and option in {field[0] for field in own_fields(row)}:
            found.append(name)
    return found


def own_names() -> dict[str, str]:
    """Return argument -> option of what is some method's own: part -> --part."""
    rows = [row for name, row in METHODS.items() if fault(name) is None]
    fields = [field for row in rows for field in own_fields(row)]
    return {name: option_name(name, kind) for name, kind, _ in fields}


def fault(name: str) -> str | None:
    """Return what is wrong with a row of the table, or None."""
    try:
        check_row(name, METHODS[name])
    except ValueError as error:
        return str(error)
    return None


def table_text(width: int) -> str:
    """Return the table of methods, a few short lines each.

    Args:
      width: Most letters of a line; what is longer goes on below, further in.
    """
    lines = []
    for name, row in METHODS.items():
        lines.append(name)
        wrong = fault(name)
        told = [f"wrong: {wrong}"] if wrong else row_lines(row)
        lines += [
            textwrap.fill(
                line,
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in told
        ]
    return "\n".join(lines)


def row_lines(row: Method) -> list[str]:
    """Return what a row says."""
    return [
        f"{row.form}; {'removes' if row.removes else 'suppresses at inference'}; "
        f"needs {', '.join(sorted(row.needs)) or 'nothing more'}",
        f"cost: {row.cost}",
        f"source: {row.source}",
    ]
