"""The truth by retraining: models that never saw what was to be forgotten.

Retraining is random, so one retrained model is one draw. Here N of them are trained,
each with its own seed, several at a time by one ``vmap``.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn.data import TokenizedData, subset
from jaxunlearn.evaluation.retrained import files as retrained_files
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.provenance import params_hash
from jaxunlearn.training.recipe import Recipe, training_bytes
from jaxunlearn.training.runs import Run
from jaxunlearn.training.together import train_together
from jaxunlearn.types import Params

DEFAULT_MEMORY = 4 * 2**30
SHARE_OF_MEMORY = 0.75


class TrainingParts(NamedTuple):
    """What :func:`retrain` needs of a run, where there is no run directory."""

    model: GPT2
    recipe: Recipe
    data: TokenizedData
    start: Params


class RetrainingProgress(NamedTuple):
    """What retraining tells after each step."""

    finished: int  # models that are trained
    models: int  # models in all
    seeds: tuple[int, ...]  # those that are being trained together
    step: int  # steps done, of each
    total: int  # steps in all, of each
    losses: np.ndarray  # float32[len(seeds)], of this step's batches


def retrain(
    run: Run | TrainingParts,
    forget: Sequence[int],
    seeds: Sequence[int],
    *,
    start: Callable[[int], Params] | None = None,
    group: int | None = None,
    memory: int | None = None,
    directory: Path | None = None,
    progress: Callable[[RetrainingProgress], None] | None = None,
) -> Iterator[tuple[int, Params]]:
    """Train N models without the forgotten examples, and yield them one by one.

    Each is what ``train`` makes of the reduced data with the run's recipe and this seed
    in place of the run's, to float32 rounding and whatever the group: as many epochs,
    in the steps that the reduced data need. The seeds differ in the order of the data
    and in dropout, and all start from the parameters that the run started from: so the
    models vary as fine-tunings of one model do. ``start`` gives each a start of its
    own, where the initialisation was random too. (Adam makes steps of the rounding
    where a gradient is 0 but for that, as a key's bias: there the parameters may differ
    more, without the model saying anything else.)

    Args:
      run: An open training run, or its parts.
      forget: Examples to leave out, by position in ``run.data.examples``.
      seeds: In place of the recipe's; all different.
      start: From a seed to starting parameters, for fresh initialisations: ``lambda
        seed: model.init(key=jax.random.key(seed))``. None: the run's, for all.
      group: Models trained together, over all devices; 1 is one after the other. None:
        as many as fit in ``memory``, see :func:`group_size`.
      memory: Bytes of a device to train in. None: 3/4 of what the device says it has,
        4 GiB where it does not say.
      directory: Keeps each finished model in ``seed-K``; what is found there is not
        trained again, and models of other seeds may stand beside. An interrupted group
        goes on from its last checkpoint, one a minute, if the same seeds form it again
        (the same call made again), and from its beginning if not. None keeps nothing.
      progress: Called after each step.

    Returns:
      An iterator of (seed, parameters) in the order of ``seeds``, which trains when it
      is asked for a model that is not there yet. ``dict(...)`` of it holds all models;
      a loop holds one group at a time or, with a directory, one model beside it.

    Raises:
      ValueError: Before any training: nothing or everything is to be forgotten, an
        index is out of range, a seed is missing, double or out of range, or the
        directory is of another recipe, data, forget set or start. On the way: a loss
        is not finite any more; names the seeds.

    Cost: N runs on the reduced data, in less time where one model leaves the device
    idle. Memory: training states, gradients and activations of a group.
    """
    forget = checked_forget(forget, len(run.data.examples))
    recipes = seeded_recipes(run.recipe, seeds)
    for name, value in (("group", group), ("memory", memory)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: at least 1, or None")
    shared = None if start is not None else run.start
    start_of = start if start is not None else lambda seed: shared
    if directory is not None:
        directory = Path(directory)
        described = retrained_files.describe(run.model, run.recipe, run.data, forget)
        if start is None:
            starts = {"every seed": params_hash(shared)}
        else:
            starts = {f"seed {x}": params_hash(start(x)) for x in recipes}
        retrained_files.claim(directory, described, starts)
    left_out = set(forget)
    kept = [i for i in range(len(run.data.examples)) if i not in left_out]
    reduced = run._replace(data=subset(run.data, kept))
    return trained_models(
        reduced, recipes, start_of, group, memory, directory, progress
    )


def trained_models(
    run: Run | TrainingParts,
    recipes: dict[int, Recipe],
    start_of: Callable[[int], Params],
    group: int | None,
    memory: int | None,
    directory: Path | None,
    progress: Callable[[RetrainingProgress], None] | None,
) -> Iterator[tuple[int, Params]]:
    """Yield the model of each seed's recipe, read or trained on ``run.data``."""
    missing = list(recipes)
    if directory is not None:
        missing = [x for x in recipes if not retrained_files.finished(directory, x)]
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), start_of(next(iter(recipes)))
    )
    # Of all seeds, so that what was interrupted forms the same groups again.
    size = even_size(len(recipes), group or group_size(run.recipe, like, memory=memory))
    seeds, together, where = [], None, None
    for seed in recipes:
        if seed in missing:
            seeds, missing = missing[:size], missing[size:]
            if directory is not None:
                where = retrained_files.checkpoints_of(directory, seeds)
            done = len(recipes) - len(missing) - len(seeds)
            together = None  # frees the group before
            together = train_together(
                run.model,
                [start_of(x) for x in seeds],
                run.data,
                [recipes[x] for x in seeds],
                directory=where,
                on_step=teller(progress, done, len(recipes), tuple(seeds)),
            )
            if directory is not None:
                for place, other in enumerate(seeds):
                    retrained_files.write(directory, other, taken(together, place))
                retrained_files.forget_checkpoints(directory)
                together = None
        if directory is None:
            yield seed, taken(together, seeds.index(seed))
        else:
            yield seed, retrained_files.read(directory, seed, like)


