"""``jaxunlearn influence``: which training examples a model's losses come from."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from jaxunlearn import influence as library
from jaxunlearn.commands.console import console, stages_bar
from jaxunlearn.commands.influence_options import Options
from jaxunlearn.commands.influence_queries import (
    ranked_queries,
    show_queries,
    with_tokens,
)
from jaxunlearn.commands.inputs import Inputs, prepare, provenance_of
from jaxunlearn.gradients.kronecker.inverse import Damping
from jaxunlearn.influence import Checkpoint
from jaxunlearn.locks import locked_file
from jaxunlearn.randomness import random_key
from jaxunlearn.report import write_influence_page
from jaxunlearn.report.influence.facts import facts_of
from jaxunlearn.training import epoch_checkpoints, open_run


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
    parts = Path(f"{options.out}.parts")
    found = computed(inputs, options, method, parts)
    files = {"model": options.model, "train": options.train, "query": options.query}
    asked = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(options).items()
        if name not in files and name not in ("out", "page", "top", "tokens")
    }
    found = dataclasses.replace(found, provenance=provenance_of(inputs, files, asked))
    library.save_scores(options.out, found)
    queries = ranked_queries(found, inputs, options.top, options.aggregate)
    show_queries(queries, len(found.scores), found.coverage)
    if options.page is not None:
        if options.tokens and found.directions is not None:
            queries = with_tokens(queries, found, inputs, options.tokens)
        facts = facts_of(found, inputs.train, files)
        write_influence_page(options.page, queries, facts=facts, notes=found.notes)
        console.print(f"Page: {options.page}")
    if method in library.RESUMABLE and parts.exists():  # another method's is not ours
        shutil.rmtree(parts)
    console.print(f"Scores: {options.out}")
    return 0


def computed(inputs: Inputs, options: Options, method: str, parts: Path) -> Any:
    """Return the scores; finished parts are kept in ``parts`` where they can be."""
    damping: Any = options.damping
    if options.damping_share is not None:
        damping = Damping("mean_eigenvalue", options.damping_share)
    random = library.goes_with("key", method)
    checkpoints = ()
    if method == "tracin" and inputs.run is not None:
        checkpoints = replayed_checkpoints(inputs, inputs.run)
    if parts.exists() and method in library.RESUMABLE:
        count = len(list(parts.glob("*.npz")))
        console.print(f"Taking up the {count} finished parts in {parts}.")
    with stages_bar("Scoring") as update:
        return library.scores(
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
            state=parts if method in library.RESUMABLE else None,
            # Only the colours of tokens need them, and scores alone are cheaper.
            keep_directions=bool(options.page and options.tokens)
            and method in library.DIRECTED,
        )


def replayed_checkpoints(inputs: Inputs, run_directory: Path) -> list[Checkpoint]:
    """Return the run's parameters after each epoch, told as they are computed."""
    with stages_bar("Replaying the training run") as update:
        kept = epoch_checkpoints(open_run(run_directory), inputs.params, on_step=update)
    console.print(f"TracIn over the {len(kept)} epochs of {run_directory}.")
    return [Checkpoint(*end) for end in kept]
