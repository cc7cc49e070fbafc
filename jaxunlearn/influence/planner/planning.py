"""What a run of influence scores will need, before it runs.

The run's own programs are compiled with shapes only, and XLA says how much memory each
takes: nothing is computed, and no parameter need exist.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.arguments import stacked_folders
from jaxunlearn.gradients.flops import matrix_flops
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence.planner.methods import PARTS_ADD_UP, STAGES, matrices_for
from jaxunlearn.influence.planner.search import (
    batch_sizes,
    expression,
    largest_fitting,
    split_evenly,
)
from jaxunlearn.influence.planner.stages import Stage, Task, size_of
from jaxunlearn.influence.planner.table import Plan, PlannedStage
from jaxunlearn.influence.work import CURVATURES
from jaxunlearn.types import Batch, Params, PerExampleLoss

TOO_MANY_BYTES = 2**62
"""What a program needs that the compiler gave up on."""


Measure = Callable[[Stage, int, int], PlannedStage]
"""``(stage, batch size, queries) -> its needs``, remembered."""


def plan(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    *,
    method: str = "gradient_dot",
    queries: int,
    examples: int,
    limit_bytes: int,
    layers: str | None = None,
    query_loss: PerExampleLoss | None = None,
    query_batch: Batch | None = None,
    aggregate: str | None = None,
    curvature: str = "fisher",
    projection: Projection | None = None,
    rank: int = 50,
    largest_batch_size: int = 256,
) -> Plan:
    """Return what scoring needs, stage by stage, and the parts in which it fits.

    The largest batch size of each stage is a power of two (or all there is): XLA's
    memory is nearly affine in it, so that a line through two sizes finds it, and one
    size more shows that the next would not fit. Queries come in parts if the gradients
    of all do not fit; Kronecker factors in parts of the layers if those of all do not
    fit with one query.

    Args:
      loss: Per-example loss of the training examples.
      params: Parameters, or a tree of ``jax.ShapeDtypeStruct`` of their shapes
        (``jax.eval_shape(lambda: model.init(key=key))``).
      batch: A batch, or shapes of one; its number of examples does not matter.
      method: One of ``STAGES``: a method of ``influence.scores``, or ``"index"``.
      queries: Q.
      examples: n.
      limit_bytes: The memory of one device. Leave a tenth to the allocator.
      layers: Expression of the parameters that count; None is all.
      query_loss: Per-example loss of the queries; None is ``loss``.
      query_batch: As ``batch``, if queries have other shapes.
      aggregate: As in ``influence.scores``: all queries as one.
      curvature: As there, of the iterative inverses.
      projection: As there, of ``logra`` and ``trak``, and of ``index``.
      rank: As there, of ``lanczos`` and ``nystroem``.
      largest_batch_size: No larger one is tried.

    Returns:
      The plan; ``print`` shows it as a table.

    Raises:
      ValueError: A stage does not fit even with one example and one query; the message
        names it and what to try. Or an option is wrong.

    Cost: three to five compilations a stage. Memory is that of XLA's buffers: the
    workspace of library calls (cuBLAS, LAPACK) and the host's copies come on top.

    >>> found = plan(
    ...     lambda params, batch: (batch["x"] @ params - batch["y"]) ** 2,
    ...     jax.ShapeDtypeStruct((8,), jnp.float32),
    ...     {"x": jnp.ones((1, 8)), "y": jnp.ones(1)},
    ...     queries=4, examples=100, limit_bytes=4096,
    ... )
    >>> [(stage.name, stage.calls) for stage in found.stages]
    [('query gradients', 1), ('train sweep', 4)]
    """
    if method not in STAGES:
        raise ValueError(f"method={method!r} cannot be planned: one of {list(STAGES)}")
    for name, value in [
        ("queries", queries),
        ("examples", examples),
        ("limit_bytes", limit_bytes),
        ("largest_batch_size", largest_batch_size),
    ]:
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if curvature not in CURVATURES:
        raise ValueError(f"curvature={curvature!r}: one of {', '.join(CURVATURES)}")
    given = shapes_of(params)
    task = Task(
        loss=loss,
        query_loss=query_loss or loss,
        params=jax.tree.map(in_float32, given),
        batch=shapes_of(dict(batch)),
        query=shapes_of(dict(batch if query_batch is None else query_batch)),
        examples=examples,
        layers=layers,
        summed=aggregate is not None,
        curvature=curvature,
        projection=projection,
        rank=rank,
    )
    # Parameters of another dtype stay beside their float32 copy.
    kept = size_of([x for x in jax.tree.leaves(given) if x != in_float32(x)])
    measure = measurer(kept)
    parts, stages, some = parts_that_fit(method, task, queries, limit_bytes, measure)
    planned, sizes = [], []
    for stage in stages:
        most = {"examples": examples, "queries": some, None: 1}[stage.over]
        candidates = batch_sizes(most, largest_batch_size)
        best = largest_fitting(
            candidates,
            lambda size, stage=stage: measure(stage, size, some).total_bytes,
            limit_bytes,
        )
        planned.append(measure(stage, candidates[best], some))
        if candidates[best] < most:
            sizes.append(candidates[best])
    whole = max([stage.batch_size or 1 for stage in planned])
    return Plan(
        method=method,
        limit_bytes=limit_bytes,
        stages=tuple(planned),
        batch_size=min(sizes, default=whole),
        queries_at_a_time=some,
        query_parts=-(-queries // some),
        layer_parts=tuple(parts),
    )


def shapes_of(arrays: Any) -> Any:
    """Return the shapes of a tree of arrays, or of shapes."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            jnp.shape(x), x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
        ),
        arrays,
    )


