"""The arrays of an index on disk: zarr version 3, uncompressed, written and read here.

Uncompressed and so simple that what is hashed is what lies on the disk: a lost or cut
chunk file is seen when the index is opened, a changed one when it is read.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxunlearn.files import write_json, write_whole

ITEM_BYTES = {"int8": 1, "bfloat16": 2, "float32": 4, "int32": 4}


ArrayLayout = dict[str, tuple[str, int | None]]
"""Name to (dtype, width) of every array; width None for a vector."""


def array_layout(dtype: str, width: int, layers: int) -> ArrayLayout:
    """Return the arrays of an index of rows [n, width] over so many layers."""
    arrays: ArrayLayout = {
        "rows": (dtype, width),
        "norms": ("float32", None),
        "ids": ("int32", None),
    }
    if dtype == "int8":
        arrays["scales"] = ("float32", layers)
    return arrays


def bytes_per_row(arrays: ArrayLayout) -> int:
    """Return what one row takes on disk, its scales, norm and id included."""
    return sum(ITEM_BYTES[dtype] * (width or 1) for dtype, width in arrays.values())


def write_headers(
    directory: Path, arrays: ArrayLayout, *, rows: int, chunk_rows: int
) -> None:
    """Write each array's ``zarr.json``, by which other programs read it; we do not."""
    for name, (dtype, width) in arrays.items():
        tail = [] if width is None else [width]
        header: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *tail],
            "data_type": dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [chunk_rows, *tail]},
            },
            "chunk_key_encoding": {"name": "default"},
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        }
        write_json(directory / name / "zarr.json", header)


def chunk_path(directory: Path, name: str, width: int | None, number: int) -> Path:
    """Return where a chunk of an array lies."""
    path = directory / name / "c" / str(number)
    return path if width is None else path / "0"


def write_chunk(
    directory: Path,
    arrays: ArrayLayout,
    number: int,
    values: Mapping[str, np.ndarray],
    *,
    chunk_rows: int,
) -> dict[str, str]:
    """Write chunk ``number`` of every array; the rows beyond those given are zeros.

    Returns:
      The hash of each array's rows.

    Raises:
      OSError: The disk is full or cannot be written.
    """
    hashes = {}
    for name, (dtype, width) in arrays.items():
        data = np.ascontiguousarray(values[name], little_endian(dtype)).tobytes()
        size = chunk_rows * ITEM_BYTES[dtype] * (width or 1)
        whole = data.ljust(size, b"\0")
        path = chunk_path(directory, name, width, number)
        write_whole(path, lambda temporary, whole=whole: temporary.write_bytes(whole))
        hashes[name] = hashlib.sha256(data).hexdigest()
    return hashes


def read_chunk(
    directory: Path,
    arrays: ArrayLayout,
    name: str,
    number: int,
    *,
    rows: int,
    expected: str | None,
) -> np.ndarray:
    """Read the first ``rows`` rows of a chunk.

    Args:
      directory: The index's.
      arrays: Its arrays.
      name: Of the array.
      number: Of the chunk.
      rows: How many of its rows count.
      expected: Their hash; None compares nothing.

    Raises:
      ValueError: The file is missing, cut or damaged; names it.
    """
    dtype, width = arrays[name]
    path = chunk_path(directory, name, width, number)
    size = rows * ITEM_BYTES[dtype] * (width or 1)
    try:
        with path.open("rb") as file:
            data = file.read(size)
    except FileNotFoundError:
        data = b""
    found = hashlib.sha256(data).hexdigest()
    if len(data) != size or expected not in (None, found):
        raise ValueError(
            f"{path} is damaged (its hash is not that of the rows that were written): "
            f"restore the file, or build the index again in an empty directory"
        )
    shape = (rows,) if width is None else (rows, width)
    return np.frombuffer(data, little_endian(dtype)).reshape(shape)


def little_endian(dtype: str) -> np.dtype:
    """Return the dtype as it lies on disk."""
    return jnp.dtype(dtype).newbyteorder("<")


def check_chunks(
    directory: Path, arrays: ArrayLayout, *, rows: int, chunk_rows: int
) -> None:
    """Refuse an index of whose first ``rows`` rows a chunk file is lost or cut.

    Raises:
      ValueError: Names the file and the rows.
    """
    for name, (dtype, width) in arrays.items():
        size = chunk_rows * ITEM_BYTES[dtype] * (width or 1)
        for number in range(-(-rows // chunk_rows)):
            file = chunk_path(directory, name, width, number)
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                last = min(rows, (number + 1) * chunk_rows) - 1
                state = "is missing" if found is None else f"has {found} bytes"
                raise ValueError(
                    f"{file} {state}, expected {size}: rows {number * chunk_rows} to "
                    f"{last} are lost; restore the file, or build the index again in "
                    f"an empty directory"
                )
