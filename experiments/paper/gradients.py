"""Gradients of any training examples: in the first epoch, and at given parameters."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper.laboratory import Lab, one_step
from experiments.paper.matched import Key
from jaxunlearn import tree
from jaxunlearn.training import Recipe
from jaxunlearn.training.recipe import initial_state, optimizer
from jaxunlearn.training.weighted import take_batch
from jaxunlearn.types import Params


def first_epoch_gradients(
    lab: Lab, sets: Sequence[Sequence[Sequence[int]]]
) -> list[Params]:
    """Return the first epoch's gradients of any examples, summed, [seeds, ...] a set.

    Those of the forgotten were recorded. For others the first epoch is run once more,
    and each step's gradients are taken before it as the recording did.

    Args:
      lab: The runs.
      sets: Sets of examples; each has the examples of each seed.
    """
    seeds, steps, _ = lab.orders.shape
    count = len(lab.sets.train["index"])
    weights = np.zeros((seeds, len(sets), count), np.float32)
    for i, rows in enumerate(sets):
        for seed, row in enumerate(rows):
            weights[seed, i, row] = 1
    first = lab.orders[:, : steps // lab.recipe.epochs]
    sums = first_epoch(Key(lab), lab.recipe, steps)(first, weights)
    return [jax.tree.map(lambda x, i=i: x[:, i], sums) for i in range(len(sets))]


@functools.lru_cache(maxsize=8)
def first_epoch(at: Key, recipe: Recipe, total: int) -> Callable:
    """Return the jitted epoch, over seeds: sums of weighted gradients, [sets, ...]."""
    lab = at.lab
    transform = optimizer(recipe, total)

    def one(order, weights):
        def step(carry, rows):
            state, sums = carry
            batch = take_batch(lab.sets.train, rows)
            _, pull = jax.vjp(
                lambda params: lab.model.per_example_loss(params, batch), state.params
            )
            chosen = jnp.where(rows >= 0, weights[:, jnp.maximum(rows, 0)], 0.0)
            (gradients,) = jax.vmap(pull)(chosen)
            state, _ = one_step(
                lab.model, recipe, transform, lab.sets.train, state, rows
            )
            return (state, tree.add_scaled(sums, 1.0, gradients)), None

        zeros = jax.tree.map(lambda x: jnp.zeros((len(weights), *x.shape)), lab.start)
        start = jax.tree.map(jnp.asarray, lab.start)
        carry = initial_state(start, transform), zeros
        return jax.lax.scan(step, carry, order)[0][1]

    return jax.jit(jax.vmap(one))


@functools.lru_cache(maxsize=8)
def mean_gradient(at: Key) -> Callable[[Params, np.ndarray], Params]:
    """Return the jitted gradient of the mean loss of training examples, by seed."""
    lab = at.lab

    def loss(params, rows):
        batch = take_batch(lab.sets.train, rows)
        return jnp.mean(lab.model.per_example_loss(params, batch))

    return jax.jit(jax.vmap(jax.grad(loss)))


def cosine(a: Params, b: Params) -> np.ndarray:
    """Return the cosine of two directions, float64[seeds]."""
    product = jax.vmap(tree.vdot)(a, b)
    norms = jax.vmap(tree.norm)(a) * jax.vmap(tree.norm)(b)
    return np.asarray(product / norms, np.float64)
