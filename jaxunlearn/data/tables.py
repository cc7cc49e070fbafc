"""Tables to records: parquet, Arrow, the folders of ``datasets``, and csv."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from jaxunlearn.data.fields import listed
from jaxunlearn.data.records import FORMS, Record
from jaxunlearn.files import finite, read_json, within

TABLE_SUFFIXES = (".csv", ".tsv")
ARROW_STARTS = (b"ARROW1", b"\xff\xff\xff\xff")  # of Arrow's file and stream formats


def is_table(content: bytes) -> bool:
    """Say whether bytes begin as parquet or Arrow."""
    return content.startswith((b"PAR1", *ARROW_STARTS))


def table_values(name: str, content: bytes) -> list[Record]:
    """Return the rows of a parquet or Arrow file.

    Raises:
      ValueError: The file is damaged.
    """
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    kind = "parquet" if content.startswith(b"PAR1") else "Arrow"
    try:
        if kind == "parquet":
            table = pyarrow.parquet.read_table(io.BytesIO(content))
        elif content.startswith(b"ARROW1"):
            table = pyarrow.ipc.open_file(content).read_all()
        else:
            table = pyarrow.ipc.open_stream(content).read_all()
        table.validate(full=True)
        return plain_rows(table.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name} is a damaged {kind} file: {error}") from error


def plain_rows(rows: list[Record]) -> list[Record]:
    """Return rows of a table with the values that JSON has; others become text."""
    return json.loads(json.dumps(finite(rows), default=str))


def folder_values(folder: Path) -> list[Record]:
    """Return the rows of a folder that ``datasets.save_to_disk`` wrote.

    Raises:
      ValueError: It is no such folder, holds several splits, or is damaged.
    """
    names = sorted(path.name for path in folder.iterdir())
    if "dataset_dict.json" in names:
        splits = list_entry(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            raise ValueError(
                f"{folder} has the splits {listed(splits)}: choose one, such as "
                f"{folder / str(next(iter(splits), 'train'))}"
            )
        (split,) = splits
        if not within(folder, folder / str(split)):
            raise ValueError(f"{folder} names the split {split!r}, outside itself")
        return folder_values(folder / str(split))
    if "state.json" not in names:
        raise ValueError(
            f"{folder} is a directory: name one file in it ({listed(names)})"
        )
    rows = []
    for entry in list_entry(folder / "state.json", "_data_files"):
        file = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not within(folder, folder / file):
            raise ValueError(f"{folder / 'state.json'} names no file of the folder")
        content = (folder / file).read_bytes()
        if not is_table(content):
            raise ValueError(f"{folder / file} is no Arrow file")
        rows += table_values(str(folder / file), content)
    return rows


def has_header(text: str) -> bool:
    """Say whether a text's first line names a form's fields, as a table's does.

    However they are spelled; whether they are a form's is then for the form to say.
    """
    header = first_line(text)
    cells = {cell.strip(' "').lower() for cell in header.split(table_delimiter(header))}
    return any(len(form.fields) > 1 and cells.issuperset(form.fields) for form in FORMS)


def csv_values(name: str, text: str) -> list[Record]:
    """Return the rows of a table of comma-, semicolon- or tab-separated values.

    Raises:
      ValueError: A column has no name of its own, a row other cells than the header,
        or a quotation mark no end.
    """
    delimiter = table_delimiter(first_line(text))
    # The module's limit is of another age: a cell may hold a book.
    limit = csv.field_size_limit(max(len(text), 1))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(filter(None, rows), [])  # behind lines that hold nothing
        if len(set(header)) < len(header):
            raise ValueError("two columns have one name")
        values = []
        for cells in rows:
            if len(cells) not in (0, len(header)):
                raise ValueError(
                    f"{len(cells)} cells, but {len(header)} names in the first line"
                )
            if cells:
                values.append(dict(zip(header, cells, strict=True)))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{name}, line {rows.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return values


def first_line(text: str) -> str:
    """Return a table's first line."""
    return text.lstrip().split("\n", 1)[0]


def table_delimiter(header: str) -> str:
    """Return which of comma, semicolon and tab a line has most of."""
    return max(",;\t", key=header.count)


def list_entry(path: Path, key: str) -> list[Any]:
    """Return the list under a key of a JSON file."""
    found = read_json(path)
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"{path} has no list {key!r}: the folder is damaged")
    return value
