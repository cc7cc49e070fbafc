"""What an evaluation of models works on: records, models, references, all checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.data import match
from jaxunlearn.evaluation.display import Display
from jaxunlearn.evaluation.loading import (
    GivenModel,
    NamedModel,
    directories_of,
    load_model,
    model_without_weights,
    shared_tokenizer,
)
from jaxunlearn.evaluation.retrained.files import finished
from jaxunlearn.evaluation.retrained.retraining import retrain
from jaxunlearn.evaluation.suite.measurement import (
    PreparedSet,
    Settings,
    prepared_sets,
)
from jaxunlearn.locks import locked
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.training import open_run


class Inputs(NamedTuple):
    """All that is needed, read and checked; models are loaded when they are asked for.

    Attributes:
      sets: Set name -> records, tokenized for every model.
      tokenizer: Of every model.
      settings: How models are measured.
      models: Loads the models to evaluate, one after the other.
      references: Loads or trains the models that never saw the forgotten records.
      original: Loads the model before unlearning; None without one.
    """

    sets: dict[str, PreparedSet]
    tokenizer: Any
    settings: Settings
    models: Callable[[], Iterator[NamedModel]]
    references: Callable[[], Iterator[NamedModel]]
    original: Callable[[], NamedModel] | None


class Retraining(NamedTuple):
    """Models to be trained without the forgotten records.

    Attributes:
      count: How many.
      run: The training run of the original, or its directory; None without one.
      directory: Where they are kept, and found again.
    """

    count: int
    run: Any
    directory: Path | None


def prepare(
    models: Sequence[GivenModel],
    references: Sequence[GivenModel],
    original: GivenModel | None,
    retraining: Retraining,
    sets: dict[str, list[dict]],
    *,
    tokenizer: Any,
    settings: Mapping[str, Any],
    display: Display,
) -> Inputs:
    """Look at every model, and refuse what does not fit together.

    Args:
      models: To evaluate, in memory or by their directories.
      references: That never saw the forgotten records.
      original: Before unlearning.
      retraining: Of further references.
      sets: Set name -> records.
      tokenizer: Of models in memory.
      settings: Of :class:`~.measurement.Settings`, where ``max_length`` may be None.
      display: Where retraining tells of itself.

    Raises:
      ValueError: Tokenizers differ, the run is of another model, or a forgotten record
        is not in it.
    """
    named = {
        "model": models,
        "reference": references,
        "original": () if original is None else (original,),
    }
    given = [one for found in named.values() for one in found]
    check_max_length(settings["max_length"], directories_of(given))
    tokenizer = shared_tokenizer(named, tokenizer)
    first = model_without_weights(models[0])
    positions = first.positions
    run, forget = retraining.run, []
    if run is not None:
        run = open_run(run) if isinstance(run, str | Path) else run
        if run.model.config.vocab_size != first.config.vocab_size:
            named_first = (
                models[0].name if isinstance(models[0], NamedModel) else models[0]
            )
            raise ValueError(
                f"run={retraining.run} is of another model than {named_first}"
            )
        # Found before anything is measured: what is not in the run cannot be left out.
        forget = [m.index for m in match(sets["forget"], run.records, how="exact")]
        positions = run.max_length

    def all_references() -> Iterator[NamedModel]:
        yield from map(load_model, references)
        if retraining.count:
            yield from retrained(retraining._replace(run=run), forget, display)

    before = original_of(original, run)
    largest = max(map(len, sets.values()))
    wanted = Settings(
        **{
            **settings,
            "max_length": settings["max_length"] or positions,
            "batch_size": min(settings["batch_size"], largest),
        }
    )
    return Inputs(
        prepared_sets(sets, tokenizer, wanted),
        tokenizer,
        wanted,
        lambda: map(load_model, models),
        all_references,
        None if before is None else lambda: load_model(before),
    )


def original_of(original: GivenModel | None, run: Any) -> GivenModel | None:
    """Return the model before unlearning: the given one, or the run's."""
    if original is not None or run is None:
        return original
    directory = run if isinstance(run, str | Path) else run.directory
    model = Path(directory) / "model"
    return str(model) if model.exists() else None


def retrained(
    asked: Retraining, forget: list[int], display: Display
) -> Iterator[NamedModel]:
    """Train models without the forgotten records, or find those that are there."""
    run, directory = asked.run, asked.directory
    if directory is None:
        raise ValueError("retrained=None: name a folder to keep retrained models in")
    seeds = [run.recipe.seed + i for i in range(asked.count)]
    done = sum(finished(directory, seed) for seed in seeds)
    if done:
        display.line(f"Taking up {directory}: {done} of {len(seeds)} are retrained.")
    title = f"Retraining {asked.count} models"
    with locked(directory), display.bar(title) as update:

        def progress(state: Any) -> None:
            done = state.finished * state.total + state.step * len(state.seeds)
            update(
                done,
                f"loss {float(state.losses.mean()):.3f}",
                total=state.models * state.total,
            )

        for _ in retrain(run, forget, seeds, directory=directory, progress=progress):
            pass
    # All are on disk now, so that one at a time need be in memory.
    for seed, params in retrain(run, forget, seeds, directory=directory):
        yield NamedModel(f"retrained, seed {seed}", run.model, params)
