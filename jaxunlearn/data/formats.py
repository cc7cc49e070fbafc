"""The files of TOFU, MUSE, WMDP, RWKU, LUME, KnowUnDo, chats, everyone's own."""

import gzip
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxunlearn.data.fields import listed
from jaxunlearn.data.records import Record, check_record, unread_fields
from jaxunlearn.data.tables import (
    TABLE_SUFFIXES,
    csv_values,
    folder_values,
    has_header,
    is_table,
    plain_rows,
    table_values,
)
from jaxunlearn.files import DECODER, JSON_LEVELS, TOO_DEEP, nested_beyond
from jaxunlearn.hub import is_repository

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TEXT_SUFFIXES = ("", ".txt", ".text", ".md")
# A missing file of such a name is a missing file, not a data set of the Hub.
FILE_SUFFIXES = (
    *(*JSON_SUFFIXES, ".txt", ".text", ".md", ".parquet", ".arrow"),
    *(".csv", ".tsv", ".gz"),
)
# An object, an array of objects or strings, or a first line that is one JSON string;
# "[Chapter 1]", "{{Infobox" and a dialogue's opening quote are text.
JSON_START = re.compile(
    r"""\s*(?: \{ \s* (?: ["}] | \Z )
             | \[ \s* (?: ["{\]] | \Z )
             | "(?: [^"\\\n] | \\. )*" [ \t]* (?: \n | \Z ) )""",
    re.VERBOSE,
)
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
NOT_SPACE = re.compile(r"\S")
BLANK_LINES = re.compile(r"\n\s*\n")
HUB_PARTS = re.compile(r"([\w.-]+/[\w.-]+)(?::[\w.-]+){0,2}")


class UnreadFieldsWarning(UserWarning):
    """Records have fields with text that no model gets to read."""


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Read the records of one data file, or of one data set of the Hugging Face Hub.

    The content decides, not the name: one JSON array, JSON Lines or one JSON object
    after another (records or bare strings), parquet or Arrow, any of them in gzip, or a
    folder of ``datasets.save_to_disk``. A table of comma-, semicolon- or tab-separated
    values is known by its name, ``.csv`` or ``.tsv``, or by a first line that names the
    fields of a form. What is none of these is plain text, whose documents are parted by
    blank lines, if it is named ``.txt``, ``.text``, ``.md`` or without an extension.
    Files that hold one text a line are for ``read_lines``.

    Args:
      path: A file or such a folder; or, where no such file exists, ``owner/name``,
        ``owner/name:config`` or ``owner/name:config:split`` on the Hub, such as
        ``locuslab/TOFU:forget01``.

    Returns:
      The records in file order, each with the file's own field names, and at least
      the fields of one of ``FORMS``, the same for the whole file. A bare string or a
      document becomes ``{"text": string}``.

    Raises:
      FileNotFoundError: There is no such file, and no such data set in reach.
      ValueError: The path is another directory or the file is empty, not UTF-8, cut
        short, of unknown form or of mixed forms, repeats a key, holds NaN, or a
        record lacks an accepted set of fields, or a field has the wrong type or is
        blank. The message names the file and the line or the record, counted
        from 1.

    Warns:
      UnreadFieldsWarning: Some fields hold text that is not read; once for all.
    """
    name = os.fspath(path)
    values = hub_values(name) if is_hub_data(name) else file_values(name)
    records = [{"text": value} if isinstance(value, str) else value for value in values]
    if not records:
        raise ValueError(f"{name} holds no records")
    first_form = None
    unread: dict[str, None] = {}
    for number, record in enumerate(records, start=1):
        try:
            form = check_record(record)
        except ValueError as error:
            raise ValueError(f"{name}, record {number}: {error}") from error
        first_form = first_form or form
        if form != first_form:
            raise ValueError(
                f"{name} mixes forms: record {number} has the fields "
                f"{listed(form.fields)}, record 1 has {listed(first_form.fields)}; "
                "keep one form in one file"
            )
        unread |= dict.fromkeys(unread_fields(record, form))
    if unread and first_form:
        warnings.warn(
            f"{name}: not read, though there is text in it: {listed(unread)}; read is "
            f"{listed(first_form.read)}",
            UnreadFieldsWarning,
            stacklevel=2,
        )
    return records


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read a file that holds one text a line, such as TOFU's refusals ``idontknow``.

    Args:
      path: A UTF-8 text file of any name.

    Returns:
      The lines that are not blank, in file order, without surrounding white space.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The path is a directory, or the file is empty, not UTF-8, or JSON.
    """
    name = os.fspath(path)
    text = decode(name, read_bytes(name))
    if JSON_START.match(text):
        raise ValueError(f"{name} is JSON, not one text a line: use read_records")
    return [line.strip() for line in text.split("\n") if line.strip()]


