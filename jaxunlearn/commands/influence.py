"""``jaxunlearn influence``: which training examples a model's losses come from."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

from jaxunlearn.commands.arguments import TrainingRecords, check_number
from jaxunlearn.commands.console import console, stages_bar
from jaxunlearn.commands.influence_inputs import (
    Inputs,
    prepare,
    provenance_of,
    replayed_checkpoints,
)
from jaxunlearn.commands.influence_results import (
    facts_of,
    ranked_queries,
    show_queries,
    with_tokens,
)
from jaxunlearn.commands.outputs import check_output
from jaxunlearn.locks import locked_file

FROM_PYTHON = {
    "source": "influence.scores(..., method='source', checkpoints=[Checkpoint(...)])",
    "unrolled": "influence.scores(..., method='unrolled', run=TrainingRun(...))",
}
"""Methods that need more than a model directory, and how they are called."""

FLAGS = {
    "damping": "damping",
    "damping_share": "damping",
    "curvature": "curvature",
    "rank": "rank",
    "max_steps": "max_steps",
    "aggregate": "aggregate",
    "seed": "key",
}
"""Options that only some methods use, by their names in ``influence.scores``."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn influence``.

    Attributes:
      model: Hugging Face directory, or a run directory of `jaxunlearn train`.
      train: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: The .npz file for the scores, [queries, train].
      query: Records whose loss is to be explained; none for self_influence.
      method: gradient_dot, cosine; ekfac, kfac, cg, ekfac_cg, lissa, lanczos, nystroem,
        diagonal, woodbury, datainf (influence functions by that inverse); relatif,
        self_influence, trak, logra, act_act, act_grad; tracin, of a run directory.
      layers: Regular expression of the parameters that count; by default all.
      damping: Added to the curvature; by default --damping-share 0.1.
      damping_share: The damping as a share of the curvature's mean eigenvalue.
      curvature: Of cg, ekfac_cg, lissa, lanczos and nystroem; by default fisher.
      rank: Eigenpairs of lanczos and nystroem; by default 50.
      max_steps: At which cg, ekfac_cg and lissa stop; by default 100.
      aggregate: All queries as one.
      batch_size: Examples at a time.
      max_length: Most tokens of an example; by default what the model takes.
      top: How many proponents and opponents of each query are shown.
      page: An .html file with the same, the training tokens coloured by contribution.
      tokens: Of how many proponents, and opponents, a query the tokens are coloured.
      seed: Of cg, ekfac_cg, lissa, lanczos and nystroem; by default 0.
    """

    model: str
    train: TrainingRecords
    out: Path
    query: str | None = None
    method: str = "ekfac"
    layers: str | None = None
    damping: float | None = None
    damping_share: float | None = None
    curvature: Literal["fisher", "gauss_newton", "hessian"] | None = None
    rank: int | None = None
    max_steps: int | None = None
    aggregate: Literal["sum", "mean"] | None = None
    batch_size: int = 16
    max_length: int | None = None
    top: int = 5
    page: Path | None = None
    tokens: int = 3
    seed: int | None = None

    def check(self) -> str:
        """Refuse options that contradict one another; return the method's own name."""
        from jaxunlearn.influence import method_name
        from jaxunlearn.influence.options import USED_BY, goes_with

        method = method_name(self.method)
        if method in FROM_PYTHON:
            raise ValueError(
                f"--method {self.method} needs the training run's states, which no "
                f"model directory holds: call jaxunlearn.{FROM_PYTHON[method]}"
            )
        if (self.query is None) != (method == "self_influence"):
            raise ValueError(
                "--method self_influence scores each example on itself: leave --query "
                "out"
                if self.query is not None
                else f"--method {self.method} needs --query FILE"
            )
        for option, low in (
            ("rank", 1),
            ("max_steps", 1),
            ("top", 1),
            ("tokens", 0),
            ("seed", 0),
            ("damping", 0),
            ("damping_share", 0),
        ):
            check_number(option, getattr(self, option), low)
        given = [x for x in (self.damping, self.damping_share) if x is not None]
        if len(given) == 2:
            raise ValueError("give one of --damping and --damping-share")
        for option, name in FLAGS.items():
            if getattr(self, option) is not None and not goes_with(name, method):
                raise ValueError(
                    f"--{option.replace('_', '-')} does not go with --method "
                    f"{self.method}, where it changes nothing: leave it out, or take "
                    f"one of {', '.join(USED_BY[name])}"
                )
        check_output("out", self.out, ".npz")
        check_output("page", self.page, ".html")
        return method


