"""What an evaluation of models works on: records, models, references, all checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxunlearn.data import load_tokenizer, match, read_records
from jaxunlearn.evaluation.suite.prepared import HOLDOUT, Settings
from jaxunlearn.locks import locked
from jaxunlearn.models import load_pretrained
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.training import open_run

if TYPE_CHECKING:
    from jaxunlearn.commands.evaluate import Options

SETS = ("forget", "retain", "real_authors", "world_facts", HOLDOUT)
_WRONG = tuple(f"{name}.perturbed_answer" for name in SETS[1:4])
_RATIOS = ("forget.paraphrased_answer", "forget.perturbed_answer")
NEEDS: dict[str, tuple[str, ...]] = {
    "uds": ("original", "reference"),
    "logit_lens_depth": ("original", "reference"),
    "memorization": _RATIOS,
    **dict.fromkeys(("privleak", "s_mia", "privacy"), (HOLDOUT, "reference")),
    **dict.fromkeys(
        ("forget_quality", "forget_quality_log10", "forget_quality_statistic"),
        ("reference", *_RATIOS),
    ),
    **dict.fromkeys(("model_utility", "model_utility_arithmetic"), SETS[1:4] + _WRONG),
}
"""What a score needs beyond the set in its name."""


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
    check_wanted(options, sets)
    models = (*options.model, *options.reference, *filter(None, [options.original]))
    check_max_length(options.max_length, models)
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

    original = original_of(options)
    return Inputs(
        sets,
        tokenizer,
        Settings(
            max_length=options.max_length or positions,
            max_new_tokens=options.max_new_tokens,
            batch_size=min(options.batch_size, max(map(len, sets.values()))),
            gradient_norms=options.gradient_norm,
            words=options.words or "unicode",
        ),
        lambda: (load(directory) for directory in options.model),
        references,
        len(options.reference) + options.retrain,
        None if original is None else lambda: load(original),
    )


def original_of(options: "Options") -> str | None:
    """Return the directory of the model before unlearning: given, or the run's."""
    if options.original is not None or options.run is None:
        return options.original
    model = Path(options.run) / "model"
    return str(model) if model.exists() else None


def check_wanted(options: "Options", sets: Mapping[str, Sequence[dict]]) -> None:
    """Refuse, before models are read, scores that need what was not given."""
    referenced = options.reference or options.retrain or options.reference_logs

    def lacking(need: str) -> str | None:
        """Return the option without which a score cannot be had."""
        if need == "reference" and not referenced:
            return "--reference DIR, --retrain N or --reference-logs"
        if need == "original" and original_of(options) is None:
            return "--original"
        if need == "gradient_norm" and not options.gradient_norm:
            return "--gradient-norm"
        if need in SETS and need not in sets:
            return f"--{need.replace('_', '-')}"
        name, _, field = need.partition(".")
        if field and not any(record.get(field) for record in sets.get(name, ())):
            return f"{field} in the records of --{name.replace('_', '-')}"
        return None

    for score in options.metrics:
        for need in needs_of(score):
            option = lacking(need)
            if option is not None:
                raise ValueError(f"--metrics {score} needs {option}")


def needs_of(score: str) -> tuple[str, ...]:
    """Return what a score needs: sets, fields of their records, models."""
    if score in NEEDS:
        return NEEDS[score]
    if score.startswith("mia_"):
        more = ("reference", "gradient_norm")
        return (HOLDOUT, *(need for need in more if score.startswith(f"mia_{need}_")))
    (name,) = (name for name in SETS if score.startswith(f"{name}_"))
    fields = {"truth": "perturbed_answer", "paraphrased": "paraphrased_answer"}
    kind = score.removeprefix(f"{name}_").partition("_")[0]
    return (name, f"{name}.{fields[kind]}") if kind in fields else (name,)


def load(directory: str) -> Loaded:
    """Load a model, named after its directory."""
    model, params = load_pretrained(directory)
    return Loaded(str(directory), model, params)


def retrained(options: "Options", run: Any, forget: list[int]) -> Iterator[Loaded]:
    """Train models without the forgotten records, or find those that are there."""
    from jaxunlearn.commands.console import console, progress_bar
    from jaxunlearn.evaluation.retrained.files import finished
    from jaxunlearn.evaluation.retrained.retraining import retrain

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