def file_values(name: str) -> list[Any]:
    """Return what a file, or a folder of datasets, holds."""
    if Path(name).is_dir():
        return folder_values(Path(name))
    content = read_bytes(name)
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{name} is a damaged gzip file: {error}") from error
    if is_table(content):
        return table_values(name, content)
    return text_values(name, decode(name, content))


def read_bytes(name: str) -> bytes:
    """Return a file's bytes; refuse a missing or an empty one."""
    path = Path(name)
    if path.is_dir():
        inside = listed(sorted(os.listdir(path)))
        raise ValueError(f"{name} is a directory: name one file in it ({inside})")
    if not path.exists():
        raise FileNotFoundError(
            f"no file {name}; give a file, or a data set of the Hugging Face Hub as "
            "owner/name:config:split"
        )
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{name} is empty")
    return content


def decode(name: str, content: bytes) -> str:
    """Return a text of UTF-8, its lines ended as on Unix."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}, line {line}: not UTF-8 ({error.reason}, byte {error.start}); "
            "save the file as UTF-8, uncompressed or in gzip"
        ) from error
    if "\0" in text:
        raise ValueError(f"{name} is not a text file: it holds zero bytes")
    return text.replace("\r\n", "\n")


def text_values(name: str, text: str) -> list[Any]:
    """Return the values of a text: JSON, a table, or documents."""
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    tabled = suffix in TABLE_SUFFIXES
    if suffix in JSON_SUFFIXES or (JSON_START.match(text) and not tabled):
        return list(json_values(name, text))
    if tabled or has_header(text):
        return csv_values(name, text)
    if suffix not in TEXT_SUFFIXES:
        raise ValueError(
            f"{name} is neither JSON, JSON Lines, csv, parquet nor Arrow; if it is "
            "plain text, with blank lines between the documents, name it .txt"
        )
    return [part.strip() for part in BLANK_LINES.split(text) if part.strip()]


def json_values(name: str, text: str) -> Iterator[Any]:
    """Yield the elements of one array, or one value after another."""
    surrogates = SURROGATE.search(text)  # JSON can spell what UTF-8 cannot
    begin = next_mark(text, 0)
    array = text[begin : begin + 1] == "["
    position = next_mark(text, begin + array)
    if array and position == len(text):
        raise not_json(name, text, "Expecting value", position)
    if array and text[position] == "]":
        position = next_mark(text, position + 1)
    while position < len(text):
        try:
            value, end = DECODER.raw_decode(text, position)
            if nested_beyond(value, JSON_LEVELS):
                raise ValueError(TOO_DEEP)
            if surrogates:
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise not_json(name, text, "half a surrogate pair", position) from error
        except (ValueError, RecursionError) as error:
            reason = TOO_DEEP if isinstance(error, RecursionError) else error
            raise not_json(name, text, reason, position) from error
        yield value
        position = next_mark(text, end)
        if array:
            mark = text[position : position + 1]
            if mark not in ("]", ","):
                raise not_json(name, text, "Expecting ',' or ']'", position)
            position = next_mark(text, position + 1)
            if mark == "]":
                break
            if position == len(text):
                raise not_json(name, text, "Expecting value", position)
    if position < len(text):
        raise not_json(name, text, "something follows the array", position)


def not_json(name: str, text: str, reason: object, position: int) -> ValueError:
    """Return the error for what begins at a position, or is wrong further on."""
    line = text.count("\n", 0, getattr(reason, "pos", position)) + 1
    return ValueError(
        f"{name}, line {line}: not JSON, or cut short "
        f"({getattr(reason, 'msg', reason)}); one text a line is for read_lines"
    )


def next_mark(text: str, position: int) -> int:
    """Return the position of the next character that is no white space."""
    found = NOT_SPACE.search(text, position)
    return found.start() if found else len(text)


def is_hub_data(name: str) -> bool:
    """Return whether a name is of data in a repository on the hub."""
    parts = HUB_PARTS.fullmatch(name)
    if not parts or Path(name).suffix.lower() in FILE_SUFFIXES:
        return False
    return is_repository(parts[1])


def hub_values(name: str) -> list[Record]:
    """Return the records of a data set of the hub."""
    import datasets

    repository, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    try:
        data = datasets.load_dataset(repository, config or None, split=split or None)
    except (OSError, ValueError, RuntimeError) as error:  # or it is a script
        kind = FileNotFoundError if isinstance(error, OSError) else ValueError
        raise kind(
            f"no file {name}, and the Hugging Face Hub does not give such a data set: "
            f"{error}"
        ) from error
    if isinstance(data, dict):
        if len(data) > 1:
            raise ValueError(
                f"{name} has the splits {listed(data)}: choose one with "
                f"{repository}:{config or 'default'}:SPLIT"
            )
        (data,) = data.values()
    return plain_rows(data.to_list())
