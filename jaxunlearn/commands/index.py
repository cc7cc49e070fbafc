"""``jaxunlearn index``: projected gradients on disk, built once, queried often."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from jaxunlearn.commands.arguments import TrainingRecords, check_number
from jaxunlearn.commands.console import console, stages_bar, working
from jaxunlearn.commands.influence_inputs import (
    Inputs,
    prepare,
    provenance_of,
)
from jaxunlearn.commands.influence_results import (
    SHOWN_QUERIES,
    facts_of,
    query_influence,
    show_queries,
)
from jaxunlearn.commands.outputs import check_folder, check_output
from jaxunlearn.data import record_text
from jaxunlearn.locks import locked
from jaxunlearn.provenance import data_hash, params_hash

if TYPE_CHECKING:
    from jaxunlearn.influence import InfluenceScores
    from jaxunlearn.influence.index.description import Index


@dataclasses.dataclass(frozen=True)
class Build:
    """Project every training example's gradient to a row, and keep the rows.

    A build that was interrupted goes on where it stood when the same command is run
    again.

    Attributes:
      model: Hugging Face directory, or a run directory of `jaxunlearn train`.
      train: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: Directory of the index.
      projection: kronecker (LoGra): each layer's inputs and output gradients are
        projected; dense: each whole gradient.
      dimensions: Two numbers a layer for kronecker, by default 16 16; one for dense, by
        default 2048.
      dtype: Of the rows; int8 has a scale for each row and layer.
      layers: Regular expression of the parameters that count; by default all.
      batch_size: Examples at a time.
      max_length: Most tokens of an example; by default what the model takes.
      seed: Of the projection.
    """

    model: str
    train: TrainingRecords
    out: Path
    projection: Literal["kronecker", "dense"] = "kronecker"
    dimensions: tuple[int, ...] = ()
    dtype: Literal["int8", "bfloat16", "float32"] = "int8"
    layers: str | None = None
    batch_size: int = 16
    max_length: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Query:
    """Find the strongest proponents and opponents of queries in an index.

    Attributes:
      index: Directory of the index.
      model: The model that it was built with.
      train: The training records that it was built from, for their text.
      query: Records whose loss is to be explained.
      top: How many proponents and opponents of each query are shown.
      damping_share: What is added to the projected Fisher before it is inverted, as a
        share of each layer's mean eigenvalue.
      no_precondition: Take plain products, without the inverse Fisher.
      cosine: Divide by the lengths of both rows.
      batch_size: Queries at a time.
      out: An .npz file for all scores, [queries, train].
      page: An .html file with the same as is printed.
    """

    index: Path
    model: str
    train: TrainingRecords
    query: str
    top: int = 5
    damping_share: float = 0.1
    no_precondition: bool = False
    cosine: bool = False
    batch_size: int = 16
    out: Path | None = None
    page: Path | None = None


def index(
    command: Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Query, tyro.conf.subcommand("query")],
) -> int:
    """Build or query an index of projected gradients on disk."""
    return build(command) if isinstance(command, Build) else query(command)


def build(options: Build) -> int:
    """Build an index, or finish one."""
    import jax

    from jaxunlearn.gradients.projections.projection import Projection
    from jaxunlearn.influence import (
        build_index,
        gradient_row_layout,
        projected_gradients,
    )

    check_number("seed", options.seed, 0)
    default = {"kronecker": (16, 16), "dense": (2048,)}[options.projection]
    projection = Projection(
        options.projection, options.dimensions or default, seed=options.seed
    )
    check_folder("out", options.out)
    inputs = prepare(
        model=options.model,
        train=options.train,
        query=None,
        layers=options.layers,
        batch_size=options.batch_size,
        max_length=options.max_length,
    )
    batches = list(inputs.train)
    loss = inputs.model.per_example_loss
    layout = gradient_row_layout(
        loss, inputs.params, batches[0], projection, layers=options.layers
    )

    @jax.jit
    def rows(params: Any, batch: Any) -> jax.Array:
        return projected_gradients(
            loss, params, batch, projection, layers=options.layers
        )

    with locked(options.out), stages_bar("Projecting gradients") as update:
        tell_resumed(options.out, len(inputs.train_records))
        built = build_index(
            options.out,
            lambda batch: rows(inputs.params, dict(batch)),
            batches,
            model_hash=params_hash(inputs.params),
            data_hash=data_hash(inputs.train_records),
            projection=projection,
            layout=layout,
            dtype=options.dtype,
            about={"layers": options.layers, "max_length": options.max_length},
            progress=update,
        )
    console.print(
        f"{built.rows} rows of {built.width} numbers ({options.dtype}) in {options.out}"
    )
    console.print(
        f"Query: jaxunlearn index query --index {options.out} --model {options.model} "
        f"--data {options.train} --query FILE"
    )
    return 0


def tell_resumed(directory: Path, rows: int) -> None:
    """Say where a build that was begun before goes on."""
    from jaxunlearn.influence.index.description import DESCRIPTION, read_description

    if (directory / DESCRIPTION).is_file():
        held = read_description(directory)
        console.print(f"Taking up {directory} at row {held.rows} of {rows}.")


def query(options: Query) -> int:
    """Query an index."""
    from jaxunlearn.influence import damped_inverse, projected_fisher, top_k
    from jaxunlearn.report import write_influence_page

    check_number("top", options.top, 1)
    check_number("batch_size", options.batch_size, 1)
    check_number("damping_share", options.damping_share, 0)
    check_output("out", options.out, ".npz")
    check_output("page", options.page, ".html")
    held, inputs, rows = opened(options)
    how: dict[str, Any] = {"cosine": options.cosine}
    if not options.no_precondition:
        with working("Fisher matrix of the rows"):
            fisher = projected_fisher(held)
            how["preconditioner"] = damped_inverse(fisher, share=options.damping_share)
    with working("Reading the index"):
        shown = rows[:SHOWN_QUERIES]
        best = top_k(held, shown, k=min(options.top, held.rows), **how)
    queries = [
        query_influence(
            record_text(inputs.query_records[position]),
            list(zip(up.tolist(), high.tolist(), strict=True)),
            list(zip(down.tolist(), low.tolist(), strict=True)),
            inputs.train_records,
        )
        for position, (up, high, down, low) in enumerate(
            zip(*best.proponents[::-1], *best.opponents[::-1], strict=True)
        )
    ]
    show_queries(queries, len(rows))
    if options.out is None and options.page is None:
        return 0
    found = all_of(options, held, inputs, rows, how)
    if options.page is not None:
        files = {"model": options.model, "train": options.train, "query": options.query}
        facts = facts_of(found, inputs, files) | {"index": str(options.index)}
        write_influence_page(options.page, queries, facts=facts)
        console.print(f"Page: {options.page}")
    return 0


def opened(options: Query) -> tuple["Index", Inputs, np.ndarray]:
    """Return the index, model and data that fit each other, and the queries' rows.

    Raises:
      FileNotFoundError: There is no index, model or file.
      ValueError: The index is of another model or of other training data.
    """
    from jaxunlearn.influence import (
        gradient_row_layout,
        open_index,
        projected_gradients,
    )
    from jaxunlearn.influence.index.query import stored_ids

    held = open_index(options.index, model_hash=None)
    if len(held.parts) > 1:
        raise ValueError(
            f"--index {options.index} holds {len(held.parts)} data sets, the command "
            f"reads one: query it by jaxunlearn.influence.top_k"
        )
    layers = held.about.get("layers")
    inputs = prepare(
        model=options.model,
        train=options.train,
        query=options.query,
        layers=layers,
        batch_size=options.batch_size,
        max_length=held.about.get("max_length"),
    )
    if data_hash(inputs.train_records) != held.parts[0].data_hash:
        raise ValueError(
            f"--data {options.train} is not the data that {options.index} was built "
            f"from (the hash differs): its texts would be those of other records"
        )
    if set(stored_ids(held)) != set(range(len(inputs.train_records))):
        raise ValueError(
            f"{options.index / 'ids'} is damaged: it does not name the training "
            f"records one by one; restore it, or build the index again"
        )
    asked, loss = list(inputs.query or ()), inputs.model.per_example_loss
    layout = gradient_row_layout(
        loss, inputs.params, asked[0], held.projection, layers=layers
    )
    held = open_index(
        options.index, model_hash=params_hash(inputs.params), layout=layout
    )
    with working("Projecting the queries' gradients"):
        rows = projected_gradients(
            loss, inputs.params, asked, held.projection, layers=layers
        )
    return held, inputs, np.asarray(rows)[: len(inputs.query_records)]


def all_of(
    options: Query, held: "Index", inputs: Inputs, rows: np.ndarray, how: dict
) -> "InfluenceScores":
    """Return the scores of all rows, and write them where --out says so."""
    from jaxunlearn.influence import InfluenceScores, all_scores, save_scores
    from jaxunlearn.influence.coverage import coverage_of
    from jaxunlearn.influence.index.query import stored_ids

    coverage = coverage_of(
        inputs.model.per_example_loss,
        inputs.params,
        next(iter(inputs.train)),
        held.about.get("layers"),
    )
    plain = options.no_precondition
    with working("Scores of all rows"):
        scores = all_scores(held, rows, **how)
    asked = {
        "cosine": options.cosine,
        "projection": dataclasses.asdict(held.projection),
    }
    files = {"model": options.model, "train": options.train, "query": options.query}
    found = InfluenceScores(
        scores=scores,
        method="index_cosine" if options.cosine else "index",
        coverage=coverage | {"checkpoints": 1},
        curvature="none" if plain else "projected fisher",
        damping=None
        if plain
        else f"{options.damping_share:g} of each layer's mean eigenvalue",
        notes=(),
        index=stored_ids(held).astype(np.int64),
        provenance=provenance_of(inputs, files, asked),
    )
    if options.out is not None:
        save_scores(options.out, found)
        console.print(f"Scores: {options.out}")
    return found
