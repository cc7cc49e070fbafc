"""The arrays of an index on disk: zarr version 3, uncompressed, through TensorStore.

Uncompressed, so that a chunk's size is known beforehand and a lost or cut chunk file is
seen when the index is opened; TensorStore would read a missing one as zeros.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

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


def specification(directory: Path, name: str) -> dict[str, Any]:
    """Return TensorStore's description of where an array lies."""
    path = f"{Path(directory).absolute() / name}/"
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": path},
        # A chunk of zeros is a file too: a missing file is always a loss.
        "store_data_equal_to_fill_value": True,
    }


def create_arrays(directory: Path, arrays: ArrayLayout, *, chunk_rows: int) -> None:
    """Create the arrays without rows, in the place of any of an unfinished beginning.

    Raises:
      OSError: The disk is full or cannot be written.
    """
    import tensorstore

    for name, (dtype, width) in arrays.items():
        tail = [] if width is None else [width]
        with disk_errors(f"creating {directory / name}"):
            tensorstore.open(
                specification(directory, name),
                create=True,
                delete_existing=True,
                dtype=dtype,
                shape=[0, *tail],
                chunk_layout=tensorstore.ChunkLayout(chunk_shape=[chunk_rows, *tail]),
            ).result()


def open_arrays(directory: Path, arrays: ArrayLayout, *, write: bool) -> dict[str, Any]:
    """Open every array, without a cache of chunks.

    Raises:
      ValueError: An array is missing or is not what the index says.
    """
    import tensorstore

    opened = {}
    for name, (dtype, width) in arrays.items():
        tail = () if width is None else (width,)
        try:
            array = tensorstore.open(
                specification(directory, name),
                open=True,
                read=True,
                write=write,
                dtype=dtype,
                rank=1 + len(tail),
            ).result()
        except ValueError as error:
            raise ValueError(
                f"{directory / name} is missing or damaged: build the index again in "
                f"an empty directory ({error})"
            ) from error
        if tuple(array.shape[1:]) != tail:
            raise ValueError(
                f"{directory / name} has rows of shape {tuple(array.shape[1:])}, "
                f"index.json says {tail}: build the index again in an empty directory"
            )
        opened[name] = array
    return opened


def write_rows(
    opened: Mapping[str, Any], start: int, values: Mapping[str, np.ndarray], note: str
) -> None:
    """Write rows from number ``start`` on, and return when they are on the disk.

    Raises:
      OSError: The disk is full or cannot be written; the message ends with ``note``.
    """
    with disk_errors(note):
        resized = {}
        stop = start + len(values["ids"])
        for name, array in opened.items():
            shape = [max(stop, array.shape[0]), *array.shape[1:]]
            resized[name] = array.resize(exclusive_max=shape, expand_only=True)
        writes = [
            future.result()[start:stop].write(values[name])
            for name, future in resized.items()
        ]
        for write in writes:
            write.result()


@contextlib.contextmanager
def disk_errors(note: str) -> Iterator[None]:
    """Turn TensorStore's errors of the file system into an OSError with its number."""
    try:
        yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), f"{error}; {note}") from error


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
            file = directory / name / "c" / str(number)
            file = file if width is None else file / "0"
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                last = min(rows, (number + 1) * chunk_rows) - 1
                state = "is missing" if found is None else f"has {found} bytes"
                raise ValueError(
                    f"{file} {state}, expected {size}: rows {number * chunk_rows} to "
                    f"{last} are lost; restore the file, or build the index again in "
                    f"an empty directory"
                )
