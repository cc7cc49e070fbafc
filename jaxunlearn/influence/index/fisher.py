"""The empirical Fisher of an index's rows, and its damped inverse for queries."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.projections.projection import Block
from jaxunlearn.influence.index.description import Index
from jaxunlearn.influence.index.encoding import blocks_of, decode, runs
from jaxunlearn.influence.index.query import Precondition
from jaxunlearn.influence.index.reading import stored_chunks


@functools.partial(jax.jit, static_argnames=("layout",))
def added_products(
    totals: list[jax.Array],
    rows: jax.Array,
    scales: jax.Array,
    *,
    layout: tuple[Block, ...],
) -> list[jax.Array]:
    """Return ``totals`` plus each block's ``rows^T rows``, run by run [count,s,s]."""
    read = decode(rows, scales, layout)
    return [
        total
        + jnp.einsum(
            "ncs,nct->cst",
            blocks_of(read, run),
            blocks_of(read, run),
            precision=jax.lax.Precision.HIGHEST,
        )
        for total, run in zip(totals, runs(layout), strict=True)
    ]


def projected_fisher(
    index: Index, *, rows_at_a_time: int = 1024
) -> dict[str, np.ndarray]:
    """Return the empirical Fisher in the projected space, one block a layer.

    ``F = sum_i row_i row_i^T / n`` within each layer's block; 0 between layers.

    Args:
      index: An opened index.
      rows_at_a_time: Rows in memory; the result does not depend on it.

    Returns:
      Layer to float32[size,size].

    Cost: one reading of the index and 2n times the sum of the blocks' squared sizes.
    """
    totals = [
        jnp.zeros((run.count, run.size, run.size), jnp.float32)
        for run in runs(index.layout)
    ]
    for chunk in stored_chunks(index, rows_at_a_time):
        totals = added_products(totals, chunk.rows, chunk.scales, layout=index.layout)
    blocks = [block for total in totals for block in np.asarray(total) / index.rows]
    return {
        block.layer: fisher for block, fisher in zip(index.layout, blocks, strict=True)
    }


def damped_inverse(
    fisher: Mapping[str, np.ndarray],
    *,
    damping: float | None = None,
    share: float | None = None,
) -> Precondition:
    """Return the map of query rows by ``(F + damping I)^-1``, layer by layer.

    Args:
      fisher: Each layer's block, in the order of the index (``projected_fisher``).
      damping: The same for every layer; or
      share: the layer's damping as a share of its mean eigenvalue (0.1 is usual).

    Returns:
      From rows [Q,k] to rows [Q,k]. A layer whose Fisher is 0 gives 0 under ``share``:
      all its rows are 0.

    Raises:
      ValueError: Not exactly one of ``damping`` and ``share`` is given, it is negative,
        or a layer's matrix cannot be factored.
    """
    from scipy.linalg import cho_factor, cho_solve

    if (damping is None) == (share is None):
        raise ValueError(
            f"damping={damping}, share={share}: give one of them, such as share=0.1"
        )
    amount = damping if share is None else share
    if not amount >= 0:
        raise ValueError(f"damping={damping}, share={share}: must not be negative")
    factors = []
    for layer, block in fisher.items():
        matrix = np.asarray(block, np.float64)
        added = amount if share is None else share * np.trace(matrix) / len(matrix)
        if share is not None and not matrix.any():
            factors.append(None)
            continue
        try:
            factors.append(cho_factor(matrix + added * np.eye(len(matrix))))
        except (np.linalg.LinAlgError, ValueError) as error:
            raise ValueError(
                f"the Fisher block of {layer} plus a damping of {added:.3g} cannot be "
                f"inverted ({error}): raise the damping"
            ) from error
    sizes = [len(block) for block in fisher.values()]

    def precondition(rows: np.ndarray) -> np.ndarray:
        parts = np.split(np.asarray(rows, np.float64), np.cumsum(sizes)[:-1], axis=1)
        solved = [
            np.zeros_like(part) if factor is None else cho_solve(factor, part.T).T
            for factor, part in zip(factors, parts, strict=True)
        ]
        return np.concatenate(solved, axis=1).astype(np.float32)

    return precondition
