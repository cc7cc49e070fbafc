"""``--config FILE``: the options of an earlier result, as if they were typed again."""

from collections.abc import Sequence
from typing import Any

from jaxunlearn.files import read_json

INSTEAD = ({"forget", "request", "ids", "forget_sha256"}, {"run", "data"})
"""Options of which one that is given replaces the others."""


def with_config(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with ``--config FILE`` replaced by its options.

    FILE is JSON with an object ``options``, as the commands' results hold one: what
    was given then, by name. They come first, so that whatever is given beside them
    counts.

    Args:
      arguments: The subcommand and its arguments.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: No file is named, or it holds no options.
    """
    rest = list(arguments)
    for position, argument in enumerate(rest):
        name, equals, path = argument.partition("=")
        if name != "--config":
            continue
        if not equals and position + 1 == len(rest):
            raise ValueError("--config names no file: give that of an earlier result")
        path = path if equals else rest[position + 1]
        before, after = rest[:position], rest[position + (1 if equals else 2) :]
        given = {a.partition("=")[0] for a in before + after if a.startswith("--")}
        return [*before[:1], *typed_again(path, given), *before[1:], *after]
    return rest


def typed_again(path: str, given: set[str]) -> list[str]:
    """Return the options of a file as arguments, but for those that are given."""
    found = read_json(path)
    options = found.get("options") if isinstance(found, dict) else None
    if not isinstance(options, dict):
        raise ValueError(
            f"--config {path} holds no options: give a file that a command wrote with "
            f"its result, such as unlearning.json"
        )
    replaced = {
        n for group in INSTEAD if given & set(map(option, group)) for n in group
    }
    arguments: list[str] = []
    for name, value in options.items():
        if name in replaced or option(name) in given or value in (None, False, []):
            continue
        arguments += spelled(option(name), value)
    return arguments


def option(name: str) -> str:
    """Return the option of an argument's name."""
    return "--" + name.replace("_", "-")


def spelled(name: str, value: Any) -> list[str]:
    """Return an option and its value as they are typed.

    >>> spelled("--epochs", [1, 2]), spelled("--target", -1.0), spelled("--full", True)
    (['--epochs', '1', '2'], ['--target=-1.0'], ['--full'])
    """
    if value is True:
        return [name]
    if isinstance(value, list):
        return [name, *map(str, value)]
    return [f"{name}={value}"]
