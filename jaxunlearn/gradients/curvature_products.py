"""Products of curvature and a vector: Hessian and Gauss-Newton, no matrix formed."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn.gradients.arguments import as_argument, selection, task_function
from jaxunlearn.gradients.mean_products import (
    Fill,
    mean_product,
    restricted,
    twice_differentiable,
)
from jaxunlearn.types import Batch, Params, PerExampleLoss

__all__ = ["gauss_newton_vp", "hvp", "restricted", "twice_differentiable"]

Logits = Callable[[Params, Batch], jax.Array]
"""From parameters and a batch to the network's outputs, any shape with axis B first."""

LossOfLogits = Callable[[jax.Array, Batch], jax.Array]
"""From these outputs and the batch to the loss of each example, float32[B]."""


def hvp(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    vector: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return ``H v``, H the Hessian of the batch's mean loss at ``params``.

    ``H = d^2/dtheta^2  sum_i w_i l_i(theta) / sum_i w_i``, by ``jvp`` of ``grad``
    (Pearlmutter, Fast exact multiplication by the Hessian, 1994). The closure
    ``lambda v: hvp(loss, params, batch, v)`` is the ``LinearMap`` that solvers take.

    Args:
      loss: Per-example loss, twice differentiable.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch, or batches of one shape (then this is a driver, which
        loops in Python and compiles once); ``weight``, where present, weighs the
        examples.
      vector: A tree like ``params``.
      layers: A regular expression that selects parameters: the product is ``P H P v``,
        P zero on all others. None selects all.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      A float32 tree like ``params``; zeros if all weights are 0.

    Raises:
      ValueError: ``vector`` is not shaped like ``params``, ``layers`` matches nothing,
        or the loss holds a function without second derivative (``attention="cudnn"``).

    Cost: about 2.5 gradients. Run under ``jax.default_matmul_precision("highest")`` on
    GPU and TPU, whose default matrix products round to 10 bits or fewer.

    >>> loss = lambda params, batch: params**2 * batch["x"]
    >>> batch = {"x": jnp.array([1.0, 5.0]), "weight": jnp.array([1.0, 3.0])}
    >>> float(hvp(loss, jnp.float32(7.0), batch, jnp.float32(1.0)))
    8.0
    """

    product = Partial(hessian_product, as_argument(loss))
    return mean_product(
        product,
        params,
        batch_or_batches,
        vector,
        mask=selection(loss, params, layers),
        batch_size=batch_size,
    )


def hessian_product(
    loss: PerExampleLoss, params: Params, vector: Params, fill: Fill, part: Batch
) -> Params:
    """Return ``sum_i w_i H_i v``."""

    def objective(chosen: Params) -> jax.Array:
        return jnp.sum(part["weight"] * loss(fill(chosen), part))

    return jax.jvp(jax.grad(objective), (params,), (vector,))[1]


def gauss_newton_vp(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    vector: Params,
    *,
    logits: Logits | None = None,
    loss_of_logits: LossOfLogits | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return ``G v``, G the generalised Gauss-Newton matrix of the mean loss.

    ``G = sum_i w_i J_i^T (d^2 l_i / dz_i^2) J_i / sum_i w_i`` with ``z_i`` the logits
    of example i and ``J_i`` their Jacobian: the Hessian without the curvature of the
    network, positive semi-definite where the loss is convex in the logits (Schraudolph,
    Fast curvature matrix-vector products, 2002; Martens, 2020).

    Args:
      loss: Per-example loss. A task brings the two functions below, its ``outputs``
        and ``loss_of_outputs``; of a model's method, as ``model.per_example_loss``,
        they are the model's own.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: As in :func:`hvp`.
      vector: A tree like ``params``.
      logits: ``(params, batch) -> z``.
      loss_of_logits: ``(z, batch) -> float32[B]``; after ``logits`` it must be
        ``loss``.
      layers: As in :func:`hvp`.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      A float32 tree like ``params``; zeros if all weights are 0.

    Raises:
      ValueError: As :func:`hvp`; or ``loss`` is no task or model's method that has
        the two functions, and they are not given.

    Cost: about 2.5 gradients, and a few copies of ``batch_size`` examples' logits
    (GPT-2 at 512 tokens: 103 MB an example and copy).

    >>> logits = lambda params, batch: batch["x"] * params
    >>> loss_of_logits = lambda z, batch: 0.5 * (z - 1.0) ** 2
    >>> loss = lambda params, batch: loss_of_logits(logits(params, batch), batch)
    >>> batch = {"x": jnp.array([1.0, 3.0])}
    >>> v = jnp.float32(2.0)
    >>> float(gauss_newton_vp(
    ...     loss, v, batch, v, logits=logits, loss_of_logits=loss_of_logits
    ... ))
    10.0
    """
    if loss_of_logits is None:
        loss_of_logits = task_function(loss, "loss_of_outputs")
    if logits is None:
        logits = task_function(loss, "outputs")

    product = Partial(
        gauss_newton_product, as_argument(logits), as_argument(loss_of_logits)
    )
    return mean_product(
        product,
        params,
        batch_or_batches,
        vector,
        mask=selection(loss, params, layers),
        batch_size=batch_size,
    )


def gauss_newton_product(
    logits: Logits,
    loss_of_logits: LossOfLogits,
    params: Params,
    vector: Params,
    fill: Fill,
    part: Batch,
) -> Params:
    """Return ``sum_i w_i J_i^T H_i J_i v``."""

    def outputs(chosen: Params) -> jax.Array:
        return logits(fill(chosen), part)

    def objective(z: jax.Array) -> jax.Array:
        return jnp.sum(part["weight"] * loss_of_logits(z, part))

    z, change = jax.jvp(outputs, (params,), (vector,))
    pull_back = jax.vjp(outputs, params)[1]
    return pull_back(jax.jvp(jax.grad(objective), (z,), (change,))[1])[0]
