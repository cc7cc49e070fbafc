"""What EK-FAC scores keep of a pass over the data: inputs and output gradients."""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.arguments import LayerLoss, layer_loss
from jaxunlearn.gradients.kronecker.inverse import MEAN_EIGENVALUE, Damping
from jaxunlearn.gradients.kronecker.layout import Matrix
from jaxunlearn.gradients.kronecker.sums import first_batch, matrices_at
from jaxunlearn.gradients.taps.heads import HeadProducts, without_matrix
from jaxunlearn.gradients.taps.outer_products import OuterProducts
from jaxunlearn.gradients.taps.statistics import layer_taps
from jaxunlearn.tree import cast
from jaxunlearn.types import Batch, Params, PerExampleLoss

CACHE_BYTES = 2**30
"""Most memory for what is kept of a pass, unless told otherwise."""

MOST_PASSES = 3
"""Beyond, fitting (two passes) and then scoring (one) is cheaper."""

Kept = tuple[OuterProducts | HeadProducts, ...]


class Piece(NamedTuple):
    """Layers of a matrix whose products are kept together."""

    matrix: Matrix
    chosen: tuple[int, ...]  # of the flat stack


class Work(NamedTuple):
    """The options of a run."""

    train: LayerLoss
    query: LayerLoss
    dtype: str
    largest: int
    damping: Damping


def groups_of(
    work: Work, params: Params, data: tuple, cache_bytes: int
) -> list[tuple[Piece, ...]] | None:
    """Return which layers to keep in each pass; None if one alone is too large."""
    first = first_batch(data[0])
    matrices = matrices_at(work.train.loss, params, first, work.train.layers)
    whole = tuple(Piece(matrix, matrix.chosen) for matrix in matrices)
    kept = jax.eval_shape(
        lambda p, b: collect(work.train, whole, work.dtype, p, b), params, first
    )
    parts = sum(1 for some in data for _ in some)
    groups: list[list[Piece]] = [[]]
    room = cache_bytes
    for piece, shapes in zip(whole, kept, strict=True):
        size = sum(
            math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes)
        )
        size = parts * size // len(piece.chosen)
        if size > cache_bytes:
            return None
        for layer in piece.chosen:
            if size > room:
                groups.append([])
                room = cache_bytes
            room -= size
            last = groups[-1][-1] if groups[-1] else None
            if last is not None and last.matrix is piece.matrix:
                groups[-1][-1] = last._replace(chosen=(*last.chosen, layer))
            else:
                groups[-1].append(Piece(piece.matrix, (layer,)))
    return [tuple(group) for group in groups]


def fits_in_memory(
    loss: PerExampleLoss,
    params: Params,
    train: Iterable[Batch],
    query: Iterable[Batch],
    *,
    layers: str | None = None,
) -> bool:
    """Return whether EK-FAC scores of these batches take few passes over the data.

    Then all that is kept of a pass lies in ``CACHE_BYTES``, and the scores cost little
    more than the gradients: there are no parts that would be worth a file.
    """
    target = layer_loss(loss, layers)
    work = Work(target, target, "float32", 0, MEAN_EIGENVALUE)
    groups = groups_of(work, cast(params, jnp.float32), (train, query), CACHE_BYTES)
    return groups is not None and len(groups) <= MOST_PASSES


@functools.partial(jax.jit, static_argnums=(1, 2))
def collect(
    target: LayerLoss,
    pieces: tuple[Piece, ...],
    dtype: str,
    params: Params,
    batch: Batch,
) -> list[Kept]:
    """Return the products of each piece, [layers,B,T,...], in one backward pass."""
    taps = layer_taps(target.loss, params, batch, layers=target.layers)

    def keep(piece: Piece, part: OuterProducts | HeadProducts):
        # Its matrix is a parameter: no need for a copy a batch.
        part = without_matrix(part)

        def rows(x: jax.Array) -> jax.Array:
            stack = len(piece.matrix.stack)
            x = x.reshape(-1, *x.shape[stack:])
            if len(piece.chosen) < len(x):
                x = x[jnp.array(piece.chosen)]
            return x

        return cast(jax.tree.map(rows, part), dtype)

    # The bias sees what its kernel sees.
    return [
        tuple(keep(piece, part) for part in taps.products[piece.matrix.leaves[0]])
        for piece in pieces
    ]
