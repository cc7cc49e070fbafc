"""From batches to the rows of an index: ids checked, rows computed, chunks filled."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxunlearn.influence.index.description import Index
from jaxunlearn.types import Batch


def all_ids(batches: Iterable[Batch]) -> np.ndarray:
    """Return the ids of all examples, or say why the batches will not do."""
    if iter(batches) is batches:
        raise ValueError(
            "batches can be iterated only once: give a list, or an object whose "
            "__iter__ begins anew"
        )
    found = [np.zeros(0, np.int32)]
    for batch in batches:
        if "index" not in batch:
            raise ValueError(
                f"batches: a batch has only {', '.join(batch)}: add index int32[B], "
                f"the examples' ids (-1 = padding)"
            )
        ids = np.asarray(batch["index"], np.int32)
        found.append(ids[ids >= 0])
    ids = np.concatenate(found)
    if not len(ids):
        raise ValueError("batches hold no example: no index is 0 or above")
    return ids


def refuse_repeated(ids: np.ndarray, directory: Path) -> None:
    """Refuse ids that are there twice."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"index: {int((counts > 1).sum())} ids come twice or are in {directory} "
            f"already, such as {values[counts > 1][:3].tolist()}: give every example "
            f"an id of its own"
        )


def compute_rows(
    row_function: Callable[[Batch], jax.Array],
    batches: Iterable[Batch],
    done: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the ids and rows of examples that are not done, one batch behind.

    So the device works on a batch while the one before is fetched and written.
    """

    def fetched(
        ids: np.ndarray, new: np.ndarray, rows: jax.Array
    ) -> tuple[np.ndarray, np.ndarray]:
        found = np.asarray(rows, np.float32)
        if found.ndim != 2 or len(found) != len(ids):
            raise ValueError(
                f"row_function returned shape {found.shape} for a batch of {len(ids)}: "
                f"expected one row an example, [{len(ids)}, k]"
            )
        return ids[new], found[new]

    waiting = None
    for batch in batches:
        ids = np.asarray(batch["index"], np.int32)
        new = (ids >= 0) & ~np.isin(ids, done)
        if not new.any():
            continue
        behind, waiting = waiting, (ids, new, row_function(batch))
        if behind is not None:
            yield fetched(*behind)
    if waiting is not None:
        yield fetched(*waiting)


def chunks(
    index: Index, examples: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows so that every chunk file but the last is filled at once.

    Raises:
      ValueError: A row has another width than the layout, or is not finite.
    """
    ids = np.zeros(0, np.int32)
    rows = np.zeros((0, index.width), np.float32)
    room = index.chunk_rows - index.rows % index.chunk_rows
    for new_ids, new in examples:
        if new.shape[1] != index.width:
            raise ValueError(
                f"row_function returned rows of {new.shape[1]} numbers, the layout has "
                f"{index.width}: take both from one projection and one set of shapes"
            )
        finite = np.isfinite(new).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"the row of example {new_ids[~finite][0]} is not finite (of "
                f"{(~finite).sum()} in its batch): look at its loss and gradient, or "
                f"leave it out"
            )
        ids, rows = np.concatenate([ids, new_ids]), np.concatenate([rows, new])
        while len(ids) >= room:
            yield ids[:room], rows[:room]
            ids, rows = ids[room:], rows[room:]
            room = index.chunk_rows
    if len(ids):
        yield ids, rows
