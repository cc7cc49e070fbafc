"""The settings of a run as tables that can be read."""

from collections.abc import Mapping
from typing import Any

from jaxunlearn.report.kit.tables import text_of


def settings_tables(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return a table for each group of settings, and one for those that stand alone.

    Args:
      settings: Name -> value, or name of a group -> such a dict.

    Returns:
      Heading -> name -> text. Groups in groups are named by both.

    >>> settings_tables({"seed": 3, "recipe": {"batch_size": 8, "decay": None}})
    {'Settings': {'seed': '3'}, 'Settings: recipe': {'batch size': '8', 'decay': '–'}}
    """
    tables: dict[str, dict[str, str]] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            tables[f"Settings: {spelled(name)}"] = dict(rows(value))
        else:
            tables.setdefault("Settings", {})[spelled(name)] = cell(value)
    return tables


def rows(settings: Mapping[str, Any]):
    """Return the pairs of name and text of a group, and of groups inside it."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            for inner, text in rows(value):
                yield f"{spelled(name)}, {inner}", text
        else:
            yield spelled(name), cell(value)


def cell(value: Any) -> str:
    """Return a value as text: lists by their members, what is not set as a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or text_of(None)
    return text_of(value if value != "" else None)


def spelled(name: str) -> str:
    """Return a name with spaces for its underscores."""
    return str(name).replace("_", " ")
