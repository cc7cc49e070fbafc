"""``unlearn``: the only driver of unlearning methods, whatever their form."""

import dataclasses
import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import selection
from jaxunlearn.provenance import params_hash
from jaxunlearn.randomness import random_key
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.training.runs import Run
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.calibration import calibrate, passed_limit
from jaxunlearn.unlearning.cost import (
    counted,
    measuring_cost,
    number,
    training_step_flops,
    training_steps,
)
from jaxunlearn.unlearning.descent import Criterion, Goal, descend
from jaxunlearn.unlearning.descent_files import DescentFiles
from jaxunlearn.unlearning.descent_step import WithOptions
from jaxunlearn.unlearning.forms import Direction, Losses, Method, Progress, Sets
from jaxunlearn.unlearning.inputs import check_fit, check_sets, check_task
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.measuring import losses_of_sets, with_known
from jaxunlearn.unlearning.methods import METHODS
from jaxunlearn.unlearning.origin import check_examples, check_origin, check_run
from jaxunlearn.unlearning.outcome import Cost, Outcome, Status, Trial
from jaxunlearn.unlearning.requirements import (
    CONTEXT,
    check_needs,
    check_options,
    check_settings,
    method_named,
)
from jaxunlearn.unlearning.stopping import Rule

RECIPE = Recipe(epochs=10, learning_rate=1e-5, optimizer="adamw", weight_decay=0.01)
"""Of objectives, unless told otherwise: open-unlearning's, without its warm-up."""


def unlearn(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    method: str | Method,
    *,
    target: float | None = None,
    limits: Limits | None = None,
    layers: str | None = None,
    run: Run | None = None,
    indices: Sequence[int] | None = None,
    origin: Path | str | Outcome | None = None,
    scale: float | None = None,
    recipe: Recipe | None = None,
    key: jax.Array | None = None,
    stop: Rule | None = None,
    evaluate_every: int | None = None,
    keep_best: Criterion | None = None,
    directory: Path | str | None = None,
    on_step: Callable[[Progress], None] | None = None,
    before: Mapping[str, float] | None = None,
    **options: Any,
) -> Outcome:
    """Unlearn examples by a method of ``METHODS``, to a forget loss, within limits.

    An objective is descended by the one training loop; an edit gone along to the
    target; the result of a wrapper or an exact method measured as it is. What a method
    needs is checked before any work.

    Args:
      task: The task, or any per-example loss where the method needs no more.
      params: Trained parameters; not changed.
      sets: Examples to forget, to keep and never seen.
      method: A name in ``METHODS``, or a row like its.
      target: The forget loss to reach. An edit needs it, or ``scale``; without it an
        objective takes its recipe's steps.
      limits: What may not be passed; None: the method's own.
      layers: What to change, a regular expression; None: the method's own.
      run: The training run, where the method needs it; the cost is then told as a share
        of training again.
      indices: Positions in the run's data of what is to be forgotten, in the order of
        ``sets.forget``.
      origin: Where ``params`` come from if the run did not end with them: the earlier
        outcome that they are of, or the folder of an earlier ``jaxunlearn unlearn``.
      scale: Of an edit: go this multiple of it instead of searching.
      recipe: Of an objective: epochs of the forget set, optimiser, seed.
      key: Of a method's own draws; None: from the recipe's seed.
      stop: Of an objective: a rule of ``stopping``, asked at every evaluation.
      evaluate_every: Of an objective: steps between evaluations; None is an epoch.
      keep_best: Of an objective without a target: which evaluated parameters to return.
      directory: Where an objective or an exact method saves, and takes up, its work.
      on_step: Called with a :class:`~jaxunlearn.unlearning.forms.Progress` on the way.
      before: Mean losses of the sets at ``params``, by name, where they are known
        already; what measures them there need not do it again.
      options: The method's own.

    Returns:
      The outcome; its ``cost`` is what all this took.

    Raises:
      ValueError: An unknown method, a need that is not met, an option that the method
        does not use, a number out of range, sets that cannot be read again, parameters
        or batches that do not fit the task, parameters that are not of the run, or
        positions in its data that are not those of ``sets.forget``.
    """
    row = method_named(method, METHODS)
    check_task(task)
    check_sets(sets)
    settings = {
        "target": target,
        "limits": limits,
        "layers": layers,
        "scale": scale,
        "recipe": recipe,
        "stop": stop,
        "evaluate_every": evaluate_every,
        "keep_best": keep_best,
        "directory": directory,
    }
    check_settings(row, {k: v for k, v in settings.items() if v is not None})
    check_options(row, options, METHODS)
    check_needs(row, task, sets, run, indices)
    check_run(run)
    check_fit(task, params, sets)
    if run is not None:
        check_origin(run, origin, params)
        if indices is not None:
            check_examples(run, indices, sets.forget)
    started, counts, told = time.perf_counter(), Counter(), []
    recipe = RECIPE if recipe is None else recipe
    directory = None if directory is None else Path(directory)

    step_flops = 0.0
    if row.form == "exact" and run is not None:
        step_flops = training_step_flops(run)

    def tell(progress: Any) -> None:
        if not isinstance(progress, Progress):  # a training step's
            progress = Progress(
                "Training again", progress.step, progress.total, flops=step_flops
            )
        told.append(progress.flops)
        if on_step is not None:
            on_step(progress)

    losses = counted(losses_of_sets(task, sets), counts)
    losses = with_known(losses, params, {} if before is None else before)
    context = {
        "run": run,
        "indices": indices,
        "layers": row.layers if layers is None else layers,
        "key": random_key(recipe.seed) if key is None else key,
        "target": target,
        "limits": row.limits if limits is None else limits,
        "losses": losses,
        "on_step": tell,
        "directory": directory,
    }
    asked = inspect.signature(row.function).parameters
    given = {name: context[name] for name in CONTEXT if name in asked} | options
    flops, peak = 0.0, 0
    if row.form == "objective":
        outcome, used = descend(
            WithOptions(row.function, tuple(sorted(options.items()))),
            task,
            params,
            sets,
            mask=selection(task, params, context["layers"]),
            recipe=recipe,
            key=context["key"],
            losses=losses,
            goal=Goal(target, context["limits"], stop, evaluate_every, keep_best),
            on_step=tell,
            files=DescentFiles(
                directory,
                about_descent(method, options, recipe, context["layers"], params)
                if directory is not None
                else {},
            ),
        )
        flops, peak = used
    elif row.form == "edit":
        outcome = edited(row, task, params, sets, given, context, scale)
    elif row.form == "wrapper":
        outcome = wrapped(row, task, params, sets, given, context)
    else:
        outcome = replaced(row, run, indices, given, losses)
    measured, largest = measuring_cost(task, params, sets, counts)
    total = flops + measured + sum(told)
    again = None if run is None else training_steps(run) * training_step_flops(run)
    cost = Cost(
        time.perf_counter() - started,
        max(peak, largest) or None,
        number(total),
        None if again is None else number(total / again),
    )
    limits = None if row.form == "exact" else context["limits"]
    return outcome._replace(cost=cost, limits=limits)


