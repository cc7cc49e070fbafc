"""One step down an objective, as one compiled program."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


@dataclasses.dataclass(frozen=True)
class WithOptions:
    """A method with its options; equal ones share compiled programs."""

    function: Callable[..., Objective]
    options: tuple[tuple[str, Any], ...]

    def __call__(self, task: Any) -> Objective:
        """Return the objective of a task."""
        return self.function(task, **dict(self.options))


class FrozenMask(NamedTuple):
    """A mask of parameters that programs are remembered by."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], bytes], ...]  # shape, booleans


def frozen(mask: Params) -> FrozenMask:
    """Return a mask as a value with a hash."""
    leaves, structure = jax.tree.flatten(mask)
    arrays = [np.asarray(leaf, bool) for leaf in leaves]
    return FrozenMask(structure, tuple((x.shape, x.tobytes()) for x in arrays))


def thawed(mask: FrozenMask) -> Params:
    """Return the mask that was frozen, of NumPy arrays."""
    leaves = [np.frombuffer(x, bool).reshape(shape) for shape, x in mask.leaves]
    return jax.tree.unflatten(mask.structure, leaves)


def split_task(task: PerExampleLoss) -> tuple[Any, Any]:
    """Return the arrays of a task as an argument, and the task where it has none."""
    return (task, None) if is_tree(task) else ((), task)


def remembered(program: Callable, *static: Any) -> Callable:
    """Return a cached ``program(*static)``; made anew where an option has no hash."""
    try:
        hash(static)
    except TypeError:
        return inspect.unwrap(program)(*static)
    return program(*static)


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
    the task's arrays and the key, so that they are no constants of the program. That of
    equal ``make``, ``transform`` and mask is the same, and compiled once. Parameters
    and optimizer state are consumed: the new ones take their place in memory. What an
    objective keeps may be a tree that others hold too, and stays.
    """
    arrays, whole = split_task(task)
    step = remembered(compiled_step, make, whole, transform, frozen(mask))
    return step, (arrays, key)


@functools.lru_cache(maxsize=16)
def compiled_step(
    make: MakeObjective,
    whole: Any,
    transform: optax.GradientTransformation,
    mask: FrozenMask,
) -> Callable[..., tuple]:
    """Return the jitted step; ``whole`` is the task where it is no argument."""

    def step(
        argument: tuple[Any, jax.Array],
        params: Params,
        opt_state: optax.OptState,
        objective: Any,
        number: jax.Array,
        batches: Sets,
    ) -> tuple:
        task, key = argument
        loss = make(task if whole is None else whole).loss
        gradient, objective = jax.grad(loss, has_aux=True)(
            params, objective, batches, jax.random.fold_in(key, number)
        )
        # Of NumPy arrays: what is not to change costs no gradient.
        chosen = thawed(mask)
        gradient = tree.masked(gradient, chosen)
        updates, opt_state = transform.update(gradient, opt_state, params)
        # Not the gradient alone: decay and momentum would move what is to stay.
        params = tree.add_scaled(params, 1.0, tree.masked(updates, chosen))
        return params, opt_state, objective, number + 1

    return jax.jit(step, donate_argnums=(1, 2))


def reference_columns(
    make: MakeObjective, task: PerExampleLoss, params: Params
) -> Callable[[Batch], Mapping[str, jax.Array]] | None:
    """Return what gives the columns that an objective wants of the start, or None."""
    if make(task).reference is None:
        return None
    arrays, whole = split_task(task)
    columns = remembered(compiled_columns, make, whole)
    return lambda batch: columns(arrays, params, dict(batch))


@functools.lru_cache(maxsize=16)
def compiled_columns(
    make: MakeObjective, whole: Any
) -> Callable[..., Mapping[str, jax.Array]]:
    """Return the jitted columns; ``whole`` is the task where it is no argument."""

    @jax.jit
    def columns(argument: Any, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        reference = make(argument if whole is None else whole).reference
        assert reference is not None  # asked by reference_columns
        return reference(params, batch)

    return columns
