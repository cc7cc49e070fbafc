"""Gradients of a past training run, computed again by running it again.

Nothing is stored but the starting parameters: the order of the data, dropout and the
learning rate are functions of (seed, step), so the steps come out the same, and the
gradients of the requested examples are taken as they pass, each before the optimiser
step that it entered.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import TokenizedData, collate, step_indices
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.tying import untie
from jaxunlearn.placement import data_mesh, replicate, split
from jaxunlearn.training.recipe import (
    Recipe,
    TrainingState,
    batch_at,
    compiled_step,
    initial_state,
    optimizer,
    step_key,
    steps_per_epoch,
    update_weights,
)
from jaxunlearn.types import Batch, Params

WEIGHTS = ("sgd", "unit")


class Exposure(NamedTuple):
    """One passing of one example."""

    index: int  # position of the example in the data set
    epoch: int  # 1 is the first
    step: int  # global step, from 0
    update_weight: float  # learning rate times the example's share of the batch loss


def weighted_gradient(
    model: GPT2,
    params: Params,
    batch: Batch,
    coefficients: jax.Array,
    *,
    key: jax.Array | None = None,
) -> Params:
    """Return ``sum_i a_i grad l_i`` of a batch in one backward pass, untied.

    Args:
      model: The model.
      params: Where the gradient is taken.
      batch: The examples.
      coefficients: a_i, float32[B].
      key: Dropout key of the training step, so that the gradient is the one that the
        step saw.

    Returns:
      The gradient by :func:`~jaxunlearn.models.tying.untie` of the parameters, float32:
      ``wte/embedding`` holds the lookup part of the table's, zero but for the rows of
      the examples' tokens, ``lm_head/kernel`` the output part, dense.
    """

    def loss(params):
        losses = model.per_example_loss(params, batch, key=key)
        return jnp.sum(coefficients * losses)

    return jax.grad(loss)(untie(tree.master_weights(params)))


compiled_gradient = jax.jit(weighted_gradient, static_argnums=0)
"""The same, compiled once for equal models."""


def run_again(
    model: GPT2,
    recipe: Recipe,
    data: TokenizedData,
    start: Params,
    last_step: int,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[tuple[TrainingState, Batch]]:
    """Yield (state before step s, its batch) for s = 0 .. last_step.

    The state is donated to the next step: use it before asking for the next one.
    """
    total = recipe.epochs * steps_per_epoch(recipe, len(data.examples))
    step = compiled_step(model, recipe, total)
    mesh = data_mesh(recipe.microbatch_size or recipe.batch_size)
    state = replicate(initial_state(start, optimizer(recipe, total)), mesh)
    for s in range(last_step + 1):
        batch = batch_at(recipe, data, s)
        yield state, batch
        if s < last_step:
            state, _ = step(state, split(batch, mesh))
        if on_step is not None:
            on_step(s)


def exposures(
    recipe: Recipe, n: int, indices: Collection[int], epochs: Collection[int]
) -> dict[int, list[int]]:
    """Return {step: positions in its batch} of the requested examples and epochs.

    Raises:
      ValueError: No index, an index outside the data, or an epoch the run has not.
    """
    wanted = set(indices)
    outside = sorted(i for i in wanted if not 0 <= i < n)
    if not wanted or outside:
        raise ValueError(
            f"indices={sorted(wanted)[:5]}: name at least one example, each from 0 to "
            f"{n - 1}" + (f"; {outside[:5]} are not in the data" if outside else "")
        )
    unknown = sorted(e for e in epochs if not 1 <= e <= recipe.epochs)
    if unknown or not epochs:
        raise ValueError(
            f"epochs={sorted(epochs)}: the run has epochs 1 to {recipe.epochs}"
        )
    per_epoch = steps_per_epoch(recipe, n)
    found = {}
    for epoch in sorted(epochs):
        for step in range((epoch - 1) * per_epoch, epoch * per_epoch):
            order = step_indices(recipe.seed, step, n=n, batch_size=recipe.batch_size)
            hits = [int(p) for p, i in enumerate(order) if int(i) in wanted]
            if hits:
                found[step] = hits
    return found


def last_exposure(
    recipe: Recipe,
    data: TokenizedData,
    indices: Collection[int],
    epochs: Collection[int] = (1,),
) -> int:
    """Return the last step that a replay must reach: its price in steps, less one."""
    return max(exposures(recipe, len(data.examples), indices, epochs))


def replayed_gradient(
    model: GPT2,
    recipe: Recipe,
    data: TokenizedData,
    start: Params,
    indices: Collection[int],
    *,
    epochs: Collection[int] = (1,),
    weight: str = "sgd",
    on_step: Callable[[int], None] | None = None,
) -> tuple[Params, list[Exposure]]:
    """Return ``sum_i sum_e w_ie grad l_i(theta_e)`` over the requested examples.

    Args:
      model: The model.
      recipe: The run's recipe.
      data: The run's training data.
      start: The run's starting parameters.
      indices: Examples, by position in ``data``.
      epochs: Which passings count; 1 is the first.
      weight: ``"sgd"``: w = learning rate times the example's share of its batch, the
        weight with which plain SGD applied the gradient; ``"unit"``: w = 1.
      on_step: Called with each finished step, for progress.

    Returns:
      The sum on all leaves, untied as :func:`weighted_gradient`, and what passed when.

    Raises:
      ValueError: An example or epoch that the run has not, or an unknown weight.

    Cost: the run up to the last requested step (at most one epoch for ``epochs=(1,)``)
    and one more backward pass over the requested examples.
    """
    total = tree.zeros_like(untie(start))
    seen = []
    for passed, gradient in passing_gradients(
        model, recipe, data, start, indices, epochs, weight, on_step, one=False
    ):
        total = tree.add_scaled(total, 1.0, gradient)
        seen += passed
    return total, seen


def replayed_gradients(
    model: GPT2,
    recipe: Recipe,
    data: TokenizedData,
    start: Params,
    indices: Collection[int],
    *,
    epochs: Collection[int] = (1,),
    weight: str = "sgd",
    on_step: Callable[[int], None] | None = None,
) -> dict[int, Params]:
    """Return ``{i: sum_e w_ie grad l_i(theta_e)}``: each example's gradient by itself.

    As :func:`replayed_gradient`, at the price of one backward pass an example and of
    memory for all the gradients.
    """
    apart: dict[int, Params] = {}
    for passed, gradient in passing_gradients(
        model, recipe, data, start, indices, epochs, weight, on_step, one=True
    ):
        index = passed[0].index
        known = apart.get(index)
        apart[index] = (
            gradient if known is None else tree.add_scaled(known, 1.0, gradient)
        )
    return apart


def passing_gradients(
    model: GPT2,
    recipe: Recipe,
    data: TokenizedData,
    start: Params,
    indices: Collection[int],
    epochs: Collection[int],
    weight: str,
    on_step: Callable[[int], None] | None,
    *,
    one: bool,
) -> Iterator[tuple[list[Exposure], Params]]:
    """Yield what passed, and its weighted gradient: a step's sum, or ``one`` by one."""
    if weight not in WEIGHTS:
        raise ValueError(f"weight={weight!r}: one of {', '.join(WEIGHTS)}")
    n = len(data.examples)
    wanted = exposures(recipe, n, indices, epochs)
    rows = 1 if one else max(len(hits) for hits in wanted.values())
    per_epoch = steps_per_epoch(recipe, n)
    steps = run_again(model, recipe, data, start, max(wanted), on_step=on_step)
    for s, (state, batch) in enumerate(steps):
        if s not in wanted:
            continue
        rates = update_weights(recipe, batch, s, recipe.epochs * per_epoch)
        passed = [
            Exposure(int(batch["index"][p]), s // per_epoch + 1, s, float(rates[p]))
            for p in wanted[s]
        ]
        for group in [[x] for x in passed] if one else [passed]:
            coefficients = np.zeros(rows, np.float32)
            coefficients[: len(group)] = [
                x.update_weight if weight == "sgd" else 1.0 for x in group
            ]
            part = collate(
                data,
                [x.index for x in group],
                batch_size=rows,
                length=data.length,
            )
            key = step_key(recipe, model, s)
            gradient = compiled_gradient(
                model, state.params, part, coefficients, key=key
            )
            yield group, gradient
