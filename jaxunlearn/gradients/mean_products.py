"""The mean over examples of a product of curvature and vector, on chosen leaves."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.batching import weighted_mean
from jaxunlearn.tree import cast, masked, zeros_like
from jaxunlearn.types import Batch, LinearMap, Params

Fill = Callable[[Params], Params]
"""From a tree of the leaves that are differentiated to all parameters."""


def mean_product(
    product: Partial,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    vector: Params,
    *,
    mask: Params | None,
    batch_size: int | None,
) -> Params:
    """Return ``sum_i w_i (A_i v) / sum_i w_i``, in float32.

    Args:
      product: ``(params, vector, fill, batch) -> sum_i w_i A_i v``, a ``Partial`` of a
        module's function and of what it needs. Over batches it is an argument of the
        compiled program: the same functions compile once for all batches and calls.
        ``params`` and ``vector`` hold the leaves of which anything is selected;
        ``fill(params)`` adds the rest, through which no derivative is taken.
      params: The point; its float32 copy is used.
      batch_or_batches: A batch, or batches of one shape.
      vector: A tree like ``params``.
      mask: Of the parameters that count; None is all.
      batch_size: Examples in memory at a time.

    Raises:
      ValueError: ``vector`` is not shaped like ``params``, there is no batch, or
        ``product`` meets a function without the derivative.
    """
    shapes, expected = jax.tree.map(jnp.shape, (vector, params))
    if shapes != expected:
        raise ValueError(
            f"vector must be a tree of params' shapes: {shapes} is not {expected}"
        )
    params, vector = cast(params, jnp.float32), cast(vector, jnp.float32)
    if mask is None:
        counted = jax.tree.map(lambda _: np.True_, params)
    else:
        counted, vector = mask, masked(vector, mask)

    def chosen(tree: Params) -> Params:
        return jax.tree.map(lambda x, m: x if np.any(m) else None, tree, counted)

    summed = Partial(product_of_part, product, chosen(params), chosen(vector), params)
    with twice_differentiable():
        mean = weighted_mean(summed, batch_or_batches, batch_size=batch_size)
    if mask is None:
        return mean
    return masked(filled(mean, zeros_like(params)), mask)


def product_of_part(
    product: Partial, chosen: Params, vector: Params, params: Params, part: Batch
) -> Params:
    """Return the product's weighted sum over one microbatch."""
    return product(chosen, vector, lambda tree: filled(tree, params), part)


def filled(tree: Params, rest: Params) -> Params:
    """Return ``tree`` with the leaves of ``rest`` where it has None."""
    return jax.tree.map(
        lambda x, r: r if x is None else x, tree, rest, is_leaf=lambda x: x is None
    )


def restricted(linear_map: LinearMap, mask: Params) -> LinearMap:
    """Return ``v -> P A P v``, P zero where ``mask`` is False."""
    return lambda vector: masked(linear_map(masked(vector, mask)), mask)


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Say what to do where a fused kernel stops a forward-mode or second derivative."""
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if "custom_vjp" in str(error) or "dot_product_attention" in str(error):
            raise ValueError(
                "the loss holds a function with a first reverse-mode derivative only, "
                'as the fused kernel of attention="cudnn" is: for Hessian-vector '
                'products and forward-mode scores set attention="xla" in the model\'s '
                "configuration; the parameters stay the same"
            ) from error
        raise
