"""An index on disk: one projected gradient row a training example, ready for queries.

A directory holds ``index.json`` and the arrays of ``arrays.py``. Rows are written
in whole chunks; ``index.json``, replaced after each, says how many count and what their
hashes are, which every reading compares. A build that was killed goes on from there
when it is started again, and the result is the same bit for bit. One builder at a time.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.files import read_arrays, write_arrays
from jaxunlearn.gradients.projections.projection import (
    Block,
    Matrices,
    Projection,
    matrices_hash,
)
from jaxunlearn.influence.index.arrays import (
    ArrayLayout,
    array_layout,
    check_chunks,
    read_chunk,
)
from jaxunlearn.influence.index.encoding import DTYPES
from jaxunlearn.sealed import read_sealed, typed, write_sealed

FORMAT_VERSION = 2
"""Of index.json; the first had no hashes."""

DESCRIPTION = "index.json"
MATRICES = "projection.npz"


class Part(NamedTuple):
    """Rows of one data set."""

    data_hash: str
    start: int  # its first row's number


@dataclasses.dataclass(frozen=True)
class Index:
    """What an index directory holds, as ``index.json`` says it.

    Attributes:
      directory: Where it lies.
      model_hash: Of the parameters whose gradients were projected.
      parts: The data sets, in the order in which they were added.
      projection: How gradients became rows.
      layout: The layers' places in a row.
      dtype: ``"int8"``, ``"bfloat16"`` or ``"float32"``.
      chunk_rows: Rows in a chunk file.
      rows: How many rows count.
      complete: Whether the last build came to its end.
      versions: Of the packages that built it.
      about: What else its queries must know, as the builder noted it.
      hashes: Of each array's rows that count, chunk by chunk; none were written by
        earlier versions.
    """

    directory: Path
    model_hash: str
    parts: tuple[Part, ...]
    projection: Projection
    layout: tuple[Block, ...]
    dtype: str
    chunk_rows: int
    rows: int
    complete: bool
    versions: Mapping[str, str]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hashes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def width(self) -> int:
        """Return k, the numbers in a row."""
        return sum(block.size for block in self.layout)

    @property
    def arrays(self) -> ArrayLayout:
        """Return the arrays' dtypes and widths."""
        return array_layout(self.dtype, self.width, len(self.layout))


def open_index(
    directory: Path | str,
    *,
    model_hash: str | None,
    projection: Projection | None = None,
    layout: Sequence[Block] | None = None,
    allow_partial: bool = False,
) -> Index:
    """Open an index for queries, and refuse one that does not fit them.

    Args:
      directory: The index's directory.
      model_hash: Hash of the model whose queries will be asked; None, to look only,
        compares nothing.
      projection: How the queries are projected; None if by the index's own.
      layout: The queries' layout; None if by the index's own.
      allow_partial: Also open an index whose build has not come to its end.

    Raises:
      FileNotFoundError: There is no index.
      ValueError: Model, projection or layers differ, the build is unfinished, or a file
        is damaged; the message says what to do.
    """
    index = read_description(Path(directory))
    wanted = {
        "model_hash": model_hash,
        "projection": projection,
        "layout": None if layout is None else tuple(layout),
    }
    refuse_differences(
        index,
        {name: value for name, value in wanted.items() if value is not None},
        "query with what it was built with, or build another index",
    )
    if not index.complete and not allow_partial:
        raise ValueError(
            f"{index.directory} holds {index.rows} rows of an unfinished build: run "
            f"build_index again to finish it, or pass allow_partial=True"
        )
    check_chunks(
        index.directory, index.arrays, rows=index.rows, chunk_rows=index.chunk_rows
    )
    return index


def chunk_of(index: Index, name: str, number: int) -> np.ndarray:
    """Return an array's rows of one chunk, those that count.

    Raises:
      ValueError: They are not those that were written.
    """
    start = number * index.chunk_rows
    return read_chunk(
        index.directory,
        index.arrays,
        name,
        number,
        rows=min(index.chunk_rows, index.rows - start),
        expected=index.hashes[name][number] if index.hashes else None,
    )


