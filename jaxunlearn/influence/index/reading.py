"""Reading the rows of an index: all in order, a few, or their ids alone."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxunlearn.influence.index.description import Index, chunk_of
from jaxunlearn.influence.index.encoding import decode


class Chunk(NamedTuple):
    """Some rows as stored; filled up with zeros and the id -1 to a fixed number."""

    start: int
    count: int
    rows: np.ndarray
    scales: np.ndarray
    norms: np.ndarray
    ids: np.ndarray


def stored_chunks(index: Index, rows_at_a_time: int) -> Iterator[Chunk]:
    """Yield all rows in order, the next ones being read while these are used.

    Raises:
      ValueError: ``rows_at_a_time`` is below 1.
    """
    if rows_at_a_time < 1:
        raise ValueError(f"rows_at_a_time={rows_at_a_time}: must be at least 1")
    size = min(rows_at_a_time, index.rows)
    # Those that two readings share, or that one is in: each file is hashed once.
    held = functools.lru_cache(maxsize=2 * len(index.arrays))(
        functools.partial(chunk_of, index)
    )

    def read_from(start: int) -> dict[str, np.ndarray]:
        stop = min(start + size, index.rows)
        numbers = range(start // index.chunk_rows, -(-stop // index.chunk_rows))
        first = start - numbers[0] * index.chunk_rows
        return {
            name: np.concatenate([held(name, number) for number in numbers])[
                first : first + stop - start
            ]
            for name in index.arrays
        }

    starts = list(range(0, index.rows, size)) if size else []
    with ThreadPoolExecutor(max_workers=1) as reader:
        for start, read in zip(starts, ahead(reader, read_from, starts), strict=True):
            yield filled(start, size, read)


def ahead(
    reader: ThreadPoolExecutor, read: Callable[[int], dict], starts: Sequence[int]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield ``read`` of each start, the next one under way."""
    waiting = None
    for start in starts:
        before, waiting = waiting, reader.submit(read, start)
        if before is not None:
            yield before.result()
    if waiting is not None:
        yield waiting.result()


def filled(start: int, size: int, read: dict[str, np.ndarray]) -> Chunk:
    """Return what was read as a chunk of ``size`` rows."""
    count = len(read["ids"])
    read.setdefault("scales", np.zeros((count, 0), np.float32))
    if count < size:
        fill = {"ids": -1}
        read = {
            name: np.pad(
                value,
                [(0, size - count)] + [(0, 0)] * (value.ndim - 1),
                constant_values=fill.get(name, 0),
            )
            for name, value in read.items()
        }
    return Chunk(start, count, **read)


def stored_ids(index: Index) -> np.ndarray:
    """Return the examples' ids in the order of the rows, int32[n]."""
    chunks = range(-(-index.rows // index.chunk_rows))
    found = [chunk_of(index, "ids", number) for number in chunks]
    return np.concatenate([np.zeros(0, np.int32), *found])


def read_rows(index: Index, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the rows at ``positions`` (places, not ids) as float32[n,k]."""
    chosen = np.asarray(positions, np.int64)
    if chosen.size and not (0 <= chosen.min() and chosen.max() < index.rows):
        raise ValueError(
            f"positions run from {chosen.min()} to {chosen.max()}: the index has rows "
            f"0 to {index.rows - 1}"
        )
    numbers, places = np.divmod(chosen, index.chunk_rows)
    read = {
        name: np.zeros((len(chosen), width or 0), jnp.dtype(dtype))
        for name, (dtype, width) in index.arrays.items()
        if name in ("rows", "scales")
    }
    for name, values in read.items():
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = chunk_of(index, name, int(number))[places[here]]
    scales = read.get("scales", np.zeros((len(chosen), 0), np.float32))
    return np.asarray(
        decode(jnp.asarray(read["rows"]), jnp.asarray(scales), index.layout)
    )
