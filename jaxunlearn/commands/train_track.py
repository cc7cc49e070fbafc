"""Influence followed through a training run: `jaxunlearn train --track`."""

from collections.abc import Callable, Sequence

from jaxunlearn.commands.arguments import listed
from jaxunlearn.data import in_order, record_text, subset, tokenize
from jaxunlearn.influence import TRACKED, save_track, tracked_during
from jaxunlearn.influence.tracking.series import Tracker
from jaxunlearn.sealed import write_sealed
from jaxunlearn.training import Run, checkpoints, mean_loss_of
from jaxunlearn.training.recipe import steps_per_epoch
from jaxunlearn.types import Params

TRACK = "influence_track.npz"
"""In a run's directory; beside it, as .json, where each record stands in the data."""

STATE = "influence_track"
"""The folder of what is tracked so far, from which an interrupted run goes on."""

CURVATURE_EXAMPLES = 32
"""Training examples whose mean loss gives the curvature of a tracked ``hvp``."""


def tracked_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ``--track-methods``, all of them known and different."""
    names = tuple(listed(methods)) or ("",)
    wrong = [name for name in names if name not in TRACKED or names.count(name) > 1]
    if wrong:
        raise ValueError(
            f"--track-methods: {wrong[0]!r} is unknown or there twice; name one or "
            f"more of {', '.join(TRACKED)}"
        )
    return names


def tracker_of(run: Run, records: list[dict], methods: tuple[str, ...]) -> Tracker:
    """Return what follows the influence on records through a run.

    Raises:
      ValueError: The run was trained without it so far, or with another.
    """
    size = len(run.data.examples)
    queries = tokenize(records, run.tokenizer, max_length=run.max_length)
    at_once = run.recipe.microbatch_size or run.recipe.batch_size

    def batched(data, most):
        most = min(most, len(data.examples))
        return list(in_order(data, batch_size=most))

    train = batched(run.data, at_once)
    sample = subset(run.data, range(0, size, -(-size // CURVATURE_EXAMPLES)))
    tracker = tracked_during(
        run.model.per_example_loss,
        train,
        batched(queries, at_once),
        methods=methods,
        curvature_data=batched(sample, CURVATURE_EXAMPLES)[0],
        state=run.directory / STATE,
    )
    step = checkpoints.latest_step(run.directory / "checkpoints") or 0
    if step and len(tracker.points) <= step // steps_per_epoch(run.recipe, size):
        raise ValueError(
            f"--track: the run in {run.directory} has done {step} steps without it, "
            f"and what these epochs were like is gone: train into another --out, or "
            f"go on without --track"
        )
    return tracker


def save_tracked(run: Run, tracker: Tracker, records: list[dict]) -> str:
    """Write the track, and which training examples say what the records say.

    Returns:
      What to tell the user.

    Raises:
      ValueError: It holds more or less than the run's epochs.
    """
    if len(tracker.points) != run.recipe.epochs + 1:
        raise ValueError(
            f"{run.directory / STATE} holds {len(tracker.points)} evaluations of a run "
            f"of {run.recipe.epochs} epochs, some are another run's: delete "
            f"{run.directory} and train again (the model is saved)"
        )

    def said(record: dict) -> str:
        return " ".join(record_text(record).casefold().split())

    places: dict[str, list[int]] = {}
    for place, record in enumerate(run.records):
        places.setdefault(said(record), []).append(place)
    same = [places.get(said(record), []) for record in records]
    path = run.directory / TRACK
    # First: a track never stands there without its places.
    write_sealed(path.with_suffix(".json"), {"same": same})
    save_track(path, tracker.track())
    return (
        f"Influence on {len(records)} records, {sum(map(bool, same))} of them training "
        f"examples: {path}\nLook at it: jaxunlearn report {run.directory}"
    )


def evaluations(
    run: Run, held_out: list[dict] | None, tracker: Tracker | None = None
) -> Callable[[Params], dict[str, float]]:
    """Return the function that measures the losses, and tracks influence beside."""
    # A fixed sample of the training data: the whole would double a short run.
    size = len(run.data.examples)
    sample = subset(run.data, range(0, size, max(1, size // 256)))
    sets = {"train": sample}
    if held_out is not None:
        sets["evaluate"] = tokenize(held_out, run.tokenizer, max_length=run.max_length)
    loss = run.model.per_example_loss
    measures = {name: mean_loss_of(loss, in_order(x)) for name, x in sets.items()}
    if tracker is not None:
        # Of what is tracked a loss alone is told: a table of losses holds no scores.
        measures["tracked"] = lambda params: tracker(params)["influence/query_loss"]
    return lambda params: {name: f(params) for name, f in measures.items()}
