"""How rows of an index are kept: as float32, bfloat16, or int8 with scales.

In int8 each layer's block of a row has a scale of its own, so that a layer with small
gradients keeps as many digits as one with large ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.projections.projection import Block

DTYPES = ("int8", "bfloat16", "float32")
LEVELS = 127


class EncodedRows(NamedTuple):
    """Rows as they lie on disk."""

    rows: jax.Array  # [n,k] in the index's dtype
    scales: jax.Array  # float32[n,layers] for int8, else [n,0]
    norms: jax.Array  # float32[n], of the rows as they are read back


class Run(NamedTuple):
    """Neighbouring blocks of one size, which are handled as one array."""

    entry: int  # where it starts in a row
    block: int  # its first block's number
    count: int
    size: int


def runs(layout: Sequence[Block]) -> list[Run]:
    """Return the layout as runs of blocks of equal size."""
    found: list[Run] = []
    for number, (_, offset, size) in enumerate(layout):
        if found and found[-1].size == size:
            found[-1] = found[-1]._replace(count=found[-1].count + 1)
        else:
            found.append(Run(offset, number, 1, size))
    return found


def blocks_of(rows: jax.Array, run: Run) -> jax.Array:
    """Return a run's part of the rows, [n,count,size]."""
    part = rows[:, run.entry : run.entry + run.count * run.size]
    return part.reshape(rows.shape[0], run.count, run.size)


def quantised(blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Round blocks to int8 with one scale each: ``q = round(127 x / max |x|)``.

    The range ends at the largest entry. A range clipped for the least squared error
    was tried on normal to Student-t(2) entries in blocks of 256: clipping never won.

    Args:
      blocks: float32[...,size].

    Returns:
      int8[...,size] and float32[...]; a block of zeros has scale 0.
    """
    scales = jnp.abs(blocks).max(axis=-1) / LEVELS
    steps = jnp.where(scales == 0, 1.0, scales)[..., None]
    # Of a subnormal scale the quotient can pass 127.
    rounded = jnp.clip(jnp.round(blocks / steps), -LEVELS, LEVELS)
    return rounded.astype(jnp.int8), scales


def encode(rows: jax.Array, layout: Sequence[Block], dtype: str) -> EncodedRows:
    """Return rows as they are stored.

    Args:
      rows: float32[n,k].
      layout: The layers' places in a row.
      dtype: ``"int8"``, ``"bfloat16"`` or ``"float32"``.
    """
    count = rows.shape[0]
    if dtype == "int8":
        parts = [quantised(blocks_of(rows, run)) for run in runs(layout)]
        stored = jnp.concatenate([q.reshape(count, -1) for q, _ in parts], axis=1)
        scales = jnp.concatenate([scale for _, scale in parts], axis=1)
    else:
        stored, scales = rows.astype(dtype), jnp.zeros((count, 0), jnp.float32)
    read = decode(stored, scales, layout)
    return EncodedRows(stored, scales, jnp.sqrt(jnp.sum(read * read, axis=1)))


def decode(rows: jax.Array, scales: jax.Array, layout: Sequence[Block]) -> jax.Array:
    """Return stored rows as float32[n,k]."""
    if rows.dtype != jnp.int8:
        return rows.astype(jnp.float32)
    parts = [
        blocks_of(rows, run).astype(jnp.float32)
        * scales[:, run.block : run.block + run.count, None]
        for run in runs(layout)
    ]
    return jnp.concatenate([p.reshape(rows.shape[0], -1) for p in parts], axis=1)


def rank_agreement(
    rows: np.ndarray,
    queries: np.ndarray,
    layout: Sequence[Block],
    *,
    dtype: str = "int8",
) -> np.ndarray:
    """Return what storing costs: Spearman's correlation of each query's scores.

    Between the scores ``queries @ rows.T`` of float32 rows and of rows stored as
    ``dtype``: try it on a sample of real rows before a large build.

    Args:
      rows: float32[n,k].
      queries: float32[Q,k].
      layout: The layers' places in a row.
      dtype: How the rows would be stored.

    Returns:
      float64[Q].

    >>> rng = np.random.default_rng(0)
    >>> rows, layout = rng.normal(size=(99, 64)), [Block("all", 0, 64)]
    >>> bool(rank_agreement(rows, rows[:2], layout).min() > 0.99)
    True
    """
    from scipy.stats import spearmanr

    rows = np.asarray(rows, np.float32)
    stored = encode(jnp.asarray(rows), layout, dtype)
    read = np.asarray(decode(stored.rows, stored.scales, layout))
    exact, rounded = queries @ rows.T, queries @ read.T
    pairs = zip(exact, rounded, strict=True)
    return np.array([spearmanr(a, b).statistic for a, b in pairs])
