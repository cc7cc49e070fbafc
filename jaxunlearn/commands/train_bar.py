"""Training with a progress bar."""

from collections.abc import Callable

from jaxunlearn import training
from jaxunlearn.commands.console import console, progress_bar
from jaxunlearn.training import Run, checkpoints
from jaxunlearn.training.recipe import steps_per_epoch
from jaxunlearn.types import Params


def train_run(
    run: Run,
    params: Params,
    *,
    evaluate: Callable[[Params], dict] | None = None,
    evaluate_every: int | None = None,
    keep_every: int | None = None,
    title: str = "Training",
) -> training.Training:
    """Train an open run with a progress bar, or take it up where it stood."""
    total = run.recipe.epochs * steps_per_epoch(run.recipe, len(run.data.examples))
    done = checkpoints.latest_step(run.directory / "checkpoints")
    if done is not None:
        console.print(f"Taking up {run.directory} at step {done} of {total}.")
    with progress_bar(title, total) as update:
        return training.train(
            run.model,
            params,
            run.data,
            run.recipe,
            directory=run.directory,
            recording=run.recording,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            keep_every=keep_every,
            on_step=lambda p: update(p.step, f"loss {p.loss:.3f}"),
        )
