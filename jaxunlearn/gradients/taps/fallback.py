"""Leaves without taps: their gradients are found example by example."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.taps.outer_products import OuterProducts, Products
from jaxunlearn.types import Batch, Params, PerExampleLoss


def untapped_products(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    leaves: Mapping[str, jax.Array],
    masks: Mapping[str, Any],
) -> dict[str, Products]:
    """Return the gradients of leaves, by ``vmap(grad)``, as products of one token.

    Args:
      loss: Per-example loss.
      params: The point.
      batch: A batch.
      leaves: The leaves of ``params`` by name.
      masks: The leaves to differentiate by, and which of each is selected.
    """
    if not masks:
        return {}
    structure = jax.tree.structure(params)

    def of_example(example: Batch) -> dict[str, jax.Array]:
        alone = jax.tree.map(lambda x: x[None], example)

        def own_loss(chosen: dict) -> jax.Array:
            values = {**leaves, **chosen}
            whole = jax.tree.unflatten(structure, list(values.values()))
            return loss(whole, alone)[0]

        return jax.grad(own_loss)({name: leaves[name] for name in masks})

    gradients = jax.vmap(of_example)(batch)
    # The layers of a stack that are not selected lie in the same leaf.
    kept = {k: jnp.where(masks[k], g, 0.0) for k, g in gradients.items()}
    return {
        name: (OuterProducts(None, g.reshape(len(g), 1, -1)),)
        for name, g in kept.items()
    }
