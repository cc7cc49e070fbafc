"""Each example's own gradient: whole, its norm, and the Fisher diagonal made of them.

Layers of Linen's standard kinds are tapped (``taps/``), so that weight gradients are
formed once, where they are needed, and dropped; anything else takes ``vmap(grad)``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import LayerLoss, layer_loss, masks, selection
from jaxunlearn.gradients.batching import rows_of, weighted_mean
from jaxunlearn.gradients.taps import outer_products
from jaxunlearn.gradients.taps.plans import Statistic, View
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.types import Batch, Params, PerExampleLoss

GRADIENTS = Statistic(
    lambda products, weight, rows, _: outer_products.gradients(products, rows),
    linear=True,
    summed=False,
)
SQUARED_NORMS = Statistic(
    lambda products, weight, rows, _: outer_products.squared_norms(products, rows),
    linear=False,
    summed=False,
)
SECOND_MOMENT = Statistic(
    lambda products, weight, rows, _: outer_products.second_moment(
        products, weight, rows
    ),
    linear=False,
    summed=True,
)


def per_example_loss(loss_fn: Callable[[Params, Any], jax.Array]) -> PerExampleLoss:
    """Return the per-example loss of a loss of one example.

    Args:
      loss_fn: ``(params, example) -> scalar``; an example is a batch without its
        leading axis.

    >>> loss = per_example_loss(lambda params, example: params * example["x"])
    >>> loss(2.0, {"x": jnp.array([1.0, 3.0])}).tolist()
    [2.0, 6.0]
    """
    return lambda params, batch: jax.vmap(loss_fn, in_axes=(None, 0))(
        params, dict(batch)
    )


def per_example_gradients(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return ``g_i = d l_i / d theta`` of every example, its ``weight`` left out.

    Padding examples, whose loss is 0, give zeros.

    Args:
      loss: Per-example loss; an example's loss must not depend on the others.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      layers: Expression of the leaves (:func:`jaxunlearn.tree.select`); None is all.
      batch_size: Examples in the backward pass at a time.

    Returns:
      A float32 tree of the selected leaves of ``params``, [B, ...]; layers of a stacked
      leaf that are not selected are 0.

    Raises:
      ValueError: The expression matches nothing, or the loss is not [B].

    Cost: one forward and backward pass; memory of B gradients (GPT-2 124M: 498 MB an
    example).

    >>> loss = lambda params, batch: params**2 * batch["x"]
    >>> per_example_gradients(
    ...     loss, jnp.float32(2.0), {"x": jnp.array([1.0, 3.0])}
    ... ).tolist()
    [4.0, 12.0]
    """
    params = tree.cast(params, jnp.float32)
    rows = Partial(gradient_rows, layer_loss(loss, layers), params)
    found = rows_of(rows, batch_or_batches, batch_size=batch_size)
    leaves = dict(tree.named_leaves(params))
    chosen = masks(loss, params, layers)
    found = {
        name: jnp.where(chosen[name], x.reshape(-1, *jnp.shape(leaves[name])), 0.0)
        for name, x in found.items()
    }
    return subtree(params, found)


def gradient_rows(target: LayerLoss, params: Params, batch: Batch) -> dict:
    """Return the gradients of every leaf, [B,*stack,L,R]."""
    found, views = layer_statistics(
        target.loss, params, batch, GRADIENTS, layers=target.layers
    )
    return {
        name: jnp.moveaxis(x, len(views[name].stack), 0) for name, x in found.items()
    }


def per_example_norms(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return ``|g_i|`` of every example, float32[B], its ``weight`` left out.

    Each layer's share comes from its gradient or from the Gram matrices of its tokens,
    whichever is cheaper (Goodfellow, Efficient per-example gradient computations, 2015;
    Li et al., Large language models can be strong differentially private learners,
    2021, equation 4); of a matrix that is used in several places from the gradient.

    Args:
      loss: Per-example loss.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      layers: Expression of the leaves; None is all.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Cost: one forward and backward pass; at most a layer's B gradients in memory.
    """
    rows = Partial(norm_rows, layer_loss(loss, layers), tree.cast(params, jnp.float32))
    return rows_of(rows, batch_or_batches, batch_size=batch_size)


def norm_rows(target: LayerLoss, params: Params, batch: Batch) -> jax.Array:
    """Return the norms of a batch's gradients."""
    found, views = layer_statistics(
        target.loss, params, batch, SQUARED_NORMS, layers=target.layers
    )
    return jnp.sqrt(total(found, views, masks(target.loss, params, target.layers)))


def fisher_diagonal(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return the diagonal of the empirical Fisher: the mean squared gradient.

    ``F = sum_i w_i g_i^2 / sum_i w_i`` with the labels of the data (Kunstner et al.,
    Limitations of the empirical Fisher approximation, 2019: not the true Fisher). Exact
    example by example, not the square of a batch's gradient.

    Args:
      loss: Per-example loss.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch, or batches of one shape; ``weight``, where present,
        weighs the examples.
      layers: Expression of the leaves; None is all.
      batch_size: Examples in the backward pass at a time; the result does not depend
        on it.

    Returns:
      A float32 tree like ``params``, nowhere negative; 0 where not selected, and
      everywhere if all weights are 0.

    Cost: one forward and backward pass; one example's gradient of one layer at a time.
    """
    params = tree.cast(params, jnp.float32)
    squares = Partial(sum_of_squares, layer_loss(loss, layers), params)
    mean = weighted_mean(squares, batch_or_batches, batch_size=batch_size)
    mask = selection(loss, params, layers)
    return mean if mask is None else tree.masked(mean, mask)


def sum_of_squares(target: LayerLoss, params: Params, batch: Batch) -> Params:
    """Return ``sum_i w_i g_i^2``, 0 in leaves that are not selected."""
    found, _ = layer_statistics(
        target.loss, params, batch, SECOND_MOMENT, layers=target.layers
    )
    leaves = [
        found[name].reshape(jnp.shape(leaf))
        if name in found
        else jnp.zeros(jnp.shape(leaf), jnp.float32)
        for name, leaf in tree.named_leaves(params)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def total(found: dict, views: dict[str, View], chosen: dict[str, Any]) -> jax.Array:
    """Return the sum over all selected matrices of values [*stack,B,...]."""
    parts = []
    for name, values in found.items():
        stack = views[name].stack
        if stack:
            rest = (1,) * (values.ndim - len(stack))
            values = values * jnp.asarray(chosen[name], jnp.float32).reshape(
                *jnp.shape(chosen[name])[: len(stack)], *rest
            )
        parts.append(values.sum(axis=tuple(range(len(stack)))))
    return sum(parts[1:], start=parts[0])


def subtree(params: Params, leaves: dict[str, jax.Array]) -> Params:
    """Return the tree of ``leaves`` alone, nested as in ``params``.

    Mappings lose the others; in containers of any other kind they are None.
    """
    names = [name for name, _ in tree.named_leaves(params)]
    structure = jax.tree.structure(params)
    whole = jax.tree.unflatten(structure, [leaves.get(name) for name in names])
    return whole if len(leaves) == len(names) else pruned(whole)


def pruned(branch: Params) -> Params:
    """Return a tree without the empty parts of its mappings."""
    if not isinstance(branch, Mapping):
        return branch
    kept = {name: pruned(part) for name, part in branch.items()}
    return type(branch)({k: part for k, part in kept.items() if jax.tree.leaves(part)})
