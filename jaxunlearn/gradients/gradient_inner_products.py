"""Inner products of per-example gradients with each other, and with given ones."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import (
    LayerLoss,
    layer_loss,
    masks,
    stacked_folders,
)
from jaxunlearn.gradients.batching import example_count, rows_of
from jaxunlearn.gradients.per_example import (
    GRADIENTS,
    per_example_gradients,
    total,
)
from jaxunlearn.gradients.taps import outer_products
from jaxunlearn.gradients.taps.plans import Statistic, View
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.types import Batch, Params, PerExampleLoss

PRODUCTS = Statistic(
    lambda products, weight, rows, directions: outer_products.inner_products(
        products, directions
    ),
    linear=True,
    summed=False,
    lead=1,
)
TOKEN_PRODUCTS = Statistic(
    lambda products, weight, rows, directions: outer_products.token_products(
        products, directions
    ),
    linear=True,
    summed=False,
    lead=1,
)


def gradient_products(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    queries: Batch,
    *,
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return ``<grad l_q, grad l_i>`` of Q queries with every example, float32[Q,B].

    The queries' gradients are held; the examples' gradients of a layer are formed where
    the backward pass stands, multiplied and dropped.

    Args:
      loss: Per-example loss of the examples.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      queries: A batch of Q examples.
      query_loss: Per-example loss of the queries; None is ``loss``.
      layers: Expression of the leaves; None is all.
      batch_size: Examples, and queries, in the backward pass at a time; the result does
        not depend on it.

    Cost: a forward and backward pass over queries and examples, and 2QBP flops; memory
    of Q gradients, and of one layer's gradients of ``batch_size`` examples.

    >>> loss = lambda params, batch: params**2 * batch["x"]
    >>> gradient_products(
    ...     loss, jnp.float32(0.5), {"x": jnp.array([1.0, 3.0])}, {"x": jnp.ones(1)}
    ... ).tolist()
    [[1.0, 3.0]]
    """
    params = tree.cast(params, jnp.float32)
    own = query_loss or loss
    one_pass = batch_size is None or example_count(queries) <= batch_size
    if one_pass and isinstance(batch_or_batches, Mapping):
        # Kept in the layout of the pass, in which the examples meet them.
        found, views = layer_statistics(own, params, queries, GRADIENTS, layers=layers)
    else:
        # Several batches are a loop in Python: then this compiles for itself too.
        given = queries if isinstance(batch_or_batches, Mapping) else [queries]
        found = per_example_gradients(
            own, params, given, layers=layers, batch_size=batch_size
        )
        found, views = dict(tree.named_leaves(found)), {}
    seen = Seen(tuple(views.items()))
    rows = Partial(product_rows, layer_loss(loss, layers), params, found, seen)
    return rows_of(rows, batch_or_batches, batch_size=batch_size).T


