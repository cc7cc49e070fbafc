"""Training any task a little further, on batches in their order."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import as_argument, selection
from jaxunlearn.training.recipe import (
    Recipe,
    TrainingState,
    apply_gradient,
    initial_state,
    optimizer,
)
from jaxunlearn.training.weighted import mean_shares
from jaxunlearn.types import Batch, Params, PerExampleLoss


def fine_tune(
    loss: PerExampleLoss,
    params: Params,
    batches: Sequence[Batch],
    recipe: Recipe,
    *,
    layers: str | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Params:
    """Return parameters trained further on the mean loss of each batch, in float32.

    Args:
      loss: Per-example loss, used without dropout.
      params: Where to begin; not changed.
      batches: Batches of one shape, the steps of each epoch in this order; without
        ``weight`` each example counts 1, and padding 0.
      recipe: Epochs, optimiser, learning rate, schedule and clipping; what it says of
        batches, microbatches, seed and reduction is not used.
      layers: What to change, as for :func:`~jaxunlearn.tree.select`; None: all.
      on_step: Called after each step with the number of steps done.

    Returns:
      Float32 master weights, not rounded to the dtypes of ``params``: a short way is
      lost in 16 bits.

    Raises:
      ValueError: There is no batch.

    Cost: a gradient a step; memory of weights, gradient and optimiser state.
    """
    if len(batches) == 0:
        raise ValueError("batches is empty: give at least one batch")
    total = recipe.epochs * len(batches)
    state = initial_state(params, optimizer(recipe, total))
    step, argument = compiled_step(recipe, total), as_argument(loss)
    mask, done = selection(loss, params, layers), 0
    for _ in range(recipe.epochs):
        for batch in batches:
            state = step(argument, state, dict(batch), mask)
            done += 1
            if on_step is not None:
                on_step(done)
    return state.params


@functools.lru_cache(maxsize=16)
def compiled_step(recipe: Recipe, total_steps: int) -> Callable:
    """Return the jitted step, which donates its state."""
    transform = optimizer(recipe, total_steps)

    def step(
        loss: PerExampleLoss, state: TrainingState, batch: Batch, mask: Params | None
    ) -> TrainingState:
        shares = mean_shares(batch)
        gradient = jax.grad(lambda p: jnp.sum(shares * loss(p, batch)))(state.params)
        if mask is not None:
            gradient = tree.masked(gradient, mask)
        new = apply_gradient(transform, state, gradient)
        if mask is None:
            return new
        # Weight decay moves what has no gradient too.
        kept = jax.tree.map(
            lambda m, after, before: jnp.where(m, after, before),
            mask,
            new.params,
            state.params,
        )
        return new._replace(params=kept)

    return jax.jit(step, donate_argnums=1)
