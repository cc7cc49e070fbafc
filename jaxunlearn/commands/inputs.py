"""What influence is computed from: a model directory and files, checked and loaded."""

from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn import models, tree
from jaxunlearn.data import (
    Batches,
    batches,
    check_tokenizer,
    load_tokenizer,
    read_records,
)
from jaxunlearn.models import load_config
from jaxunlearn.models.checkpoints.families import family
from jaxunlearn.models.checkpoints.huggingface import local_directory, parameter_shapes
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.provenance import data_hash, params_hash, versions
from jaxunlearn.ranges import check_number


class Inputs(NamedTuple):
    """A model, and training and query data in batches."""

    model: Any
    params: Any
    tokenizer: Any
    directory: Path  # of the model
    run: Path | None  # the run that trained it, where there is one
    train_records: list[dict]
    train: Batches
    query_records: list[dict]
    query: Batches | None


def prepare(
    *,
    model: str,
    train: str,
    query: str | None,
    layers: str | None,
    batch_size: int,
    max_length: int | None,
) -> Inputs:
    """Read and check everything; the weights last, because they take longest.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is empty or damaged, the tokenizer is not the model's,
        ``layers`` matches nothing, an option is out of range, weights are not finite.
    """
    directory, run = model_directory(model)
    config = load_config(directory)
    check_number("batch_size", batch_size, 1)
    check_max_length(max_length, [directory])
    network = family(config).model(config)
    if layers is not None:
        tree.select(parameter_shapes(network), layers)
    tokenizer = load_tokenizer(directory)
    check_tokenizer(tokenizer, config.vocab_size)

    def batched(records: list[dict]) -> Batches:
        return batches(
            records,
            tokenizer,
            batch_size=min(batch_size, len(records)),
            max_length=max_length or network.positions,
        )

    train_records = read_records(train)
    query_records = [] if query is None else read_records(query)
    train_batches = batched(train_records)
    query_batches = batched(query_records) if query_records else None
    network, params = models.load_pretrained(directory)
    return Inputs(
        network,
        params,
        tokenizer,
        directory,
        run,
        train_records,
        train_batches,
        query_records,
        query_batches,
    )


def model_directory(model: str) -> tuple[Path, Path | None]:
    """Return where the model's files are, and the training run that they are of.

    ``model`` is a Hugging Face directory; that of a run, which has one as ``model/``;
    or a name on the hub.
    """
    directory = Path(model)
    if (directory / "run.json").is_file():
        if not (directory / "model" / "config.json").is_file():
            raise FileNotFoundError(
                f"--model {model} is a training run without model/: finish it with "
                f"the same `jaxunlearn train` command"
            )
        return directory / "model", directory
    directory = local_directory(model)
    beside = directory.name == "model" and (directory.parent / "run.json").is_file()
    return directory, directory.parent if beside else None


def provenance_of(
    inputs: Inputs, files: dict[str, str | None], options: dict[str, Any]
) -> dict[str, Any]:
    """Return what the scores are made from: files, hashes, options, versions."""
    found = {**files, "model_sha256": params_hash(inputs.params)}
    found["train_sha256"] = data_hash(inputs.train_records)
    if inputs.query_records:
        found["query_sha256"] = data_hash(inputs.query_records)
    return {**found, "options": options, "versions": versions()}