def refuse_differences(index: Index, wanted: Mapping[str, Any], remedy: str) -> None:
    """Raise a ValueError that lists what of the index is not as wanted."""
    differing = [
        f"{name} is {shown(getattr(index, name))}, not {shown(value)}"
        for name, value in wanted.items()
        if getattr(index, name) != value
    ]
    if differing:
        raise ValueError(f"{index.directory}: its {'; its '.join(differing)}: {remedy}")


def shown(value: Any) -> str:
    """Return a value for an error, a layout in short."""
    if isinstance(value, tuple) and value and isinstance(value[0], Block):
        names = ", ".join(f"{b.layer}[{b.size}]" for b in value[:3])
        return f"{len(value)} layers ({names}{', ...' if len(value) > 3 else ''})"
    return repr(value)


def read_description(directory: Path) -> Index:
    """Read ``index.json``.

    Raises:
      FileNotFoundError: There is none.
      ValueError: It is damaged, or of another format version.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: build an index there first, with build_index or "
            f"`jaxunlearn index build`"
        )
    return read_sealed(
        path,
        lambda found: described(directory, found),
        remedy="restore it, or build the index again in an empty directory",
        unsealed=lambda found: found["format_version"] == 1,
    )


def described(directory: Path, found: dict[str, Any]) -> Index:
    """Return the index that the contents of an ``index.json`` describe.

    Raises:
      ValueError: A field is wrong; names it.
    """
    version = found.pop("format_version", None)
    if version not in (1, FORMAT_VERSION):
        raise ValueError(
            f"it has format_version {version!r}, this version of jaxunlearn reads 1 "
            f"and {FORMAT_VERSION}"
        )
    later = ("hashes", "about") if version == 1 else ()
    index = typed(found | {"directory": str(directory)}, Index, later=later)
    check_dtype(index.dtype)
    checked_layout(index.layout)
    if index.rows < 0 or index.chunk_rows < 1 or not index.parts:
        raise ValueError(
            f"rows={index.rows}, chunk_rows={index.chunk_rows}, parts={index.parts}"
        )
    chunks = -(-index.rows // index.chunk_rows)
    if version == FORMAT_VERSION and {
        name: len(hashes) for name, hashes in index.hashes.items()
    } != dict.fromkeys(index.arrays, chunks):
        raise ValueError(f"hashes are not those of {chunks} chunks of each array")
    return index


def write_description(index: Index) -> None:
    """Replace ``index.json``, on the disk when this returns."""
    held = {"format_version": FORMAT_VERSION} | dataclasses.asdict(index)
    del held["directory"]
    write_sealed(index.directory / DESCRIPTION, held)


def checked_layout(layout: Iterable[Block]) -> tuple[Block, ...]:
    """Return the layout as a tuple, or say where its blocks do not join."""
    blocks = tuple(Block(*block) for block in layout)
    offset = 0
    for block in blocks:
        if block.offset != offset or block.size < 1:
            raise ValueError(f"layout: {block} does not begin at {offset}, or is empty")
        offset += block.size
    if not blocks:
        raise ValueError("layout=(): a row needs at least one block (row_layout)")
    return blocks


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that rows cannot have."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}")


def save_matrices(directory: Path, matrices: Matrices) -> None:
    """Keep a projection's matrices beside the rows."""
    sides = {
        f"{layer}:{side}": np.asarray(matrix, np.float32)
        for layer, pair in matrices.items()
        for side, matrix in zip(("left", "right"), pair, strict=True)
    }
    write_arrays(directory / MATRICES, sides)


def read_matrices(index: Index) -> Matrices | None:
    """Return the matrices of a pca projection, None for one drawn from its seed.

    Raises:
      FileNotFoundError: They are missing.
      ValueError: They are not those that the index names.
    """
    if index.projection.matrices_hash is None:
        return None
    remedy = "restore it, or build the index again in an empty directory"
    held = read_arrays(index.directory / MATRICES, remedy=remedy)
    layers = {name.rpartition(":")[0] for name in held}
    matrices: Any = {
        layer: (held[f"{layer}:left"], held[f"{layer}:right"])
        for layer in layers
        if f"{layer}:left" in held and f"{layer}:right" in held
    }
    if matrices_hash(matrices) != index.projection.matrices_hash:
        raise ValueError(
            f"{index.directory / MATRICES} does not hold the matrices that the index "
            f"was built with: restore it"
        )
    return matrices
