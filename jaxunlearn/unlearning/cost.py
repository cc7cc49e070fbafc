"""What unlearning took: seconds, memory and operations, beside those of retraining."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.gradients.batching import compiled, compiled_sums
from jaxunlearn.gradients.flops import matrix_flops
from jaxunlearn.gradients.programs import UnreadProgram
from jaxunlearn.training.losses import gradient_of_sum, losses_of_batch
from jaxunlearn.training.recipe import (
    batch_at,
    compiled_step,
    initial_state,
    optimizer,
    steps_per_epoch,
)
from jaxunlearn.training.runs import Run
from jaxunlearn.types import Batch, PerExampleLoss
from jaxunlearn.unlearning.forms import Losses, Sets


def counted(losses: Losses, counts: Counter) -> Losses:
    """Return the losses with their calls counted, by name of the set."""

    def count(name: str, function: Callable | None) -> Callable | None:
        if function is None:
            return None

        def call(params: Any) -> Any:
            counts[name] += 1
            return function(params)

        return call

    names = {"examples": "forget"}
    return Losses(
        **{
            name: count(names.get(name, name), function)
            for name, function in losses._asdict().items()
        }
    )


def program_flops(program: Any, *arguments: Any) -> float:
    """Return the flops of a jitted function's matrix products; NaN where unread.

    XLA's own count sees the body of a loop once, and models scan their layers.
    """
    try:
        return matrix_flops(program.trace(*arguments).jaxpr)
    except UnreadProgram:
        return math.nan


def program_bytes(program: Any, *arguments: Any) -> int:
    """Return the bytes that a jitted function needs: arguments, results, temporaries.

    Of a program that ran with such arguments this compiles nothing.
    """
    planned = program.lower(*arguments).compile().memory_analysis()
    if planned is None:
        return 0
    return (
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        + planned.temp_size_in_bytes
        - planned.alias_size_in_bytes
    )


def measuring_cost(
    task: PerExampleLoss, params: Any, sets: Sets, counts: Counter
) -> tuple[float, int]:
    """Return the flops of what was measured, and the bytes of its largest program.

    Args:
      task: The task.
      params: Parameters, for their shapes.
      sets: What was measured.
      counts: How often each set was measured, and ``gradient`` the forget set's.
    """
    flops, most = 0.0, 0
    given = (as_argument(task), params)
    losses, gradient = (
        Partial(losses_of_batch, *given),
        Partial(gradient_of_sum, *given),
    )
    for name in (*sets._fields, "gradient"):
        batches: Iterable[Batch] | None = getattr(sets, name, sets.forget)
        if not counts[name] or batches is None:
            continue
        number, batch = sum(1 for _ in batches), dict(next(iter(batches)))
        if name == "gradient":
            used = (compiled_sums, gradient, batch, None)
        else:
            used = (compiled, losses, batch)
        flops += counts[name] * number * program_flops(*used)
        most = max(most, program_bytes(*used))
    return flops, most


def training_step_flops(run: Run) -> float:
    """Return the flops of one step of a training run."""
    recipe, total = run.recipe, training_steps(run)
    like = jax.eval_shape(lambda key: run.model.init(key=key), jax.random.key(0))
    state = jax.eval_shape(
        lambda params: initial_state(params, optimizer(recipe, total)), like
    )
    batch = jax.tree.map(np.asarray, batch_at(recipe, run.data, 0))
    return program_flops(compiled_step(run.model, recipe, total), state, batch)


def training_steps(run: Run) -> int:
    """Return the steps of a training run."""
    return run.recipe.epochs * steps_per_epoch(run.recipe, len(run.data.examples))


def number(value: float) -> float | None:
    """Return a number; None in place of NaN."""
    return None if value != value else value
