"""Dropout whose masks are a pure function of (key, index of the example, place).

An example is dropped the same way in whatever microbatch it travels.
"""

import jax
import jax.numpy as jnp

from jaxunlearn.types import Batch


def example_keys(key: jax.Array, batch: Batch, size: int) -> jax.Array:
    """Return one key an example, a function of (key, index of the example)."""
    index = jnp.asarray(batch.get("index", jnp.arange(size)))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def dropout(
    x: jax.Array,
    rate: float,
    keys_B: jax.Array | None,
    layer: int | jax.Array,
    site: int,
) -> jax.Array:
    """Drop entries of ``x`` [B,...] at a place (layer, site) by each example's key."""
    if keys_B is None or rate == 0.0:
        return x

    def keep(key):
        place = jax.random.fold_in(key, layer * 4 + site)
        # A rate without a dtype would be drawn in 64 bits, and otherwise, under x64.
        return jax.random.bernoulli(place, jnp.float32(1.0 - rate), x.shape[1:])

    return jnp.where(jax.vmap(keep)(keys_B), x / (1.0 - rate), 0).astype(x.dtype)
