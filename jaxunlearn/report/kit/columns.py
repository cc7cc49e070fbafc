"""The columns of a table whose rows are dicts."""

import numbers
from collections.abc import Mapping, Sequence


def columns_of(rows: Sequence[Mapping]) -> list[str]:
    """Return the columns' names.

    Raises:
      ValueError: There are no rows, or rows of different keys.
    """
    if not rows:
        raise ValueError("rows is empty: a table needs one row or more")
    columns = list(rows[0])
    for position, row in enumerate(rows):
        if list(row) != columns:
            raise ValueError(
                f"rows[{position}] has the keys {list(row)}, but rows[0] has {columns}"
            )
    return columns


def is_numeric(rows: Sequence[Mapping], column: str, *, percent: bool = False) -> bool:
    """Return whether a column holds numbers and dashes alone.

    Args:
      rows: The rows.
      column: The column.
      percent: Whether a text that ends in " %" is a number too.
    """
    values = [row[column] for row in rows if row[column] is not None]
    return bool(values) and all(
        percent and value.endswith(" %")
        if isinstance(value, str)
        else isinstance(value, numbers.Real) and not isinstance(value, bool)
        for value in values
    )