def products_with(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    directions: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return ``<D_q, g_i>`` of Q directions with every example, float32[Q,B].

    As :func:`gradient_products`, for directions that are already there: gradients times
    an inverse Hessian, say.

    Args:
      loss: Per-example loss.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      directions: A tree with leaves [Q, ...] of those that ``layers`` selects, as
        :func:`per_example_gradients` returns it; it may hold more.
      layers: Expression of the leaves; None is all.
      batch_size: Examples in the backward pass at a time.

    Raises:
      ValueError: A direction is missing or has another shape.
    """
    params = tree.cast(params, jnp.float32)
    own = checked_directions(loss, params, directions, layers)
    rows = Partial(product_rows, layer_loss(loss, layers), params, own, Seen(()))
    return rows_of(rows, batch_or_batches, batch_size=batch_size).T


def leaf_products(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    directions: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> dict[str, jax.Array]:
    """Return each layer's part of ``<D_q, g_i>``, name -> float32[Q,B].

    Layers stacked in one leaf come each by its name, ``h/0/attn/c_attn/kernel``; the
    sum over all is :func:`products_with`, whose arguments these are.
    """
    params = tree.cast(params, jnp.float32)
    own = checked_directions(loss, params, directions, layers)
    rows = Partial(leaf_rows, layer_loss(loss, layers), params, own)
    found = rows_of(rows, batch_or_batches, batch_size=batch_size)
    return {name: values.T for name, values in found.items()}


def leaf_rows(target: LayerLoss, params: Params, own: dict, batch: Batch) -> dict:
    """Return each layer's products, float32[B,Q]."""

    def directions(views: dict[str, View]) -> dict[str, jax.Array]:
        return {name: in_view(own[name], None, view) for name, view in views.items()}

    found, views = layer_statistics(
        target.loss, params, batch, PRODUCTS, extra=directions, layers=target.layers
    )
    kept = masks(target.loss, params, target.layers)
    leaves = dict(tree.named_leaves(params))
    stacked = stacked_folders(target.loss, params)
    parts = {}
    for name, values in found.items():
        names = tree.layer_names(name, leaves[name], stacked)
        if len(views[name].stack) == 1 and len(names) == views[name].stack[0]:
            chosen_layers = np.broadcast_to(np.ravel(kept[name]), len(names))
            parts |= {
                layer: values[i] for i, layer in enumerate(names) if chosen_layers[i]
            }
        else:
            parts[name] = values.sum(axis=tuple(range(len(views[name].stack))))
    return parts


def token_contributions(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    directions: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return each training token's share of ``<D_q, g_i>``, float32[Q,B,T].

    The gradient of a weight is a sum over the tokens at which the weight was used
    (position t of a layer, or its prediction at t for an output head); their products
    with the direction add up to :func:`products_with`.

    Args:
      loss: Per-example loss of sequences.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      directions: As for :func:`products_with`.
      layers: Expression of the leaves; None is all.
      batch_size: Examples in the backward pass at a time.

    Raises:
      ValueError: A direction does not fit, or a selected leaf has no taps, or its
        tokens are not those of the others (the pixels of a convolution).

    Cost: a forward and backward pass, and 2QBTP flops.
    """
    params = tree.cast(params, jnp.float32)
    own = checked_directions(loss, params, directions, layers)
    rows = Partial(token_rows, layer_loss(loss, layers), params, own)
    contributions = rows_of(rows, batch_or_batches, batch_size=batch_size)
    return jnp.moveaxis(contributions, -1, 0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Seen:
    """The views in which a pass saw the leaves; of others the leaf's own shape."""

    views: tuple[tuple[str, View], ...]


def product_rows(
    target: LayerLoss, params: Params, own: dict, seen: Seen, batch: Batch
) -> jax.Array:
    """Return the products of a batch's gradients with the directions, float32[B,Q]."""
    before = dict(seen.views)

    def directions(views: dict[str, View]) -> dict[str, jax.Array]:
        if views == before:
            return own
        return {
            name: in_view(own[name], before.get(name), views[name]) for name in views
        }

    # As a pass left them, directions stand after the stack.
    statistic = PRODUCTS._replace(lead=0) if before else PRODUCTS
    found, views = layer_statistics(
        target.loss, params, batch, statistic, extra=directions, layers=target.layers
    )
    return total(found, views, masks(target.loss, params, target.layers))


def token_rows(target: LayerLoss, params: Params, own: dict, batch: Batch) -> jax.Array:
    """Return each token's share of the products, float32[B,T,Q]."""

    def directions(views: dict[str, View]) -> dict[str, jax.Array]:
        return {name: in_view(own[name], None, view) for name, view in views.items()}

    found, views = layer_statistics(
        target.loss,
        params,
        batch,
        TOKEN_PRODUCTS,
        extra=directions,
        layers=target.layers,
    )
    lengths = {name: x.shape[len(views[name].stack) + 1] for name, x in found.items()}
    most = max(lengths.values())
    other = [name for name, length in lengths.items() if length != most]
    if other:
        raise ValueError(
            f"no shares of single tokens for {', '.join(other[:5])}: it has no taps, "
            f"or other tokens than the rest; leave it out by layers="
        )
    return total(found, views, masks(target.loss, params, target.layers))


def in_view(values: jax.Array, seen: View | None, view: View) -> jax.Array:
    """Return [Q, *leaf] as [Q,*stack,L,R]; what a pass saw, as [*stack,Q,L,R]."""
    if seen is not None:
        values = jnp.moveaxis(values, len(seen.stack), 0)
    values = values.reshape(len(values), *view.stack, view.rows, view.columns)
    return values if seen is None else jnp.moveaxis(values, 0, len(view.stack))


def checked_directions(
    loss: PerExampleLoss, params: Params, directions: Params, layers: str | None
) -> dict[str, jax.Array]:
    """Return the selected leaves of ``directions`` by name, as float32."""
    given = dict(tree.named_leaves(tree.cast(directions, jnp.float32)))
    chosen = masks(loss, params, layers)
    counts = set()
    for name, leaf in tree.named_leaves(params):
        if not np.any(chosen[name]):
            continue
        shape = jnp.shape(given[name]) if name in given else None
        if shape is None or shape[1:] != jnp.shape(leaf):
            raise ValueError(
                f"directions: {name} is {shape}, but must be (Q, "
                f"{', '.join(map(str, jnp.shape(leaf)))}): one direction a query"
            )
        counts.add(shape[0])
    if len(counts) != 1:
        raise ValueError(f"directions: leaves have different Q: {sorted(counts)}")
    return given
