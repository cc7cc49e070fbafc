"""Inner products of per-example gradients with a direction, without a gradient."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import LayerLoss, layer_loss, selection
from jaxunlearn.gradients.batching import rows_of
from jaxunlearn.gradients.mean_products import twice_differentiable
from jaxunlearn.types import Batch, Params, PerExampleLoss


def directional_scores(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    direction: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return ``<g_i, v>`` of every example by forward mode: no gradient is formed.

    ``d l_i(theta + e v) / d e`` at e = 0, of all examples in one pass without a
    backward one; it covers every parameter of any model.

    Args:
      loss: Per-example loss, differentiable in forward mode.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch of B examples, or batches of one shape.
      direction: v, a tree like ``params``; or K of them, leaves [K, ...], one pass
        each.
      layers: Expression of the leaves in which v counts; None is all.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      float32[B], or [K,B].

    Raises:
      ValueError: ``direction`` has other shapes, or the loss has no forward mode
        (``attention="cudnn"``).

    Cost: about two forward passes a direction, and their memory.

    >>> loss = lambda params, batch: params**2 * batch["x"]
    >>> batch = {"x": jnp.array([1.0, 3.0])}
    >>> directional_scores(loss, jnp.float32(2.0), batch, jnp.float32(0.5)).tolist()
    [2.0, 6.0]
    """
    params = tree.cast(params, jnp.float32)
    many = check_directions(params, direction)
    direction = tree.cast(direction, jnp.float32)
    mask = selection(loss, params, layers)
    if mask is not None:
        direction = tree.masked(direction, mask)
    if not many:
        direction = jax.tree.map(lambda x: x[None], direction)
    rows = Partial(directional_rows, layer_loss(loss, layers), params, direction)
    with twice_differentiable():
        scores = rows_of(rows, batch_or_batches, batch_size=batch_size)
    return scores.T if many else scores[:, 0]


def directional_rows(
    target: LayerLoss, params: Params, directions: Params, batch: Batch
) -> jax.Array:
    """Return the derivatives along K directions, float32[B,K]."""

    def along(one: Params) -> jax.Array:
        return jax.jvp(lambda p: target.loss(p, batch), (params,), (one,))[1]

    count = jax.tree.leaves(directions)[0].shape[0]
    if count == 1:
        return along(jax.tree.map(lambda x: x[0], directions))[:, None]
    return jax.lax.map(along, directions).T


def check_directions(params: Params, direction: Params) -> bool:
    """Tell whether ``direction`` holds many; refuse what is not like ``params``."""
    shapes, given = jax.tree.map(jnp.shape, (params, direction))
    leading = {
        shape[0] if len(shape) > len(own) else None
        for own, shape in zip(
            jax.tree.leaves(shapes, is_leaf=is_shape),
            jax.tree.leaves(given, is_leaf=is_shape),
            strict=False,
        )
    }
    count = leading.pop() if len(leading) == 1 else None
    expected = shapes
    if count is not None:
        expected = jax.tree.map(lambda s: (count, *s), shapes, is_leaf=is_shape)
    if given != expected:
        raise ValueError(
            f"direction must have the shapes of params, or each with one more leading "
            f"axis for several directions: {given} is not like {shapes}"
        )
    return count is not None


def is_shape(x: Any) -> bool:
    """Tell a shape from a tree of shapes."""
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)
