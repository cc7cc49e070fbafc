"""Iterative unlearning of all seeds at once, and losses along straight lines."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper.laboratory import Lab
from experiments.paper.matched import Key, Matched, matched, target_of
from jaxunlearn import tree
from jaxunlearn.training.weighted import take_batch
from jaxunlearn.types import Params

PLACES = np.linspace(0, 1, 5)  # along a line, its ends among them


def matched_iterative(
    lab: Lab, *, relative_step: float, max_rounds: int = 1000
) -> tuple[Matched, np.ndarray]:
    """Unlearn example by example, all ranked again after each, to the forget loss.

    A round takes the example that is remembered best (its loss is the lowest) and goes
    along its gradient here and now, a step of constant length; the last one is cut by
    bisection, so that the mean loss of all is the target. It is the rule of
    ``jaxunlearn.unlearning.iterative_unlearning``, under ``vmap``.

    Returns:
      Where it ended, and int[seeds]: the rounds.
    """
    target = target_of(lab)
    before, along, rounds = iteration(Key(lab))(
        lab.trained,
        target.astype(np.float32),
        lab.sets.forget,
        relative_step,
        max_rounds,
    )
    end = matched(lab, along, target=target, start=before)
    return end._replace(scale=np.full(len(target), np.nan)), np.asarray(rounds)


@functools.lru_cache(maxsize=8)
def iteration(at: Key) -> Callable:
    """Return jitted rounds: the last point below the target, the gradient there."""
    lab = at.lab

    def one(params, target, rows, relative_step, max_rounds):
        length = relative_step * tree.norm(params)

        def losses_at(params):
            batch = take_batch(lab.sets.train, rows)
            return lab.model.per_example_loss(params, batch)

        def loss_of(params, example):
            batch = take_batch(lab.sets.train, rows[example][None])
            return lab.model.per_example_loss(params, batch)[0]

        def unfinished(carry):
            *_, over, rounds = carry
            return ~over & (rounds < max_rounds)

        def take_round(carry):
            params, losses, _, _, rounds = carry
            gradient = jax.grad(loss_of)(params, jnp.argmin(losses))
            step = length / (tree.norm(gradient) + 1e-30)
            moved = tree.add_scaled(params, step, gradient)
            after = losses_at(moved)
            over = jnp.mean(after) >= target
            params, losses = jax.tree.map(
                lambda a, b: jnp.where(over, a, b), (params, losses), (moved, after)
            )
            return params, losses, gradient, over, rounds + 1

        zeros = tree.zeros_like(params)
        start = (params, losses_at(params), zeros, jnp.array(False), 0)
        before, _, gradient, _, rounds = jax.lax.while_loop(
            unfinished, take_round, start
        )
        return before, gradient, rounds

    return jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None)))


def along_line(
    lab: Lab, start: Params, end: Params, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean losses of rows on the straight line, and the line's barrier.

    ``max_t [L(t) - (1 - t) L(0) - t L(1)]``, at least 0, as
    ``jaxunlearn.evaluation.linear_path`` has it, of all seeds at once.

    Returns:
      float64[places, seeds] and float64[seeds].
    """
    losses = np.asarray(line_losses(Key(lab))(start, end, rows), np.float64).T
    chord = losses[0] + PLACES[:, None] * (losses[-1] - losses[0])
    return losses, np.maximum((losses - chord)[1:-1].max(axis=0), 0.0)


@functools.lru_cache(maxsize=8)
def line_losses(at: Key) -> Callable[..., jax.Array]:
    """Return jitted mean losses on a line, [seeds, places]."""
    lab = at.lab

    def one(start, end, rows):
        batch = take_batch(lab.sets.train, rows)

        def at_place(t):
            params = jax.tree.map(lambda a, b: (1 - t) * a + t * b, start, end)
            return jnp.mean(lab.model.per_example_loss(params, batch))

        return jax.lax.map(at_place, jnp.asarray(PLACES, jnp.float32))

    return jax.jit(jax.vmap(one))