def teller(
    progress: Callable[[RetrainingProgress], None] | None,
    finished: int,
    models: int,
    seeds: tuple[int, ...],
) -> Callable[[int, int, np.ndarray], None] | None:
    """Return what tells ``progress`` of a group's steps."""
    if progress is None:
        return None

    def tell(step: int, total: int, losses: np.ndarray) -> None:
        progress(RetrainingProgress(finished, models, seeds, step, total, losses))

    return tell


def taken(together: Params, place: int) -> Params:
    """Return one model of those that were trained together."""
    return jax.tree.map(lambda x: x[place], together)


def group_size(recipe: Recipe, params: Params, *, memory: int | None = None) -> int:
    """Return how many models fit in memory together, on all devices of this process.

    A model takes its parameters, the optimiser's state and the gradient, and is given
    as much again for activations; where examples are long and the model small that is
    too little: choose ``group`` by hand then.

    Args:
      recipe: Its optimiser.
      params: Parameters, or their shapes.
      memory: Bytes of a device; None as in :func:`retrain`.
    """
    if memory is None:
        told = jax.local_devices()[0].memory_stats() or {}
        limit = told.get("bytes_limit")
        memory = DEFAULT_MEMORY if limit is None else int(SHARE_OF_MEMORY * limit)
    size = 2 * sum(training_bytes(recipe, params).values())
    return max(1, memory // size) * jax.local_device_count()


def even_size(models: int, group: int) -> int:
    """Return the size of groups, about equal and at most ``group``, for all models.

    >>> even_size(20, 8), even_size(3, 8)
    (7, 3)
    """
    devices = jax.local_device_count()
    size = math.ceil(models / math.ceil(models / group))
    # Whole rows of devices, so that none is idle but in the last group.
    return min(group, math.ceil(size / devices) * devices) if size > devices else size


def checked_forget(forget: Sequence[int], examples: int) -> list[int]:
    """Return the positions to leave out, sorted; refuse what leaves nothing to do."""
    positions = np.asarray(list(forget))
    if positions.size == 0:
        raise ValueError("forget is empty: name at least one example to leave out")
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise ValueError(f"forget={list(forget)[:5]}: whole numbers, positions in data")
    outside = positions[(positions < 0) | (positions >= examples)]
    if outside.size:
        raise ValueError(
            f"forget={outside[:5].tolist()}: not in the data, whose examples are 0 to "
            f"{examples - 1}"
        )
    found = np.unique(positions).tolist()
    if len(found) == examples:
        raise ValueError(
            f"forget names all {examples} examples: nothing is left to train on"
        )
    return found


def seeded_recipes(recipe: Recipe, seeds: Sequence[int]) -> dict[int, Recipe]:
    """Return the recipe with each seed; refuse none and the same one twice."""
    if len(seeds) == 0:
        raise ValueError("seeds is empty: name at least one")
    if not all(isinstance(seed, int | np.integer) for seed in seeds):
        raise ValueError(f"seeds={list(seeds)}: whole numbers needed")
    seeds = [int(seed) for seed in seeds]
    double = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if double:
        raise ValueError(f"seeds={double} are named twice: they give the same model")
    return {seed: dataclasses.replace(recipe, seed=seed) for seed in seeds}
