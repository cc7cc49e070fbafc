"""The stages of each method of influence: the programs that a run compiles, in shapes.

A stage is what ``influence.scores`` (or an index build) calls again and again, a batch
at a time. Nothing is computed here.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.forward_mode import directional_scores
from jaxunlearn.gradients.gradient_inner_products import products_with
from jaxunlearn.gradients.per_example import per_example_gradients, per_example_norms
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.gradients.projections.rows import projected_gradients
from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.types import Params, PerExampleLoss


class Task(NamedTuple):
    """What a run is of; arrays are shapes."""

    loss: PerExampleLoss
    query_loss: PerExampleLoss
    params: Params  # float32
    batch: Mapping[str, Any]
    query: Mapping[str, Any]
    examples: int
    layers: str | None
    summed: bool
    curvature: str
    projection: Projection | None
    rank: int


class Stage(NamedTuple):
    """One program of a run.

    Attributes:
      name: For the reader.
      function: What ``jax.jit`` returned.
      arguments: ``(batch size, queries) -> shapes``.
      over: What comes in batches: ``"examples"``, ``"queries"``, or None.
      calls: ``(batch size, queries) -> how often the program runs``.
      held: ``queries -> bytes`` in memory meanwhile, beside the arguments.
    """

    name: str
    function: jax.stages.Wrapped
    arguments: Callable[[int, int], tuple]
    over: str | None
    calls: Callable[[int, int], int]
    held: Callable[[int], int] = lambda queries: 0


def size_of(shapes: Any) -> int:
    """Return the bytes of a tree of shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def with_leading(shapes: Any, count: int, *, replace: bool = False) -> Any:
    """Return shapes with ``count`` as another leading axis, or in place of theirs."""
    start = 1 if replace else 0
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape[start:]), x.dtype), shapes
    )


def batch_of(batch: Mapping[str, Any], size: int) -> dict:
    """Return the shapes of a batch of ``size`` examples, with weights."""
    weight = jax.ShapeDtypeStruct((size,), jnp.float32)
    return {**with_leading(dict(batch), size, replace=True), "weight": weight}


def gradients_of(task: Task, count: int) -> Params:
    """Return the shapes of ``count`` gradients of the selected leaves."""
    gradient = functools.partial(
        per_example_gradients, task.query_loss, layers=task.layers
    )
    one = jax.eval_shape(gradient, task.params, batch_of(task.query, 1))
    return with_leading(one, count, replace=True)


def directions_of(task: Task, count: int) -> Params:
    """Return the shapes of what an inverse makes of ``count`` gradients."""
    return with_leading(task.params, count)


def each(task: Task, batch_size: int, queries: int) -> int:
    """Return how many batches the training examples are."""
    return -(-task.examples // batch_size)


def example_stage(task: Task, name: str, function: Callable, *more: Callable, **rest):
    """Return a stage over the training examples; ``more`` turn queries to shapes."""
    return Stage(
        name,
        jax.jit(function),
        lambda size, queries: (
            task.params,
            batch_of(task.batch, size),
            *(shapes(queries) for shapes in more),
        ),
        "examples",
        functools.partial(each, task),
        **rest,
    )


def query_gradients(task: Task) -> Stage:
    """The gradients of the queries, a batch at a time."""
    gradient = functools.partial(
        per_example_gradients, task.query_loss, layers=task.layers
    )
    return Stage(
        "query gradients",
        jax.jit(gradient),
        lambda size, queries: (task.params, batch_of(task.query, size)),
        "queries",
        lambda size, queries: -(-queries // size),
    )


def sweep(task: Task, inverted: bool = False) -> Stage:
    """The products of all training gradients with the directions."""
    function = functools.partial(products_with, task.loss, layers=task.layers)
    if not inverted:
        return example_stage(
            task, "train sweep", function, functools.partial(gradients_of, task)
        )
    # What was inverted has zeros for leaves that are not selected, and no program
    # takes them.
    return example_stage(
        task,
        "train sweep",
        function,
        functools.partial(directions_of, task),
        held=lambda queries: (
            size_of(directions_of(task, queries)) - size_of(gradients_of(task, queries))
        ),
    )


def plain(task: Task) -> list[Stage]:
    """Gradient products; of summed queries by forward mode."""
    if not task.summed:
        return [query_gradients(task), sweep(task)]
    direction = example_stage(
        task,
        "train sweep, forward mode",
        functools.partial(directional_scores, task.loss, layers=task.layers),
        lambda queries: task.params,
        held=lambda queries: size_of(gradients_of(task, queries)),
    )
    return [query_gradients(task), direction]


def norms(task: Task) -> Stage:
    """The norm of each training gradient."""
    return example_stage(
        task,
        "gradient norms",
        functools.partial(per_example_norms, task.loss, layers=task.layers),
    )


def rows(default: Projection) -> Callable[[Task], list[Stage]]:
    """Projected gradients: the rows of an index."""

    def stages(task: Task) -> list[Stage]:
        projection = task.projection or default
        return [
            example_stage(
                task,
                "index rows",
                lambda params, batch: projected_gradients(
                    task.loss, params, batch, projection, layers=task.layers
                ),
            )
        ]

    return stages


def by_activations(kind: str) -> Callable[[Task], list[Stage]]:
    """Activation products."""

    def stages(task: Task) -> list[Stage]:
        def score(params: Params, batch: Any, query: Any) -> Any:
            return activation_scores(
                task.loss,
                params,
                batch,
                query,
                kind=kind,
                query_loss=task.query_loss,
                layers=task.layers,
            )

        return [
            example_stage(
                task, "train sweep", score, lambda count: batch_of(task.query, count)
            )
        ]

    return stages
