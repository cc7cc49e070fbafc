"""Building an index: resumable after a kill, and open to more rows later."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import provenance
from jaxunlearn.folders import sweep
from jaxunlearn.gradients.projections.projection import (
    Block,
    Matrices,
    Projection,
    check_matrices,
)
from jaxunlearn.influence.index.arrays import (
    check_chunks,
    write_chunk,
    write_headers,
)
from jaxunlearn.influence.index.description import (
    DESCRIPTION,
    MATRICES,
    Index,
    Part,
    check_dtype,
    checked_layout,
    chunk_of,
    read_description,
    refuse_differences,
    save_matrices,
    write_description,
)
from jaxunlearn.influence.index.encoding import encode
from jaxunlearn.influence.index.examples import (
    all_ids,
    chunks,
    compute_rows,
    refuse_repeated,
)
from jaxunlearn.influence.index.reading import stored_ids
from jaxunlearn.journal import foreign
from jaxunlearn.types import Batch

# Compiled once for all builds of a layout.
encode_chunk = jax.jit(encode, static_argnums=(1, 2))


def build_index(
    directory: Path | str,
    row_function: Callable[[Batch], jax.Array],
    batches: Iterable[Batch],
    *,
    model_hash: str,
    data_hash: str,
    projection: Projection,
    layout: Sequence[Block],
    dtype: str = "int8",
    chunk_rows: int = 1024,
    matrices: Matrices | None = None,
    resume: bool = True,
    append: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Compute a row for every example and keep it on disk.

    The same call finishes a build that was stopped: examples whose rows are on disk are
    not computed again, and none is lost or doubled. With ``append`` it adds the rows of
    other examples to a finished index.

    Args:
      directory: Where the index lies or will lie.
      row_function: From a batch to float32[B,k]; jit it. Of rows that are there
        already: ``lambda batch: batch["rows"]``.
      batches: A list of batches, or what can be iterated again, each with ``index``
        int32[B], the examples' ids (-1 = padding, left out). They are gone through once
        for the ids before anything is computed.
      model_hash: ``provenance.params_hash`` of the model.
      data_hash: ``provenance.data_hash`` of the examples.
      projection: How ``row_function`` projects; kept with the rows.
      layout: The layers' places in a row (``row_layout``).
      dtype: ``"int8"`` (a float32 scale for each row and layer), ``"bfloat16"`` or
        ``"float32"``.
      chunk_rows: Rows in memory and in a file; a kill costs at most so many.
      matrices: The matrices of a pca projection, kept with the rows.
      resume: Whether to go on with an index that is there; False refuses it.
      append: Whether to add rows of another data set, under ids of their own.
      about: What else its queries must know, as JSON has it (``layers``, say); kept in
        the index, and an index with another one is refused.
      progress: Called with (rows on disk, rows there will be) after each chunk.

    Returns:
      The finished index.

    Raises:
      ValueError: The directory's index differs in model, data, projection, layers,
        dtype or chunk size; an id comes twice; a row has another width or is not
        finite (the message names the example; earlier chunks stay).
      OSError: The disk is full: finished chunks stay, and the same call goes on.
    """
    check_dtype(dtype)
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows}: must be at least 1")
    check_matrices(projection, matrices)
    wanted = Index(
        Path(directory),
        model_hash,
        (Part(data_hash, 0),),
        projection,
        checked_layout(layout),
        dtype,
        chunk_rows,
        rows=0,
        complete=False,
        versions=provenance.versions(),
        about=dict(about or {}),
    )
    ids = all_ids(batches)
    if (wanted.directory / DESCRIPTION).is_file():
        index = taken_up(wanted, matrices, resume=resume, append=append)
    else:
        index = begun(wanted, matrices)
    held = stored_ids(index)
    start = index.parts[-1].start
    refuse_repeated(np.concatenate([held[:start], ids]), index.directory)
    done = held[start:]
    total = index.rows + int(np.sum(~np.isin(ids, done)))
    if total > index.rows and index.complete:
        index = dataclasses.replace(index, complete=False)
        write_description(index)
    for chunk_ids, chunk in chunks(index, compute_rows(row_function, batches, done)):
        # Of one shape, so that a row's bits do not depend on how many come with it.
        padded = np.zeros((chunk_rows, index.width), np.float32)
        padded[: len(chunk)] = chunk
        stored = encode_chunk(jnp.asarray(padded), index.layout, dtype)
        values = {
            name: np.asarray(value)[: len(chunk)]
            for name, value in stored._asdict().items()
        }
        index = with_rows(index, values | {"ids": chunk_ids})
        if progress is not None:
            progress(index.rows, total)
    if not index.complete:
        write_headers(
            index.directory, index.arrays, rows=index.rows, chunk_rows=chunk_rows
        )
        index = dataclasses.replace(index, complete=True)
        write_description(index)
    return index


