"""One step down an objective, as one compiled program."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import is_tree
from jaxunlearn.types import Batch, Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Objective, Sets

MakeObjective = Callable[[Any], Objective]
"""From a task to its objective."""


class Descent(NamedTuple):
    """All that the next step needs, and what may be returned."""

    params: Params  # master weights, float32
    opt_state: optax.OptState
    objective: Any  # its state
    step: jax.Array  # int32[]: steps done
    previous: Params = ()  # master weights at the last evaluation, where it matters
    best: Params = ()  # those of the checkpoint to keep, where one is kept


def split_task(task: PerExampleLoss) -> tuple[Any, Callable[[Any], Any]]:
    """Return the arrays of a task as an argument, and what makes the task of them."""
    if is_tree(task):
        return task, lambda argument: argument
    return (), lambda _: task  # a function, or a class that is no tree


def initial_descent(
    objective: Objective,
    transform: optax.GradientTransformation,
    params: Params,
    key: jax.Array,
) -> Descent:
    """Return the state before the first step; ``params`` stay the caller's own."""
    masters = tree.master_weights(params)
    # A copy of its own: an objective may keep them, and the step consumes its weights.
    start = tree.master_weights(params)
    state = objective.init(start, jax.random.fold_in(key, 2**32 - 1))
    return Descent(masters, transform.init(masters), state, jnp.int32(0))


def make_step(
    make: MakeObjective,
    task: PerExampleLoss,
    transform: optax.GradientTransformation,
    mask: Params,
    key: jax.Array,
) -> tuple[Callable[..., tuple], Any]:
    """Return the jitted step, and its first argument.

    The step is ``(argument, params, opt_state, objective, step, batches) -> (params,
    opt_state, objective, step)``, in the fields of :class:`Descent`. Its argument are
    the task's arrays, so that they are no constants of the program. Parameters and
    optimizer state are consumed: the new ones take their place in memory. What an
    objective keeps may be a tree that others hold too, and stays.
    """
    argument, restored = split_task(task)

    def step(
        argument: Any,
        params: Params,
        opt_state: optax.OptState,
        objective: Any,
        number: jax.Array,
        batches: Sets,
    ) -> tuple:
        loss = make(restored(argument)).loss
        gradient, objective = jax.grad(loss, has_aux=True)(
            params, objective, batches, jax.random.fold_in(key, number)
        )
        gradient = tree.masked(gradient, mask)
        updates, opt_state = transform.update(gradient, opt_state, params)
        # Not the gradient alone: decay and momentum would move what is to stay.
        params = tree.add_scaled(params, 1.0, tree.masked(updates, mask))
        return params, opt_state, objective, number + 1

    return jax.jit(step, donate_argnums=(1, 2)), argument


def reference_columns(
    make: MakeObjective, task: PerExampleLoss, params: Params
) -> Callable[[Batch], Mapping[str, jax.Array]] | None:
    """Return what gives the columns that an objective wants of the start, or None."""
    if make(task).reference is None:
        return None
    argument, restored = split_task(task)

    @jax.jit
    def columns(argument: Any, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        reference = make(restored(argument)).reference
        assert reference is not None  # asked above
        return reference(params, batch)

    return lambda batch: columns(argument, params, dict(batch))