def in_float32(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Return the shape as the run casts it."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(x.shape, jnp.float32 if floating else x.dtype)


def measurer(kept: int) -> Measure:
    """Return what compiles a stage at a batch size and says what it needs.

    Nothing is compiled twice: most stages do not depend on how many queries there are.
    """
    known: dict[Any, tuple[tuple[int, int, int], float]] = {}

    def measure(stage: Stage, size: int, queries: int) -> PlannedStage:
        arguments = stage.arguments(size, queries)
        leaves, structure = jax.tree.flatten(arguments)
        key = (stage.function, structure, tuple(leaves))
        if key not in known:
            traced = stage.function.trace(*arguments)
            known[key] = bytes_of(traced.lower()), matrix_flops(traced.jaxpr)
        found, flops = known[key]
        return PlannedStage(
            stage.name,
            None if stage.over is None else size,
            stage.calls(size, queries),
            *found,
            kept + stage.held(queries),
            flops,
        )

    return measure


def bytes_of(lowered: jax.stages.Lowered) -> tuple[int, int, int]:
    """Return the bytes of a program's arguments, of its outputs, and in between."""
    try:
        memory = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        # Compilers for accelerators may try what they compile, or lay it out.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 0, 0, TOO_MANY_BYTES
    if memory is None:
        raise ValueError(
            f"the backend {jax.default_backend()!r} does not tell what memory a "
            f"program takes: plan on another one, as with JAX_PLATFORMS=cpu"
        )
    return (
        memory.argument_size_in_bytes,
        # What takes the place of an argument is not there twice.
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def parts_that_fit(
    method: str, task: Task, queries: int, limit: int, measure: Measure
) -> tuple[list[str | None], list[Stage], int]:
    """Return the parts of the layers, the stages, and how many queries fit.

    Of several parts, each stage is that of the part that needs most.
    """
    some = sorted({-(-queries // parts) for parts in range(1, queries + 1)})
    matrices = matrices_for(task) if method in PARTS_ADD_UP else ()
    stacked = stacked_folders(task.loss, task.params)
    stages: list[Stage] = []
    for count in range(1, max(2, len(matrices) + 1)):
        parts: list[str | None] = [task.layers]
        if count > 1:
            parts = [
                expression(part, stacked) for part in split_evenly(matrices, count)
            ]
        choices = [STAGES[method](task._replace(layers=part)) for part in parts]
        stages = [
            max(same, key=lambda stage: measure(stage, 1, 1).total_bytes)
            if count > 1
            else same[0]
            for same in zip(*choices, strict=True)
        ]

        def need(queries: int, stages: list[Stage] = stages) -> int:
            return max(measure(stage, 1, queries).total_bytes for stage in stages)

        if need(queries) <= limit:
            return parts, stages, queries
        best = largest_fitting(some, need, limit)
        if best is not None:
            return parts, stages, some[best]
    worst = max((measure(s, 1, 1) for s in stages), key=lambda s: s.total_bytes)
    raise ValueError(does_not_fit(worst, method, limit))


def does_not_fit(stage: PlannedStage, method: str, limit: int) -> str:
    """Return what to say when one example and one query are too many."""
    needed = "more than the device has"
    if stage.temporary_bytes < TOO_MANY_BYTES:
        needed = (
            f"{stage.total_bytes / 1e6:.4g} MB (arguments "
            f"{stage.argument_bytes / 1e6:.4g}, outputs {stage.output_bytes / 1e6:.4g},"
            f" temporary {stage.temporary_bytes / 1e6:.4g}, held "
            f"{stage.held_bytes / 1e6:.4g})"
        )
    return (
        f"limit_bytes={limit} ({limit / 1e6:.4g} MB): {method}'s stage {stage.name!r} "
        f"needs {needed} with one example and one query. Try fewer parameters by "
        f"layers=, shorter sequences, remat=True in the model's configuration, or a "
        f"method that holds less (gradient_dot, logra, act_act)"
    )