def influence(options: Options) -> int:
    """Score how training examples moved a model's loss on queries.

    A positive score is a proponent: training on the example lowered the query's loss.
    Prints each query's strongest proponents and opponents and writes all scores. A long
    run that was interrupted goes on where it stood when the same command is run again.
    """
    method = options.check()
    inputs = prepare(
        model=options.model,
        train=options.train,
        query=options.query,
        layers=options.layers,
        batch_size=options.batch_size,
        max_length=options.max_length,
    )
    if method == "tracin" and inputs.run is None:
        raise ValueError(
            f"--method tracin goes over a training run's epochs: pass a directory of "
            f"`jaxunlearn train` as --model (not {options.model}), or call "
            f"jaxunlearn.influence.scores(..., method='tracin', checkpoints=...)"
        )
    console.print(
        f"{len(inputs.train_records)} training records, "
        f"{len(inputs.query_records) or 'no'} queries; method {method}."
    )
    with locked_file(options.out):
        return scored(inputs, options, method)


def scored(inputs: Inputs, options: Options, method: str) -> int:
    """Score, show and write."""
    from jaxunlearn.influence import RESUMABLE, save_scores
    from jaxunlearn.report import write_influence_page

    parts = Path(f"{options.out}.parts")
    found = computed(inputs, options, method, parts)
    files = {"model": options.model, "train": options.train, "query": options.query}
    asked = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(options).items()
        if name not in files and name not in ("out", "page", "top", "tokens")
    }
    found = dataclasses.replace(found, provenance=provenance_of(inputs, files, asked))
    save_scores(options.out, found)
    queries = ranked_queries(found, inputs, options.top, options.aggregate)
    show_queries(queries, len(found.scores))
    if options.page is not None:
        if options.tokens and found.directions is not None:
            queries = with_tokens(queries, found, inputs, options.tokens)
        facts = facts_of(found, inputs, files)
        write_influence_page(options.page, queries, facts=facts, notes=found.notes)
        console.print(f"Page: {options.page}")
    if method in RESUMABLE and parts.exists():  # another method's is not ours
        shutil.rmtree(parts)
    console.print(f"Scores: {options.out}")
    return 0


def computed(inputs: Inputs, options: Options, method: str, parts: Path) -> Any:
    """Return the scores; finished parts are kept in ``parts`` where they can be."""

    from jaxunlearn.gradients.kronecker.inverse import Damping
    from jaxunlearn.influence import DIRECTED, RESUMABLE, goes_with, scores
    from jaxunlearn.randomness import random_key

    damping: Any = options.damping
    if options.damping_share is not None:
        damping = Damping("mean_eigenvalue", options.damping_share)
    random = goes_with("key", method)
    checkpoints = ()
    if method == "tracin" and inputs.run is not None:
        checkpoints = replayed_checkpoints(inputs, inputs.run)
    if parts.exists() and method in RESUMABLE:
        count = len(list(parts.glob("*.npz")))
        console.print(f"Taking up the {count} finished parts in {parts}.")
    with stages_bar("Scoring") as update:
        return scores(
            inputs.model.per_example_loss,
            inputs.params,
            list(inputs.train),
            None if inputs.query is None else list(inputs.query),
            method=method,
            layers=options.layers,
            damping=damping,
            curvature=options.curvature,
            checkpoints=checkpoints,
            rank=options.rank,
            max_steps=options.max_steps,
            aggregate=options.aggregate,
            key=random_key(options.seed or 0) if random else None,
            progress=update,
            state=parts if method in RESUMABLE else None,
            keep_directions=method in DIRECTED,
        )
