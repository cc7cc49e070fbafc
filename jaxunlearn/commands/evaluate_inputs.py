"""What an evaluation of models works on: records, models, references, all checked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxunlearn.data import load_tokenizer, match, read_records
from jaxunlearn.evaluation.suite import HOLDOUT, Settings
from jaxunlearn.files import locked
from jaxunlearn.models import load_pretrained
from jaxunlearn.training import open_run

if TYPE_CHECKING:
    from jaxunlearn.commands.evaluate import Options

SETS = ("forget", "retain", "real_authors", "world_facts", HOLDOUT)


class Loaded(NamedTuple):
    """A model in memory."""

    name: str
    model: Any
    params: Any


class Inputs(NamedTuple):
    """All that is needed, read and checked; models are loaded when they are asked for.

    Attributes:
      sets: Set name -> records.
      tokenizer: Of every model.
      settings: How models are measured.
      models: Loads the models to evaluate, one after the other.
      references: Loads or trains the models that never saw the forgotten records.
      reference_count: How many those are.
      original: Loads the model before unlearning; None without one.
    """

    sets: dict[str, list[dict]]
    tokenizer: Any
    settings: Settings
    models: Callable[[], Iterator[Loaded]]
    references: Callable[[], Iterator[Loaded]]
    reference_count: int
    original: Callable[[], Loaded] | None


def prepare(options: "Options") -> Inputs:
    """Read the records, look at every model, and refuse what does not fit together."""
    sets = {
        name: read_records(path)
        for name in SETS
        if (path := getattr(options, name)) is not None
    }
    named = {
        "--model": options.model,
        "--reference": options.reference,
        "--original": () if options.original is None else (options.original,),
    }
    tokenizer = load_tokenizer(options.model[0])
    words = tokenizer.get_vocab()
    for option, directories in named.items():
        for directory in directories:
            if load_tokenizer(directory).get_vocab() != words:
                raise ValueError(
                    f"{option} {directory} has another tokenizer than "
                    f"{options.model[0]}: their scores cannot be compared"
                )
    first = load(options.model[0])
    positions = first.model.config.n_positions
    run, forget = None, []
    if options.run is not None:
        run = open_run(options.run)
        if run.model.config.vocab_size != first.model.config.vocab_size:
            raise ValueError(
                f"run={options.run} is of another model than {options.model[0]}"
            )
        # Found before anything is measured: what is not in the run cannot be left out.
        forget = [m.index for m in match(sets["forget"], run.records, how="exact")]
        positions = run.max_length

    def references() -> Iterator[Loaded]:
        yield from (load(directory) for directory in options.reference)
        if options.retrain:
            yield from retrained(options, run, forget)

    original = options.original
    if (
        original is None
        and run is not None
        and (Path(run.directory) / "model").exists()
    ):
        original = str(Path(run.directory) / "model")
    return Inputs(
        sets,
        tokenizer,
        Settings(
            max_length=options.max_length or positions,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            gradient_norms=options.gradient_norm,
        ),
        lambda: (load(directory) for directory in options.model),
        references,
        len(options.reference) + options.retrain,
        None if original is None else lambda: load(original),
    )


def load(directory: str) -> Loaded:
    """Load a model, named after its directory."""
    model, params = load_pretrained(directory)
    return Loaded(str(directory), model, params)


def retrained(options: "Options", run: Any, forget: list[int]) -> Iterator[Loaded]:
    """Train models without the forgotten records, or find those that are there."""
    from jaxunlearn.commands.console import console, progress_bar
    from jaxunlearn.evaluation.retrained_files import finished
    from jaxunlearn.evaluation.retraining import retrain

    directory = options.retrained or options.out.parent / "retrained"
    seeds = [run.recipe.seed + i for i in range(options.retrain)]
    done = sum(finished(directory, seed) for seed in seeds)
    if done:
        console.print(f"Taking up {directory}: {done} of {len(seeds)} are retrained.")
    title = f"Retraining {options.retrain} models"
    with locked(directory), progress_bar(title, 1) as update:

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
        yield Loaded(f"retrained, seed {seed}", run.model, params)
