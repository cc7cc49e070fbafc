"""Several models trained at once that differ in their seeds: ``vmap`` of a step.

A small model leaves an accelerator idle; several of them fill it. Over several devices
the models are spread, not their batches.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import TokenizedData
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.placement import data_mesh, replicate, split
from jaxunlearn.training import checkpoints
from jaxunlearn.training.recipe import (
    Recipe,
    StepMetrics,
    TrainingState,
    apply_gradient,
    batch_at,
    batch_gradient,
    check_finite,
    initial_state,
    optimizer,
    step_key,
    steps_per_epoch,
)
from jaxunlearn.types import Batch, Params

CHECKPOINT_SECONDS = 60.0

OnStep = Callable[[int, int, np.ndarray], None]
"""Called with steps done, steps in all, and the losses float32[K] of this step."""


def train_together(
    model: GPT2,
    starts: Sequence[Params],
    data: TokenizedData,
    recipes: Sequence[Recipe],
    *,
    directory: Path | None = None,
    on_step: OnStep | None = None,
) -> Params:
    """Train K models, each as :func:`jaxunlearn.training.train` would by itself.

    Args:
      model: The model.
      starts: K trees of starting parameters; not changed.
      data: Training examples, of all models.
      recipes: K recipes that differ in their seeds only.
      directory: Where a checkpoint a minute is kept, and resumed from.
      on_step: Called after each step.

    Returns:
      Trained parameters, each leaf with a leading axis K; equal to those of K runs of
      ``train`` to float32 rounding.

    Raises:
      ValueError: A loss or gradient is not finite any more; names the seeds.
    """
    total = recipes[0].epochs * steps_per_epoch(recipes[0], len(data.examples))
    step = compiled_step(model, dataclasses.replace(recipes[0], seed=0), total)
    mesh = data_mesh(len(recipes))

    def inputs(number: int) -> tuple[Batch, jax.Array | None]:
        batches = [batch_at(recipe, data, number) for recipe in recipes]
        keys = [step_key(recipe, model, number) for recipe in recipes]
        return (
            split({k: np.stack([b[k] for b in batches]) for k in batches[0]}, mesh),
            None if keys[0] is None else split(jnp.stack(keys), mesh),
        )

    begin = functools.partial(initial_state, transform=optimizer(recipes[0], total))
    begin = jax.vmap(begin, out_axes=TrainingState(0, 0, None))
    state = begin(jax.tree.map(lambda *x: jnp.stack(x), *starts))
    state = TrainingState(
        split(state.params, mesh),
        split(state.opt_state, mesh),
        replicate(state.step, mesh),
    )
    latest = None if directory is None else checkpoints.latest_step(directory)
    if directory is not None and latest is not None:
        state = checkpoints.restore(directory, latest, state)
    first = int(state.step)
    saved = time.monotonic()
    following = inputs(first)
    for number in range(first, total):
        state, metrics = step(state, *following)
        following = inputs(number + 1)  # made while the device computes
        check_all_finite(model, recipes, metrics, number)
        if directory is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoints.save(directory, state)
            saved = time.monotonic()
        if on_step is not None:
            on_step(number + 1, total, np.asarray(metrics.loss))
    # One by one, so that each is rounded as it would be alone.
    return jax.vmap(lambda params: tree.rounded(params, starts[0]))(state.params)


@functools.lru_cache(maxsize=4)
def compiled_step(model: GPT2, recipe: Recipe, total_steps: int) -> Callable:
    """Return the jitted step of K models, which donates their state.

    ``(state, batch, key) -> (state, metrics)`` with a leading axis K on all but
    ``state.step``. The recipe's seed plays no part: batches and keys bring it.
    """
    transform = optimizer(recipe, total_steps)

    def step(state: TrainingState, batch: Batch, key: jax.Array | None):
        loss, gradient = batch_gradient(model, recipe, state.params, batch, key)
        metrics = StepMetrics(loss, tree.norm(gradient))
        return apply_gradient(transform, state, gradient), metrics

    axes = TrainingState(0, 0, None)
    together = jax.vmap(step, in_axes=(axes, 0, 0), out_axes=(axes, 0))
    return jax.jit(together, donate_argnums=0)


def check_all_finite(
    model: GPT2, recipes: Sequence[Recipe], metrics: StepMetrics, number: int
) -> None:
    """Refuse models that diverged, by their seeds."""
    for recipe, *one in zip(recipes, *map(np.asarray, metrics), strict=True):
        try:
            check_finite(model, recipe, StepMetrics(*one), number)
        except ValueError as error:
            raise ValueError(f"seed={recipe.seed}: {error}") from error
