"""Influence scores by EK-FAC from one pass over the data.

Every layer's inputs and output gradients are kept from one forward and backward pass
over training and query examples. Then layer by layer: moments, eigenvectors, tokens
rotated into the eigenbasis, and there both Lambda and the scores; nothing is rotated
back, and no second pass is made.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.arguments import layer_loss, stacked_folders
from jaxunlearn.gradients.batching import example_count, with_weight
from jaxunlearn.gradients.gradient_inner_products import products_with
from jaxunlearn.gradients.kronecker.cache import (
    CACHE_BYTES,
    MOST_PASSES,
    Kept,
    Piece,
    Work,
    collect,
    groups_of,
)
from jaxunlearn.gradients.kronecker.fit import LARGEST_FACTOR, fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import (
    MEAN_EIGENVALUE,
    Damping,
    added_to,
    as_rule,
    damping_of,
    kronecker_inverse_vp,
)
from jaxunlearn.gradients.kronecker.layout import Matrix, layer_name
from jaxunlearn.gradients.kronecker.one_layer import (
    Form,
    add_moments,
    add_squares,
    kept_products,
    layer_basis,
    layer_products,
    no_moments,
    no_squares,
)
from jaxunlearn.gradients.kronecker.sums import parts_of
from jaxunlearn.gradients.per_example import per_example_gradients
from jaxunlearn.gradients.taps.heads import HeadProducts
from jaxunlearn.tree import cast, named_leaves
from jaxunlearn.types import Batch, Params, PerExampleLoss

ROTATED_BYTES = 2**28
"""Most memory for the rotated gradients of one layer, kept until Lambda is known."""


class EkfacScores(NamedTuple):
    """Scores, and what they were made with.

    Attributes:
      scores: ``g_q^T (F + damping I)^-1 g_i``, float32[Q,n]: positive if training on
        example i lowered the loss of q.
      damping: Layer -> what was added to its eigenvalues.
      by_layer: Layer -> its part of the scores, float32[Q,n]; None if not asked for.
      passes: How often the data was read.
    """

    scores: np.ndarray
    damping: dict[str, float]
    by_layer: dict[str, np.ndarray] | None
    passes: int


def ekfac_scores(
    loss: PerExampleLoss,
    params: Params,
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch],
    *,
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
    damping: float | Damping = MEAN_EIGENVALUE,
    largest_factor: int = LARGEST_FACTOR,
    cache_bytes: int = CACHE_BYTES,
    cache_dtype: str = "float32",
    by_layer: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EkfacScores:
    """Return every training example's influence on every query, by EK-FAC.

    The Fisher matrix is the empirical one of ``train``. The result is that of
    ``fit_ekfac``, ``kronecker_inverse_vp`` and ``products_with``, in one pass over the
    data if the inputs and output gradients of all layers fit in ``cache_bytes``; else
    in a pass for each group of layers that does; and if that were more than three,
    by these functions.

    Args:
      loss: Per-example loss of the training examples.
      params: The point; differentiated as its float32 copy.
      train: n examples, a batch or batches of one shape that can be iterated again;
        ``weight``, where present, weighs them in the Fisher matrix (padding: 0).
      query: Q examples. Nothing is compiled again if their batches have the shape of
        the training ones.
      query_loss: Per-example loss of the queries; None is ``loss``.
      layers: Expression of the leaves to cover; None is all.
      batch_size: Examples in the forward and backward pass at a time, where ``train``
        or ``query`` is one batch; the result does not depend on it.
      damping: A number, or a rule.
      largest_factor: Axes longer than this take the identity as their basis.
      cache_bytes: Most memory for what is kept of a pass.
      cache_dtype: ``"float32"``, or ``"bfloat16"`` at half the memory.
      by_layer: Whether to return each layer's part of the scores.
      progress: Called with (steps done, steps in all): batches and layers.

    Returns:
      Scores; rows for padding in ``train`` or ``query`` given as batches are kept.

    Raises:
      ValueError: An option is none of the above; or ``by_layer`` where ``cache_bytes``
        is too small for three passes.

    Cost: a pass without weight gradients, ``T(3L^2 + 3R^2 + 2LR)`` flops an example and
    layer, and eigenvectors. A driver: it compiles, and loops in Python.
    """
    if cache_dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f'cache_dtype={cache_dtype!r}: must be "float32" or "bfloat16"'
        )
    params = cast(params, jnp.float32)
    work = Work(
        layer_loss(loss, layers),
        layer_loss(query_loss or loss, layers),
        cache_dtype,
        largest_factor,
        as_rule(damping),
    )
    data = parts_of(train, batch_size), parts_of(query, batch_size)
    groups = groups_of(work, params, data, cache_bytes)
    if groups is None or len(groups) > MOST_PASSES:
        if by_layer:
            raise ValueError(
                f"by_layer: the layers' inputs and output gradients do not fit in "
                f"cache_bytes={cache_bytes} even in {MOST_PASSES} passes: raise it, or "
                f"score layer by layer with layers="
            )
        found = streamed(work, params, train, data[1], batch_size, progress)
    else:
        found = cached(work, params, groups, data, by_layer, progress)
    # Single batches were filled up to whole microbatches.
    q, n = (
        example_count(whole) if isinstance(whole, Mapping) else None
        for whole in (query, train)
    )
    return found._replace(
        scores=found.scores[:q, :n],
        by_layer=found.by_layer
        and {name: part[:q, :n] for name, part in found.by_layer.items()},
    )


def cached(
    work: Work,
    params: Params,
    groups: list[tuple[Piece, ...]],
    data: tuple,
    by_layer: bool,
    progress: Callable[[int, int], None] | None,
) -> EkfacScores:
    """Return the scores in one pass over the data for each group of layers."""
    leaves = dict(named_leaves(params))
    stacked = stacked_folders(work.train.loss, params)
    total, parts_of_scores, dampings = None, {}, {}
    steps = sum(len(piece.chosen) for group in groups for piece in group)
    done = 0
    for group in groups:
        sides = []
        for target, parts in zip((work.train, work.query), data, strict=True):
            kept, weights = [], []
            for part in parts:
                part = with_weight(dict(part))
                # Waiting bounds the memory to one backward pass at a time.
                found = collect(target, group, work.dtype, params, part)
                kept.append(jax.block_until_ready(found))
                weights.append(part["weight"])
            sides.append((kept, weights))
        for number, piece in enumerate(group):
            own = [[part[number] for part in kept] for kept, _ in sides]
            head = None
            if any(isinstance(part, HeadProducts) for part in own[0][0]):
                head = leaves[piece.matrix.leaves[0]]
            for place, layer in enumerate(piece.chosen):
                scores, added = layer_scores(
                    work, piece.matrix, place, own[0], sides[0][1], own[1], head
                )
                name = layer_name(piece.matrix, layer, stacked)
                dampings[name] = added
                total = scores if total is None else total + scores
                if by_layer:
                    parts_of_scores[name] = scores
                done += 1
                if progress is not None:
                    progress(done, steps)
            # Nothing else holds what was kept of these layers.
            del own
            for kept, _ in sides:
                for part in kept:
                    part[number] = None
    return EkfacScores(
        total, dampings, parts_of_scores if by_layer else None, len(groups)
    )


def layer_scores(
    work: Work,
    matrix: Matrix,
    layer: int,
    train: list[Kept],
    weights: list[jax.Array],
    query: list[Kept],
    head: jax.Array | None,
) -> tuple[np.ndarray, float]:
    """Return a layer's part of the scores, float32[Q,n], and its damping."""
    form = Form(matrix.rows, matrix.columns, matrix.has_bias)
    parts = list(zip(train, weights, strict=True))
    sums = no_moments(form, work.largest, train[0], layer, weights[0], head)
    for kept, weight in parts:
        sums = add_moments(form, work.largest, sums, kept, layer, weight, head)
    basis = layer_basis(sums)
    keep = 4 * sum(map(len, weights)) * form.rows * form.columns <= ROTATED_BYTES
    nothing = squares = no_squares(form, train[0])
    rotated = []
    for kept, weight in parts:
        squares, own = add_squares(
            form, keep, squares, kept, layer, weight, head, basis
        )
        rotated.append(own)
    total = sum(float(np.sum(np.asarray(weight))) for weight in weights)
    eigenvalues = np.asarray(squares) / (total or 1.0)
    added = added_to(eigenvalues, work.damping)
    damped = eigenvalues + added
    rows = []
    for some in query:
        ones = np.ones(jax.tree.leaves(some)[0].shape[1], np.float32)
        _, own = add_squares(form, True, nothing, some, layer, ones, head, basis)
        columns = [
            layer_products(form, own, damped, kept, layer, head, basis)
            if there is None
            else kept_products(own, there, damped)
            for kept, there in zip(train, rotated, strict=True)
        ]
        rows.append(np.concatenate([np.asarray(x) for x in columns], axis=1))
    return np.concatenate(rows), float(added[0, 0])


def streamed(
    work: Work,
    params: Params,
    train: Batch | Iterable[Batch],
    query: Iterable[Batch],
    batch_size: int | None,
    progress: Callable[[int, int], None] | None,
) -> EkfacScores:
    """Return the scores with nothing kept: two passes that fit, one that scores."""
    loss, layers = work.train.loss, work.train.layers
    stacked = stacked_folders(loss, params)
    parts = parts_of(train, batch_size)
    factors = fit_ekfac(
        loss,
        params,
        parts,
        layers=layers,
        largest_factor=work.largest,
        progress=progress,
    )
    rows = []
    for part in query:
        # As batches, which are compiled.
        own = per_example_gradients(work.query.loss, params, [part], layers=layers)
        solved = kronecker_inverse_vp(factors, own, damping=work.damping)
        rows.append(products_with(loss, params, parts, solved, layers=layers))
    added = damping_of(factors, work.damping)
    dampings = {
        layer_name(matrix, layer, stacked): float(jnp.ravel(added[matrix.name])[layer])
        for matrix in factors.matrices
        for layer in matrix.chosen
    }
    scores = np.concatenate([np.asarray(row) for row in rows])
    return EkfacScores(scores, dampings, None, MOST_PASSES)
