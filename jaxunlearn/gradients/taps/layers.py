"""Standard Linen layers as outer products: what each one's parameters see.

A call of a layer is read as its inputs and a function that turns inputs and the
gradient of the output, both of B examples, into the outer products of each parameter.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.gradients.taps.outer_products import OuterProducts


class Reading(NamedTuple):
    """A call of a layer, understood."""

    inputs: Any  # arrays with leading axis B
    products: Callable[[Any, jax.Array], dict[str, OuterProducts]]
    """From (inputs, gradient of the output) to each parameter's outer products."""


def floating(x: jax.Array) -> jax.Array:
    """Return an input as numbers: integers would be read as rows to look up."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def tokens(x: jax.Array, features: int = 1) -> jax.Array:
    """Return [B,...,*features] as [B,T,F]: whatever lies between is a token."""
    width = math.prod(x.shape[x.ndim - features :])
    return x.reshape(x.shape[0], -1, width)


def with_bias(products: dict, delta: jax.Array, use_bias: bool) -> dict:
    """Add the bias, which sees a 1 with every token."""
    return products | ({"bias": OuterProducts(None, delta)} if use_bias else {})


def dense(module: nn.Dense, x: jax.Array) -> Reading | None:
    """``y = x W + b``."""
    if module.dot_general or module.dot_general_cls:
        return None

    def products(x, delta):
        delta = tokens(delta)
        kernel = {"kernel": OuterProducts(tokens(floating(x)), delta)}
        return with_bias(kernel, delta, module.use_bias)

    return Reading(x, products)


def dense_general(module: nn.DenseGeneral, x: jax.Array) -> Reading | None:
    """A dense layer from several axes to several axes."""
    if module.batch_dims or module.dot_general or module.dot_general_cls:
        return None

    def as_tuple(value):
        return (value,) if isinstance(value, int) else tuple(value)

    axes = sorted(axis % x.ndim for axis in as_tuple(module.axis))
    if tuple(axis % x.ndim for axis in as_tuple(module.axis)) != tuple(axes):
        return None
    features = len(as_tuple(module.features))

    def products(x, delta):
        last = jnp.moveaxis(floating(x), axes, range(x.ndim - len(axes), x.ndim))
        delta = tokens(delta, features)
        kernel = {"kernel": OuterProducts(tokens(last, len(axes)), delta)}
        return with_bias(kernel, delta, module.use_bias)

    return Reading(x, products)


def conv(module: nn.Conv, x: jax.Array) -> Reading | None:
    """A convolution is a dense layer on the patches under its window."""
    window = module.kernel_size
    window = (window,) if isinstance(window, int) else tuple(window)
    rank = len(window)
    padding = module.padding
    if isinstance(padding, int):
        padding = [(padding, padding)] * rank
    elif not isinstance(padding, str):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    plain = (
        module.feature_group_count == 1
        and module.mask is None
        and not (module.conv_general_dilated or module.conv_general_dilated_cls)
        and module.input_dilation in (1, None, (1,) * rank)
        and (not isinstance(padding, str) or padding in ("SAME", "VALID"))
        and x.ndim == rank + 2
    )
    if not plain:
        return None

    def steps(value):
        return (value or 1,) * rank if isinstance(value, int | None) else tuple(value)

    def products(x, delta):
        places = "DHW"[-rank:] if rank <= 3 else ""
        patches = jax.lax.conv_general_dilated_patches(
            floating(x),
            window,
            steps(module.strides),
            padding,
            rhs_dilation=steps(module.kernel_dilation),
            dimension_numbers=(f"N{places}C", f"{places}IO", f"N{places}C"),
            precision=jax.lax.Precision.HIGHEST,  # it copies, by a convolution
        )
        # Channels come first within a patch, but last but one in the kernel.
        patches = tokens(patches).reshape(x.shape[0], -1, x.shape[-1], *window)
        patches = jnp.moveaxis(patches, 2, -1)
        patches = tokens(patches, rank + 1)
        delta = tokens(delta)
        kernel = {"kernel": OuterProducts(patches, delta)}
        return with_bias(kernel, delta, module.use_bias)

    return Reading(x, products) if rank <= 3 else None


def embed(module: nn.Embed, ids: jax.Array) -> Reading:
    """A lookup: each token sees one row."""

    def products(ids, delta):
        rows = ids.reshape(ids.shape[0], -1)
        rows = jnp.where(rows < 0, rows + module.num_embeddings, rows)
        return {"embedding": OuterProducts(rows, tokens(delta))}

    return Reading(ids, products)


def attend(module: nn.Embed, query: jax.Array) -> Reading:
    """The tied head, ``logits = query E^T``."""

    def products(query, delta):
        return {"embedding": OuterProducts(tokens(delta), tokens(query))}

    return Reading(query, products)


def normalisation(
    module: nn.Module, x: jax.Array, *arguments: Any, **options: Any
) -> Reading | None:
    """``y = scale x' + bias`` of any of Linen's normalisations: x' is the same layer's
    output without both."""
    has_scale = getattr(module, "use_scale", False)
    has_bias = getattr(module, "use_bias", False)
    if options.get("mask") is not None:
        return None
    state = {k: v for k, v in module.variables.items() if k == "batch_stats"}
    axes = getattr(module, "feature_axes", -1)
    axes = module.axis if isinstance(module, nn.BatchNorm) else axes
    if axes not in (-1, (-1,), x.ndim - 1, (x.ndim - 1,)):
        return None
    off = {"use_scale": False} | (
        {"use_bias": False} if hasattr(module, "use_bias") else {}
    )
    bare = module.clone(parent=None, name=None, dtype=jnp.float32, **off)

    def normal_of(state, x):
        return bare.apply(state, x, *arguments, **options)

    def products(inputs, delta):
        x, state = inputs
        delta = tokens(delta)
        found = with_bias({}, delta, has_bias)
        if has_scale:
            normal = tokens(normal_of(state, x.astype(jnp.float32)))
            found["scale"] = OuterProducts(None, normal * delta.astype(jnp.float32))
        return found

    return Reading((x, state), products)


LAYERS: dict[tuple[type, str], Callable[..., Reading | None]] = {
    (nn.Dense, "__call__"): dense,
    (nn.DenseGeneral, "__call__"): dense_general,
    (nn.Conv, "__call__"): conv,
    (nn.Embed, "__call__"): embed,
    (nn.Embed, "attend"): attend,
    (nn.LayerNorm, "__call__"): normalisation,
    (nn.RMSNorm, "__call__"): normalisation,
    (nn.GroupNorm, "__call__"): normalisation,
    (nn.InstanceNorm, "__call__"): normalisation,
    (nn.BatchNorm, "__call__"): normalisation,
}
