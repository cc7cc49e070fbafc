"""``jaxunlearn index``: projected gradients on disk, built once, queried often."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from jaxunlearn.commands.console import console, say, stages_bar
from jaxunlearn.commands.index_options import DIMENSIONS, Build, Query
from jaxunlearn.commands.index_query import query
from jaxunlearn.commands.inputs import prepare
from jaxunlearn.commands.outputs import check_folder
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence.index.description import DESCRIPTION, read_description
from jaxunlearn.influence.index.results import build_gradient_index
from jaxunlearn.locks import locked
from jaxunlearn.provenance import data_hash
from jaxunlearn.ranges import check_number


def index(
    command: Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Query, tyro.conf.subcommand("query")],
) -> int:
    """Build or query an index of projected gradients on disk."""
    return build(command) if isinstance(command, Build) else query(command)


def build(options: Build) -> int:
    """Build an index, or finish one."""
    check_number("seed", options.seed, 0)
    projection = Projection(
        options.projection,
        options.dimensions or DIMENSIONS[options.projection],
        seed=options.seed,
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
    with locked(options.out), stages_bar("Projecting gradients") as update:
        tell_resumed(options.out, len(inputs.train_records))
        built = build_gradient_index(
            options.out,
            inputs.model.per_example_loss,
            inputs.params,
            list(inputs.train),
            projection,
            layers=options.layers,
            data_hash=data_hash(inputs.train_records),
            dtype=options.dtype,
            about={"layers": options.layers, "max_length": options.max_length},
            progress=update,
        )
    console.print(
        f"{built.rows} rows of {built.width} numbers ({options.dtype}) in {options.out}"
    )
    say(
        f"Query: jaxunlearn index query --index {quote(str(options.out))} "
        f"--model {quote(options.model)} --data {quote(options.train)} --query FILE"
    )
    return 0


def tell_resumed(directory: Path, rows: int) -> None:
    """Say where a build that was begun before goes on."""
    if (directory / DESCRIPTION).is_file():
        held = read_description(directory)
        console.print(f"Taking up {directory} at row {held.rows} of {rows}.")
