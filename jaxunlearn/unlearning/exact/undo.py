"""Undo: a run as it was some steps ago, from the checkpoint before by replay."""

from collections.abc import Callable
from typing import NamedTuple

from jaxunlearn import tree
from jaxunlearn.placement import data_mesh, replicate, split
from jaxunlearn.training import checkpoints
from jaxunlearn.training.loop import Progress, compiled_recording_step
from jaxunlearn.training.recipe import (
    TrainingState,
    batch_at,
    compiled_step,
    steps_per_epoch,
)
from jaxunlearn.training.runs import TRAINED, Run
from jaxunlearn.types import Params
from jaxunlearn.unlearning.exact.replay import state_at
from jaxunlearn.unlearning.exact.schedule import unused_examples


class PastState(NamedTuple):
    """What a run held some steps ago.

    Attributes:
      params: The parameters, in the dtypes of the run's start.
      state: The training state: float32 weights, the optimizer's state, and the steps
        done. ``train(..., state=)`` goes on from it.
      unused: Positions of the examples that had not been used yet.
      checkpoint: Steps done where the replay began; 0 is the start.
    """

    params: Params
    state: TrainingState
    unused: list[int]
    checkpoint: int


def undo_steps(
    run: Run,
    steps: int,
    *,
    checkpoint: int | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> PastState:
    """Return a run as it was ``steps`` steps ago.

    To the bit what the run held then, on the same device and versions: its last steps
    are not reversed but never taken. They are gone with all that they learned, of
    examples to keep too. An example is forgotten where all its uses lie among them, as
    of a run's first epoch are those in ``unused``; others are what
    :func:`~jaxunlearn.unlearning.exact.replay.exact_replay` is for.

    Args:
      run: An open run, at its end or interrupted: then its last checkpoint is its end.
      steps: How many of its last steps to undo; 0 is none.
      checkpoint: Steps done where to begin; None is the last checkpoint before, 0 the
        start.
      on_step: Called after each step that is taken again.

    Raises:
      ValueError: The run has not so many steps; ``checkpoint`` is not there or lies
        behind the aim; a file of the run is damaged.

    Cost: the steps from the checkpoint on, with checkpoints every c steps fewer than c.
    The memory of training.
    """
    size = len(run.data.examples)
    per_epoch = steps_per_epoch(run.recipe, size)
    total = run.recipe.epochs * per_epoch
    there = checkpoints.steps(run.directory / "checkpoints")
    ended = (run.directory / TRAINED).exists()
    done = total if ended else max(there, default=0)
    if not 0 <= steps <= done:
        raise ValueError(f"steps={steps}: the run has done {done}, give 0 to {done}")
    aim = done - steps
    before = [0, *(step for step in there if step <= aim)]
    begin = max(before) if checkpoint is None else checkpoint
    if begin not in before:
        raise ValueError(
            f"checkpoint={checkpoint}: the run has {before} up to step {aim}, {steps} "
            f"before its end; name one of these, or None"
        )
    start = run.start
    mesh = data_mesh(run.recipe.microbatch_size or run.recipe.batch_size)
    state = replicate(state_at(run, start, begin), mesh)
    plain, record, epochs = compiled_step(run.model, run.recipe, total), None, ()
    if run.recording is not None:  # whose steps round otherwise
        epochs = run.recording.epochs
        record = compiled_recording_step(run.model, run.data, run.recipe, run.recording)
    for step in range(begin, aim):
        batch = split(batch_at(run.recipe, run.data, step), mesh)
        if record is not None and step // per_epoch + 1 in epochs:
            state, metrics, _ = record(state, batch)
        else:
            state, metrics = plain(state, batch)
        if on_step is not None:
            on_step(Progress(step + 1, aim, float(metrics.loss)))
    return PastState(
        tree.rounded(state.params, start),
        state,
        unused_examples(run.recipe, size, aim),
        begin,
    )
