"""Losses and gradients over whole data sets."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.gradients.batching import example_rows, weighted_mean
from jaxunlearn.types import Batch, Params, PerExampleLoss


def example_losses(
    loss: PerExampleLoss, params: Params, batches: Iterable[Batch]
) -> np.ndarray:
    """Return the loss of each example of ``batches``, float32[n], padding left out.

    Args:
      loss: A task or another per-example loss; no dropout.
      params: Its parameters.
      batches: Batches of one shape. Give several data sets the same to compile once
        for all.

    Raises:
      ValueError: There are no batches.
    """
    return example_rows(Partial(losses_of_batch, as_argument(loss), params), batches)


def mean_loss_of(
    loss: PerExampleLoss, batches: Iterable[Batch]
) -> Callable[[Params], float]:
    """Return the function ``params -> mean over the examples of their losses``."""

    def mean_loss(params: Params) -> float:
        losses = example_losses(loss, params, batches)
        return float(np.mean(losses, dtype=np.float64))

    return mean_loss


def mean_gradient_of(
    loss: PerExampleLoss, batches: Iterable[Batch]
) -> Callable[[Params], Params]:
    """Return the function ``params -> gradient of the mean loss``, in float32."""

    def mean_gradient(params: Params) -> Params:
        total = Partial(gradient_of_sum, as_argument(loss), params)
        return weighted_mean(total, batches, batch_size=None)

    return mean_gradient


def losses_of_batch(loss: PerExampleLoss, params: Params, batch: Batch) -> jax.Array:
    """Return the losses of one batch, float32[B]."""
    return loss(params, batch)


def gradient_of_sum(loss: PerExampleLoss, params: Params, batch: Batch) -> Params:
    """Return the float32 gradient of a batch's weighted sum of losses."""

    def total(params: Params) -> jax.Array:
        return jnp.sum(batch["weight"] * loss(params, batch))

    return jax.grad(total)(tree.master_weights(params))