def with_rows(index: Index, values: Mapping[str, np.ndarray]) -> Index:
    """Return the index with more rows, which are on the disk; all in one chunk file.

    Raises:
      ValueError: The rows that the file holds already are damaged.
      OSError: The disk is full: the index is what it was.
    """
    number, filled = divmod(index.rows, index.chunk_rows)
    if filled:
        values = {
            name: np.concatenate([chunk_of(index, name, number), new])
            for name, new in values.items()
        }
    try:
        written = write_chunk(
            index.directory, index.arrays, number, values, chunk_rows=index.chunk_rows
        )
        index = dataclasses.replace(
            index,
            rows=number * index.chunk_rows + len(values["ids"]),
            hashes={
                name: (*index.hashes.get(name, ())[:number], digest)
                for name, digest in written.items()
            },
        )
        write_description(index)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}: {index.directory} keeps its first {index.rows} rows: "
            f"make room, and the same call goes on from there",
        ) from error
    return index


def begun(wanted: Index, matrices: Matrices | None) -> Index:
    """Make an empty index; it is one once ``index.json`` stands."""
    wanted.directory.mkdir(parents=True, exist_ok=True)
    if names := foreign(wanted.directory):
        raise ValueError(
            f"{wanted.directory} holds other files ({', '.join(names[:3])}) and no "
            f"index: choose a directory of its own for the index"
        )
    wanted = dataclasses.replace(wanted, hashes=dict.fromkeys(wanted.arrays, ()))
    write_description(wanted)
    if matrices is not None:
        save_matrices(wanted.directory, matrices)
    return wanted


def taken_up(
    wanted: Index, matrices: Matrices | None, *, resume: bool, append: bool
) -> Index:
    """Return the index that is there, with a new part if other data are appended."""
    if not resume:
        raise ValueError(
            f"resume=False, but {wanted.directory} holds an index: choose another "
            f"directory, or delete it"
        )
    index = read_description(wanted.directory)
    same = ("model_hash", "projection", "layout", "dtype", "chunk_rows", "about")
    refuse_differences(
        index,
        {name: getattr(wanted, name) for name in same},
        "go on with the same, or build in another directory",
    )
    check_chunks(
        index.directory, index.arrays, rows=index.rows, chunk_rows=index.chunk_rows
    )
    sweep(index.directory)
    if matrices is not None and not (index.directory / MATRICES).is_file():
        save_matrices(index.directory, matrices)
    if not index.hashes:  # an earlier version's, which stays unchecked this once
        count = -(-index.rows // index.chunk_rows)
        index = dataclasses.replace(
            index,
            hashes={
                name: tuple(
                    hashlib.sha256(chunk_of(index, name, i).tobytes()).hexdigest()
                    for i in range(count)
                )
                for name in index.arrays
            },
        )
    data_hash = wanted.parts[0].data_hash
    if index.parts[-1].data_hash == data_hash:
        return index
    remedy = "build in another directory, or pass append=True to add rows of other data"
    if not index.complete:
        remedy = "finish that build first, with its own data"
    if not append or not index.complete:
        raise ValueError(
            f"{index.directory}: its data_hash is {index.parts[-1].data_hash!r}, not "
            f"{data_hash!r}: {remedy}"
        )
    parts = (*index.parts, Part(data_hash, index.rows))
    index = dataclasses.replace(index, parts=parts, complete=False)
    write_description(index)
    return index
