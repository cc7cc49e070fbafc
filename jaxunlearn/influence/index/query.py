"""Queries of an index: every row is read once, a few thousand at a time.

A score is the inner product of a query row with a stored row; positive, training on the
example lowered the query's loss (a proponent).
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.files import write_whole
from jaxunlearn.gradients.projections.projection import Block
from jaxunlearn.influence.index.description import Index
from jaxunlearn.influence.index.encoding import decode
from jaxunlearn.influence.index.reading import stored_chunks
from jaxunlearn.influence.ranking import Extremes, TopK

Precondition = Callable[[np.ndarray], np.ndarray]


@functools.partial(jax.jit, static_argnames=("layout", "cosine"))
def chunk_scores(
    queries: jax.Array,
    rows: jax.Array,
    scales: jax.Array,
    norms: jax.Array,
    *,
    layout: tuple[Block, ...],
    cosine: bool,
) -> jax.Array:
    """Return the scores of one chunk, float32[Q,n]."""
    one = len(queries) == 1
    # On the CPU, XLA takes four times as long for one vector as for two.
    scores = jnp.matmul(
        jnp.repeat(queries, 2, axis=0) if one else queries,
        decode(rows, scales, layout).T,
        precision=jax.lax.Precision.HIGHEST,
    )
    scores = scores[:1] if one else scores
    if cosine:
        lengths = jnp.linalg.norm(queries, axis=1)[:, None] * norms
        scores = scores / jnp.where(lengths == 0, 1.0, lengths)
    return scores


@jax.jit
def merged(best: TopK, scores: jax.Array, ids: jax.Array) -> TopK:
    """Return the k best of those so far and a chunk's; of equals the earlier row."""
    k = best.scores.shape[1]
    scores = jnp.where(ids < 0, -jnp.inf, scores)
    # First within the chunk, so that only 2k are ordered together.
    found, places = jax.lax.top_k(scores, min(k, scores.shape[1]))
    both = jnp.concatenate([best.scores, found], axis=1)
    labels = jnp.concatenate([best.ids, ids[places]], axis=1)
    kept, places = jax.lax.top_k(both, k)
    return TopK(kept, jnp.take_along_axis(labels, places, axis=1))


def top_k(
    index: Index,
    queries: np.ndarray,
    *,
    k: int,
    preconditioner: Precondition | None = None,
    cosine: bool = False,
    rows_at_a_time: int = 1024,
) -> Extremes:
    """Return each query's k strongest proponents and opponents.

    ``score[q,i] = <A query_q, row_i>``, A the preconditioner.

    Args:
      index: An opened index.
      queries: Query rows float32[Q,k'], projected as the index's rows are.
      k: How many of each.
      preconditioner: Applied once to the queries, such as ``damped_inverse``; None
        leaves them as they are.
      cosine: Divide each score by the lengths of the (preconditioned) query and row.
      rows_at_a_time: Rows in memory; the result does not depend on it.

    Raises:
      ValueError: k is not between 1 and the number of rows, or the queries have another
        width or are not finite.

    Cost: one reading of the index and 2nQk' flops.
    """
    if not 1 <= k <= index.rows:
        raise ValueError(f"k={k}: must be between 1 and the index's {index.rows} rows")
    asked = prepared(index, queries, preconditioner)
    shape = (len(asked), k)
    nothing = TopK(jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32))
    best = worst = nothing
    for chunk in stored_chunks(index, rows_at_a_time):
        scores = chunk_scores(
            asked,
            chunk.rows,
            chunk.scales,
            chunk.norms,
            layout=index.layout,
            cosine=cosine,
        )
        best, worst = (
            merged(best, scores, chunk.ids),
            merged(worst, -scores, chunk.ids),
        )
    return Extremes(
        TopK(np.asarray(best.scores), np.asarray(best.ids)),
        TopK(-np.asarray(worst.scores), np.asarray(worst.ids)),
    )


def all_scores(
    index: Index,
    queries: np.ndarray,
    *,
    path: Path | str | None = None,
    preconditioner: Precondition | None = None,
    cosine: bool = False,
    rows_at_a_time: int = 1024,
) -> np.ndarray:
    """Return the scores of all rows, float32[Q,n], in the order of ``stored_ids``.

    Args:
      index: An opened index.
      queries: Query rows float32[Q,k], projected as the index's rows are.
      path: A ``.npy`` file to write them to, for more than fit in memory; it is then
        returned mapped, not read.
      preconditioner: As in ``top_k``.
      cosine: As in ``top_k``.
      rows_at_a_time: As in ``top_k``.

    Raises:
      ValueError: The queries have another width or are not finite.
    """
    asked = prepared(index, queries, preconditioner)
    shape = (len(asked), index.rows)

    def fill(scores: np.ndarray) -> None:
        for chunk in stored_chunks(index, rows_at_a_time):
            found = chunk_scores(
                asked,
                chunk.rows,
                chunk.scales,
                chunk.norms,
                layout=index.layout,
                cosine=cosine,
            )
            stop = chunk.start + chunk.count
            scores[:, chunk.start : stop] = np.asarray(found)[:, : chunk.count]

    if path is None:
        scores = np.empty(shape, np.float32)
        fill(scores)
        return scores

    def write(temporary: Path) -> None:
        mapped = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=shape
        )
        fill(mapped)
        mapped.flush()

    write_whole(path, write)
    return np.load(path, mmap_mode="r")


def prepared(
    index: Index, queries: np.ndarray, preconditioner: Precondition | None
) -> jax.Array:
    """Return checked and preconditioned queries."""
    queries = np.asarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != index.width:
        raise ValueError(
            f"queries have shape {queries.shape}, expected [Q, {index.width}]: project "
            f"them by the index's own projection and layers"
        )
    if preconditioner is not None:
        queries = np.asarray(preconditioner(queries), np.float32)
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"queries: row {int(np.argmin(finite))} is not finite"
            + (" after the preconditioner" if preconditioner is not None else "")
        )
    return jnp.asarray(queries)
