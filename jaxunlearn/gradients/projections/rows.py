"""Projected gradients: one short row an example, formed inside the backward pass."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import (
    LayerLoss,
    layer_loss,
    masks,
    stacked_folders,
)
from jaxunlearn.gradients.batching import rows_of
from jaxunlearn.gradients.per_example import per_example_gradients
from jaxunlearn.gradients.projections.kronecker_pairs import (
    Block,
    Matrices,
    kronecker_matrices,
    stack_matrices,
)
from jaxunlearn.gradients.projections.projection import Projection, project, row_layout
from jaxunlearn.gradients.taps import outer_products
from jaxunlearn.gradients.taps.plans import Statistic, View, prepare
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.randomness import random_key
from jaxunlearn.types import Batch, Params, PerExampleLoss

PROJECTIONS = Statistic(
    lambda products, weight, rows, pair: outer_products.projections(products, *pair),
    linear=True,
    summed=False,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ProjectedBy:
    """A projection, where arguments of compiled programs are trees."""

    projection: Projection


def projected_gradients(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    projection: Projection,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
    matrices: Matrices | None = None,
) -> jax.Array:
    """Return each example's gradient, projected to k numbers, float32[B,k].

    Kronecker projections (LoGra, Choe et al., What is your data worth to GPT?, 2024)
    are taken of each layer's inputs and output gradients where the backward pass
    stands: no weight gradient is formed. The others form each example's gradient.

    Args:
      loss: Per-example loss.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      projection: The projection.
      layers: Expression of the leaves; None is all.
      batch_size: Examples in the backward pass at a time.
      matrices: (P_L, P_R) of each layer, for a pca projection.

    Returns:
      Rows laid out as :func:`gradient_row_layout` says.

    Cost: a forward and backward pass without weight gradients (Kronecker).
    """
    params = tree.cast(params, jnp.float32)
    function = kronecker_rows if projection.kind == "kronecker" else whole_rows
    rows = Partial(
        Partial(function, layer_loss(loss, layers), ProjectedBy(projection)),
        params,
        dict(matrices or {}),
    )
    return rows_of(rows, batch_or_batches, batch_size=batch_size)


def gradient_row_layout(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    projection: Projection,
    *,
    layers: str | None = None,
) -> tuple[Block, ...]:
    """Return where each layer's numbers stand in a row of :func:`projected_gradients`.

    Only shapes are computed with; ``batch`` is any batch.
    """
    if projection.kind != "kronecker":
        return row_layout(projection)
    views: dict[str, View] = {}

    def trace(params: Params, batch: Batch) -> None:
        views.update(prepare(loss, params, batch, layers).views)

    jax.eval_shape(trace, params, dict(batch))
    return row_layout(
        projection, shapes_of(views), stacked=stacked_folders(loss, params)
    )


def shapes_of(views: dict[str, View]) -> dict[str, tuple[int, ...]]:
    """Return the matrix shapes that a projection asks for."""
    for name, view in views.items():
        if len(view.stack) > 1:
            raise ValueError(
                f"{name} is stacked over {view.stack}: rows take one stacked axis; "
                f"leave it out by layers="
            )
    return {
        name: (*view.stack, view.rows, view.columns) for name, view in views.items()
    }


def kronecker_rows(
    target: LayerLoss, by: ProjectedBy, params: Params, matrices: dict, batch: Batch
) -> jax.Array:
    """Return the rows of a batch, layer by layer."""
    projection = by.projection

    def pairs(views: dict[str, View]) -> dict:
        shapes = shapes_of(views)
        stacked = stacked_folders(target.loss, params)
        if projection.distribution == "pca":
            return stack_matrices(shapes, matrices, stacked=stacked)
        return kronecker_matrices(
            shapes,
            projection.dimensions,
            key=random_key(projection.seed),
            distribution=projection.distribution,
            stacked=stacked,
        )

    found, views = layer_statistics(
        target.loss, params, batch, PROJECTIONS, extra=pairs, layers=target.layers
    )
    kept = masks(target.loss, params, target.layers)
    rows = []
    for name in sorted(found):
        small = jnp.moveaxis(found[name], len(views[name].stack), 0)
        if views[name].stack:
            # Layers of the stack that are not selected keep their place, as zeros.
            layer = jnp.asarray(kept[name], jnp.float32).reshape(-1, 1, 1)
            small = small * layer
        rows.append(small.reshape(small.shape[0], -1))
    return jnp.concatenate(rows, axis=1)


def whole_rows(
    target: LayerLoss, by: ProjectedBy, params: Params, matrices: dict, batch: Batch
) -> jax.Array:
    """Return the rows of a batch, each of an example's whole gradient."""
    del matrices
    gradients = per_example_gradients(target.loss, params, batch, layers=target.layers)
    return project(by.projection, gradients)
