"""The training loop: steps, evaluation, checkpoints, recording, resume."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import TokenizedData
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.placement import data_mesh, replicate, split
from jaxunlearn.sealed import read_sealed_lines, write_sealed_lines
from jaxunlearn.training import checkpoints, gradient_store
from jaxunlearn.training.recipe import (
    Recipe,
    StepMetrics,
    TrainingState,
    batch_at,
    check_finite,
    compiled_step,
    initial_state,
    optimizer,
    steps_per_epoch,
    update_weights,
)
from jaxunlearn.training.recorder import (
    ExampleGradients,
    Recording,
    check_recording,
    make_recording_step,
)
from jaxunlearn.training.runs import finish_run
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

CHECKPOINT_SECONDS = 60.0


class Progress(NamedTuple):
    """What the loop tells after each step."""

    step: int  # steps done
    total: int
    loss: float


class Training(NamedTuple):
    """The outcome of a run."""

    params: Params
    losses: list[dict]  # one a step: step, epoch, loss, gradient_norm
    evaluations: list[dict]  # one an evaluation: step, and what it returned


def train(
    model: GPT2,
    params: Params,
    data: TokenizedData,
    recipe: Recipe,
    *,
    directory: Path | None = None,
    recording: Recording | None = None,
    evaluate: Callable[[Params], dict] | None = None,
    evaluate_every: int | None = None,
    keep_every: int | None = None,
    omit: Collection[int] = (),
    state: TrainingState | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Training:
    """Train, and take up an interrupted run where it stood.

    Weights and the optimiser's state are float32 throughout, and so in checkpoints.
    What is evaluated and returned is in the dtypes of ``params``, as it will be stored.

    Args:
      model: The model.
      params: Starting parameters, in 16 bits or more; not changed.
      data: Training examples.
      recipe: How to train.
      directory: Where checkpoints, ``losses.jsonl`` and ``gradients/`` go; None keeps
        nothing on disk. A checkpoint found there is resumed from, to the identical
        trajectory.
      recording: Which gradients to store on the way; needs ``directory``.
      evaluate: Called with the parameters before the first step, every
        ``evaluate_every`` steps (default: an epoch) and at the end.
      evaluate_every: Steps between evaluations.
      keep_every: Steps between checkpoints that stay for good, from which a run without
        some of its examples can be replayed; needs ``directory``. None keeps the latest
        two alone.
      omit: Examples that are never used, by position in ``data``: their rows are
        padding in every batch, and every other row, key and learning rate is as it was.
      state: Where to begin, such as a checkpoint of this run; default: before the first
        step. A checkpoint found in ``directory`` goes before it.
      on_step: Called after each step.

    Returns:
      Trained parameters and the histories.

    Raises:
      ValueError: The loss is not finite any more; a pattern matches nothing.
    """
    per_epoch = steps_per_epoch(recipe, len(data.examples))
    total = recipe.epochs * per_epoch
    every = per_epoch if evaluate_every is None else evaluate_every
    if every < 1:
        raise ValueError(f"evaluate_every={evaluate_every}: at least 1, or None")
    if keep_every is not None and (keep_every < 1 or directory is None):
        raise ValueError(
            f"keep_every={keep_every}: at least 1, and directory= says where; or None"
        )
    plain = compiled_step(model, recipe, total)
    record, recorded_epochs = None, ()
    if recording is not None:
        record = recording_step(model, params, data, recipe, recording, directory)
        recorded_epochs = recording.epochs
    mesh = data_mesh(recipe.microbatch_size or recipe.batch_size)
    if state is None:
        state = initial_state(params, optimizer(recipe, total))
    else:
        state = jax.tree.map(jnp.array, state)  # a copy: each step takes it for good
    state = replicate(state, mesh)
    history = History(directory)
    kept = None if directory is None else directory / "checkpoints"
    latest = None if kept is None else checkpoints.latest_step(kept)
    if kept is not None and latest is not None:
        state = checkpoints.restore(kept, latest, state)
        history.resume(latest)
    first = int(state.step)
    saved = time.monotonic()
    if evaluate is not None and first == 0:
        history.evaluated(0, evaluate(params))
    for step in range(first, total):
        batch = split(batch_at(recipe, data, step, omit=omit), mesh)
        epoch = step // per_epoch + 1
        if record is not None and epoch in recorded_epochs:
            state, metrics = record(state, batch, step)
        else:
            state, metrics = plain(state, batch)
        check_finite(model, recipe, metrics, step)
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
        history.stepped(step + 1, epoch, loss, norm)
        if evaluate is not None and ((step + 1) % every == 0 or step + 1 == total):
            stored = tree.rounded(state.params, params)
            history.evaluated(step + 1, evaluate(stored))
        due = time.monotonic() - saved > CHECKPOINT_SECONDS
        stays = keep_every is not None and (step + 1) % keep_every == 0
        if kept is not None and (due or stays or step + 1 == total):
            save(kept, state, history, keep=stays)
            saved = time.monotonic()
        if on_step is not None:
            on_step(Progress(step + 1, total, loss))
    stored = tree.rounded(state.params, params)
    if directory is not None:
        finish_run(directory, stored)
    return Training(stored, history.losses, history.evaluations)


def recording_step(
    model: GPT2,
    params: Params,
    data: TokenizedData,
    recipe: Recipe,
    recording: Recording,
    directory: Path | None,
) -> Callable[[TrainingState, Batch, int], tuple[TrainingState, StepMetrics]]:
    """Return a step that trains and also stores its examples' gradients."""
    if directory is None:
        raise ValueError("recording needs directory=, where gradients are stored")
    check_recording(recording, recipe, params)
    per_epoch = steps_per_epoch(recipe, len(data.examples))
    total = recipe.epochs * per_epoch
    step = compiled_recording_step(model, data, recipe, recording)

    def record(state, batch, number):
        state, metrics, examples = step(state, batch)
        gradient_store.write_step(
            directory / "gradients",
            examples,
            update_weights(recipe, batch, number, total),
            epoch=number // per_epoch + 1,
            step=number,
            dtype=recording.dtype,
        )
        return state, metrics

    return record


