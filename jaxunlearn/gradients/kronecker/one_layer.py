"""EK-FAC of one layer from its kept inputs and output gradients.

Compiled pieces that ``query_scores.py`` drives. Each takes the kept products of one
part of the data, of all layers of a stack, and the number of the layer that is meant.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.kronecker.cache import Kept
from jaxunlearn.gradients.kronecker.eigendecomposition import (
    Basis,
    Moments,
    eigenbasis,
    group_size,
    moments,
    rotated,
    with_ones,
)
from jaxunlearn.gradients.kronecker.inverse import divide
from jaxunlearn.gradients.taps.heads import HeadProducts, form_products
from jaxunlearn.gradients.taps.outer_products import (
    OuterProducts,
    Products,
    gradients,
    is_lookup,
)
from jaxunlearn.tree import cast


class Form(NamedTuple):
    """What a program is compiled for; layers of one form share it."""

    rows: int
    columns: int
    has_bias: bool


def over_groups(
    function: Callable[[Products, jax.Array], tuple[Any, Any]],
    form: Form,
    kept: Kept,
    layer: jax.Array,
    weight: jax.Array,
    embedding: jax.Array | None,
) -> tuple[Any, Any]:
    """Return ``function``'s (sums over the examples, rows), a few examples at a time.

    Args:
      function: Of float32 products, a kernel's with its bias, and their weights.
      form: Of the matrix.
      kept: Products of all layers of a stack.
      layer: Which one.
      weight: float32[B].
      embedding: The matrix of an output head.
    """
    kept = jax.tree.map(lambda x: x[layer], kept)
    numbers = form.rows * form.columns
    for part in kept:
        if isinstance(part, HeadProducts):
            numbers = max(numbers, part.targets.shape[1] * form.rows)
    group = group_size(len(weight), numbers)

    def of_group(products: Kept, weight: jax.Array) -> tuple[Any, Any]:
        products = cast(products, jnp.float32)
        formed = tuple(form_products(part, embedding) for part in products)
        own = with_ones(formed) if form.has_bias else formed
        return function(own, weight)

    if group == len(weight):
        return of_group(kept, weight)
    parts = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), (kept, weight))

    def add(total: Any, part: tuple) -> tuple[Any, Any]:
        sums, rows = of_group(*part)
        return jax.tree.map(jnp.add, total, sums), rows

    first = jax.eval_shape(of_group, *jax.tree.map(lambda x: x[0], parts))[0]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    sums, rows = jax.lax.scan(add, zeros, parts)
    return sums, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def moments_of(
    form: Form, largest: int, kept: Kept, layer, weight, embedding
) -> tuple[Moments, ...]:
    """Return the moments of a part of the data."""

    def function(products, weight):
        return moments(products, weight, form.rows, largest=largest), None

    return over_groups(function, form, kept, layer, weight, embedding)[0]


def no_moments(form: Form, largest: int, *given: Any) -> tuple[Moments, ...]:
    """Return zeros in the shape of moments."""
    shapes = jax.eval_shape(functools.partial(moments_of, form, largest), *given)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def add_moments(form: Form, largest: int, total: tuple[Moments, ...], *given: Any):
    """Return ``total`` and the moments of a part of the data."""
    return jax.tree.map(jnp.add, total, moments_of(form, largest, *given))


layer_basis = jax.jit(eigenbasis)


@functools.partial(jax.jit, static_argnums=(0, 1))
def add_squares(
    form: Form, keep: bool, total, kept: Kept, layer, weight, embedding, basis: Basis
) -> tuple[jax.Array, jax.Array | None]:
    """Return ``total + sum_b w_b R_b^2`` of the rotated gradients; to keep, R itself.

    The shape of both is that of :func:`rotated_gradients`.
    """

    def function(products, weight):
        own = rotated_gradients(form, products, basis)
        squares = jnp.einsum("b,blr->lr", weight, own * own)
        return squares, own if keep else None

    squares, rows = over_groups(function, form, kept, layer, weight, embedding)
    return total + squares, rows


def no_squares(form: Form, kept: Kept) -> np.ndarray:
    """Return zeros in the shape of one rotated gradient."""
    shape = (form.rows, form.columns)
    return np.zeros(shape[::-1] if is_turned(form, kept) else shape, np.float32)


def rotated_gradients(form: Form, products: Products, basis: Basis) -> jax.Array:
    """Return ``Q_L^T G_b Q_R``, as [B,R,L] if that is the way in which it is formed.

    Matrix products of XLA on a CPU run at full speed if the last axis is the longer
    one; nothing here depends on which it is.
    """
    products = rotated(products, basis)
    if is_turned(form, products):
        products = (OuterProducts(products[0].right, products[0].left),)
    return gradients(products, form.rows)


def is_turned(form: Form, products: Kept) -> bool:
    """Tell whether left and right change places: if both are dense, and L > R."""
    (part, *others) = products
    if others or isinstance(part, HeadProducts) or part.left is None:
        return False
    return not is_lookup(part) and form.rows > form.columns


@jax.jit
def kept_products(query: jax.Array, train: jax.Array, damped: jax.Array) -> jax.Array:
    """Return ``sum R_q R_i / damped`` of rotated gradients, [Q,B]."""
    directions = divide(query, damped).reshape(len(query), -1)
    return directions @ train.reshape(len(train), -1).T


@functools.partial(jax.jit, static_argnums=0)
def layer_products(
    form: Form, query, damped, kept: Kept, layer, embedding, basis: Basis
) -> jax.Array:
    """Return the same, with the training examples' gradients formed anew."""

    def function(products, _):
        own = rotated_gradients(form, products, basis)
        return (), kept_products(query, own, damped).T

    ones = jnp.ones(jax.tree.leaves(kept)[0].shape[1])
    return over_groups(function, form, kept, layer, ones, embedding)[1].T