def edited(
    row: Method,
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    given: Mapping[str, Any],
    context: Mapping[str, Any],
    scale: float | None,
) -> Outcome:
    """Return the outcome of an edit: calibrated, unless it went its own way."""
    result = row.function(task, params, sets, **given)
    if isinstance(result, Outcome):
        return result
    mask = selection(task, params, context["layers"])
    if isinstance(result, Direction):
        direction = result.step
    else:
        direction = tree.subtract(result, params)
    losses, target = context["losses"], context["target"]
    return calibrate(
        params,
        tree.masked(direction, mask),
        forget_loss=losses.forget,
        retain_loss=losses.retain,
        target=sys.float_info.max if target is None else target,
        layer_norm=float(tree.norm(params, mask)),
        limits=context["limits"],
        scale=scale,
    )


def wrapped(
    row: Method,
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    given: Mapping[str, Any],
    context: Mapping[str, Any],
) -> Outcome:
    """Return the outcome of a wrapper: the same parameters, and another task."""
    new = row.function(task, params, sets, **given)
    now, target = losses_of_sets(new, sets), context["target"]
    trial = Trial(1.0, now.forget(params), now.retain(params), 0.0)
    before = context["losses"].retain(params)
    status = passed_limit(trial, before, context["limits"])
    if status is not None:
        return Outcome(params, status, 0, (trial,))
    if target is None:
        status = Status.APPLIED
    else:
        status = Status.REACHED if trial.forget >= target else Status.SHORT
    return Outcome(params, status, 0, (trial,), task=new)


def replaced(
    row: Method,
    run: Any,
    indices: Any,
    given: Mapping[str, Any],
    losses: Losses,
) -> Outcome:
    """Return the outcome of an exact method: its parameters, whatever they measure."""
    given = {k: v for k, v in given.items() if k not in ("run", "indices")}
    result = row.function(run, indices, **given)
    trial = Trial(
        1.0, losses.forget(result.params), losses.retain(result.params), float("nan")
    )
    proof = getattr(result, "proof", None)
    details = dataclasses.asdict(proof) if dataclasses.is_dataclass(proof) else {}
    return Outcome(result.params, Status.APPLIED, 1, (trial,), details=details)


def about_descent(
    method: str | Method,
    options: Mapping[str, Any],
    recipe: Recipe,
    layers: str,
    params: Params,
) -> dict[str, Any]:
    """Return what a descent is a function of, as JSON values; of its data no texts."""
    return {
        "method": method if isinstance(method, str) else method.source,
        "options": dict(options),
        "recipe": dataclasses.asdict(recipe),
        "layers": layers,
        "params_sha256": params_hash(params),
    }