def compiled_recording_step(
    model: GPT2, data: TokenizedData, recipe: Recipe, recording: Recording
) -> Callable[..., tuple[TrainingState, StepMetrics, ExampleGradients]]:
    """Return the jitted step that also gives gradients; it donates its state."""
    total = recipe.epochs * steps_per_epoch(recipe, len(data.examples))
    return jax.jit(
        make_recording_step(
            model,
            recipe,
            optimizer(recipe, total),
            recording.layers,
            head_entries=recording.head_entries,
            label_slots=most_labels(data),
        ),
        donate_argnums=0,
    )


def save(
    directory: Path, state: TrainingState, history: "History", *, keep: bool
) -> None:
    """Write the histories, then the checkpoint that makes them count."""
    history.write()
    checkpoints.save(directory, state, keep=keep)


def most_labels(data: TokenizedData) -> int:
    """Return the most labelled next tokens of any example."""
    return max(int(np.sum(e.labels[1:] != IGNORED_LABEL)) for e in data.examples)


class History:
    """Losses and evaluations, in memory and in ``losses.jsonl``."""

    def __init__(self, directory: Path | None):
        """Start empty; with a directory, kept there."""
        self.path = None if directory is None else directory / "losses.jsonl"
        self.losses: list[dict] = []
        self.evaluations: list[dict] = []

    def stepped(self, step: int, epoch: int, loss: float, norm: float) -> None:
        """Add one step."""
        self.losses.append(
            {"step": step, "epoch": epoch, "loss": loss, "gradient_norm": norm}
        )

    def evaluated(self, step: int, values: dict) -> None:
        """Add one evaluation."""
        self.evaluations.append({"step": step, **values})

    def write(self) -> None:
        """Replace the file by what is known."""
        if self.path is None:
            return
        rows = [{"loss": x} for x in self.losses]
        rows += [{"evaluation": x} for x in self.evaluations]
        write_sealed_lines(self.path, rows)

    def resume(self, step: int) -> None:
        """Read the file, up to ``step``."""
        if self.path is None or not self.path.exists():
            return
        remedy = "delete it to go on without its losses, or train into a new folder"
        for row in read_sealed_lines(self.path, remedy=remedy):
            ((kind, values),) = row.items()
            if values["step"] <= step:
                (self.losses if kind == "loss" else self.evaluations).append(values)
