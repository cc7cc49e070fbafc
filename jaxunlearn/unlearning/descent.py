"""The one training loop of objectives: two streams, one optimiser, rules on the way."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

from jaxunlearn import tree
from jaxunlearn.training.recipe import Recipe, optimizer, steps_per_epoch
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.calibration import calibrate, passed_limit
from jaxunlearn.unlearning.cost import program_bytes, program_flops
from jaxunlearn.unlearning.descent_files import DescentFiles
from jaxunlearn.unlearning.descent_step import (
    Descent,
    MakeObjective,
    initial_descent,
    make_step,
    reference_columns,
)
from jaxunlearn.unlearning.forms import Losses, Progress, Sets
from jaxunlearn.unlearning.limits import Limits, check_limits, unbounded
from jaxunlearn.unlearning.outcome import Outcome, PathPoint, Status, Trial
from jaxunlearn.unlearning.stopping import Rule
from jaxunlearn.unlearning.streams import sets_of_step, stacked_rows

SAVE_SECONDS = 60.0

Criterion = Literal["highest_forget", "lowest_retain", "nearest_to_unseen"]

CRITERIA: dict[str, Callable[[PathPoint], float]] = {
    "highest_forget": lambda point: -point.forget,
    "lowest_retain": lambda point: point.retain,
    "nearest_to_unseen": lambda point: abs(point.forget - point.scores["unseen"]),
}
"""What the kept checkpoint has least of, among those within the limits."""


class Goal(NamedTuple):
    """Where a descent is to end, and what it must not pass."""

    target: float | None
    limits: Limits
    stop: Rule | None
    evaluate_every: int | None
    keep_best: Criterion | None


class Used(NamedTuple):
    """What the steps took."""

    flops: float
    peak_bytes: int


def descend(
    make: MakeObjective,
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    mask: Params,
    recipe: Recipe,
    key: jax.Array,
    losses: Losses,
    goal: Goal,
    on_step: Callable[[Progress], None],
    files: DescentFiles,
) -> tuple[Outcome, Used]:
    """Descend an objective from ``params``, and look at the losses every few steps.

    Step s takes the batches of (recipe.seed, s), forget and retain examples each in an
    order of their own, and the key ``fold_in(key, s)``. An epoch is one of the forget
    set. Steps add up in float32; what is measured and returned is rounded from there to
    the dtypes of ``params``. Parameters outside of ``mask`` stay bit for bit.

    With a target, the way between the last evaluation before it and the first one past
    it is shortened, so that methods are compared at the same forget loss.

    Args:
      make: From a task to its objective.
      task: The task; its arrays are arguments of the compiled step.
      params: Starting parameters; not changed.
      sets: Examples.
      mask: What to change.
      recipe: Epochs, batch size, optimiser, seed.
      key: Of the objective's own draws.
      losses: Mean losses of the sets.
      goal: Where to end.
      on_step: Called after each step.
      files: Where to take up and to save.

    Returns:
      The outcome, its history with a point an evaluation, and what the steps took.
    """
    check_descent(recipe, goal, sets)
    rows = Sets(
        stacked_rows(sets.forget, reference_columns(make, task, params)),
        *(None if part is None else stacked_rows(part) for part in sets[1:]),
    )
    per_epoch = steps_per_epoch(recipe, len(rows.forget["index"]))
    total = recipe.epochs * per_epoch
    every = goal.evaluate_every or per_epoch
    transform = optimizer(recipe, total)
    step, argument = make_step(make, task, transform, mask, key)
    layer_norm = float(tree.norm(params, mask))

    def batches(number: int) -> Sets:
        return sets_of_step(
            rows, seed=recipe.seed, step=number, batch_size=recipe.batch_size
        )

    def look_at(masters: Params, number: int) -> PathPoint:
        stored = tree.rounded(masters, params)
        moved = float(tree.norm(tree.subtract(stored, params))) / layer_norm
        scores = {} if losses.unseen is None else {"unseen": losses.unseen(stored)}
        forget, retain = losses.forget(stored), losses.retain(stored)
        return PathPoint(number, forget, retain, scores=scores, relative_step=moved)

    state = initial_descent(make(task), transform, params, key)
    if goal.target is not None:
        state = state._replace(previous=tree.master_weights(params))
    if goal.keep_best is not None:
        state = state._replace(best=tree.master_weights(params))
    state, history = files.resume(state)
    if not history:
        history.append(look_at(state.params, 0))
    if goal.target is not None and history[0].forget >= goal.target:
        return Outcome(params, Status.ALREADY, 0, history=(history[0],)), Used(0.0, 0)
    first, saved, end = int(state.step), time.monotonic(), None
    for done in range(first + 1, total + 1):
        moved = step(argument, *step_inputs(state), batches(done - 1))
        state = Descent(*moved, previous=state.previous, best=state.best)
        on_step(Progress("Unlearning", done, total, history[-1].forget))
        if done % every == 0 or done == total:
            history.append(look_at(state.params, done))
            if past_target(history, goal):
                state = shortened(state, params, losses, goal, layer_norm)
                history[-1] = look_at(state.params, done)
            end = ending(history, goal, last=done == total)
            if end is not None:
                break
            if best_step(history, goal) == done:
                state = state._replace(best=tree.master_weights(state.params))
            if goal.target is not None:
                state = state._replace(previous=tree.master_weights(state.params))
        if time.monotonic() - saved > SAVE_SECONDS:
            files.save(state, history)
            saved = time.monotonic()
    if end is None:  # taken up after the last step
        end = ending(history, goal, last=True)
    assert end is not None
    outcome = ended(end, state, history, params, goal)
    given = (argument, *step_inputs(state), batches(0))
    taken = history[-1].step - first
    return outcome, Used(
        taken * program_flops(step, *given),
        program_bytes(step, *given) if taken else 0,
    )


class End(NamedTuple):
    """Why a descent ends."""

    status: Status
    reason: str


def past_target(history: list[PathPoint], goal: Goal) -> bool:
    """Return whether the last point is at the target."""
    return goal.target is not None and history[-1].forget >= goal.target


def ending(history: list[PathPoint], goal: Goal, *, last: bool) -> End | None:
    """Return why a descent ends at its last point, or None."""
    limit = passed_limit(trial_of(history[-1]), history[0].retain, goal.limits)
    if limit is not None:
        return End(limit, "a limit was passed")
    if past_target(history, goal):
        return End(Status.REACHED, "the forget loss is at its target")
    reason = None if goal.stop is None else goal.stop(history)
    if reason is not None:
        return End(Status.STOPPED, reason)
    if not last:
        return None
    return End(
        Status.APPLIED if goal.target is None else Status.STEPS, "the steps ran out"
    )


def ended(
    end: End, state: Descent, history: list[PathPoint], params: Params, goal: Goal
) -> Outcome:
    """Return the outcome of a descent: which parameters it comes to, and its path.

    Past a limit, or short of a target, these are the ones that came, or the kept ones.
    """
    within = end.status in (Status.REACHED, Status.STOPPED, Status.APPLIED)
    if goal.keep_best is not None:
        judged = history if within else history[:-1]
        steps, masters = best_step(judged, goal) or 0, state.best
        if steps == history[-1].step:
            masters = state.params  # the last point is the best
    else:
        steps, masters = history[-1].step if within else 0, state.params
    return Outcome(
        tree.rounded(masters, params) if steps else params,
        end.status,
        steps,
        tuple(map(trial_of, history[1:])),
        history=tuple(history),
        details={"reason": end.reason},
    )


def shortened(
    state: Descent, params: Params, losses: Losses, goal: Goal, layer_norm: float
) -> Descent:
    """Return the state at the target, between the last two evaluations."""
    assert goal.target is not None
    last = calibrate(
        state.previous,
        tree.subtract(state.params, state.previous),
        forget_loss=lambda point: losses.forget(tree.rounded(point, params)),
        retain_loss=lambda point: 0.0,  # judged afterwards, from the start on
        target=goal.target,
        layer_norm=layer_norm,
        limits=unbounded(goal.limits),
    )
    # Where the loss is not monotone in between the target may be missed there.
    return state._replace(params=last.params) if last.scale else state


def step_inputs(state: Descent) -> tuple:
    """Return what a step reads and writes of a state."""
    return state.params, state.opt_state, state.objective, state.step


def best_step(history: list[PathPoint], goal: Goal) -> int | None:
    """Return the step of the point to keep, of equals the first; None for none."""
    if goal.keep_best is None or len(history) < 2:
        return None
    return min(history[1:], key=CRITERIA[goal.keep_best]).step


def trial_of(point: PathPoint) -> Trial:
    """Return a point as a trial."""
    return Trial(point.relative_step, point.forget, point.retain, point.relative_step)


def check_descent(recipe: Recipe, goal: Goal, sets: Sets) -> None:
    """Refuse settings that do not go with the loop, before any work."""
    check_limits(goal.limits)
    if goal.evaluate_every is not None and goal.evaluate_every < 1:
        raise ValueError(f"evaluate_every={goal.evaluate_every}: at least 1, or None")
    kept = goal.keep_best
    if kept is not None and kept not in CRITERIA:
        raise ValueError(f"keep_best={kept!r}: one of {', '.join(CRITERIA)}")
    if kept is not None and goal.target is not None:
        raise ValueError(
            f"keep_best={kept!r} has no effect with target={goal.target}, which says "
            f"where to end: leave one of them out"
        )
    if kept == "nearest_to_unseen" and sets.unseen is None:
        raise ValueError("keep_best='nearest_to_unseen' needs sets.unseen")
    if recipe.microbatch_size is not None or recipe.reduction != "token":
        raise ValueError(
            f"microbatch_size={recipe.microbatch_size}, reduction={recipe.reduction!r} "
            f"have no effect here: terms say how examples count; leave them out, and "
            f"lower batch_size where memory is short"
        )
