"""A training run on disk: all that is needed to train it, resume it and replay it.

``run.json`` (model configuration, recipe, recording, data hash, versions),
``records.jsonl`` (the training records), ``tokenizer/``, ``start/`` (starting
parameters), ``checkpoints/``, ``losses.jsonl``, ``gradients/`` (where recorded) and
``model/`` (the trained model, Hugging Face layout).

The folder holds the training data: delete it when the data themselves must go.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxunlearn.data import TokenizedData, check_tokenizer, load_tokenizer, tokenize
from jaxunlearn.files import write_json, write_text
from jaxunlearn.models.gpt2 import GPT2, GPT2Config
from jaxunlearn.provenance import data_hash, params_hash, versions
from jaxunlearn.training import checkpoints
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.training.recorder import Recording, recorded_mask
from jaxunlearn.types import Params

DESCRIBED = (
    "config",
    "recipe",
    "recording",
    "max_length",
    "records",
    "data_sha256",
    "tokenizer_sha256",
    "start_sha256",
    "start_dtype",
)
"""What run.json says of a run, beside the versions."""


class Run(NamedTuple):
    """An open run directory."""

    directory: Path
    model: GPT2
    recipe: Recipe
    recording: Recording | None
    records: list[dict]
    tokenizer: Any
    data: TokenizedData
    max_length: int

    @property
    def pad_id(self) -> int:
        """The token that fills padding."""
        return self.tokenizer.pad_token_id

    @property
    def start(self) -> Params:
        """The starting parameters, read from disk."""
        like = jax.eval_shape(lambda key: self.model.init(key=key), jax.random.key(0))
        dtype = read_json(self.directory / "run.json")["start_dtype"]
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), like)
        return checkpoints.restore_params(self.directory / "start", like)


def create_run(
    directory: Path,
    *,
    model: GPT2,
    params: Params,
    records: Sequence[dict],
    tokenizer: Any,
    recipe: Recipe,
    max_length: int,
    recording: Recording | None = None,
) -> Run:
    """Write a run directory, or open the one that stands there if it is the same.

    Raises:
      ValueError: Another run stands there, or the tokenizer does not fit the model.
    """
    directory = Path(directory)
    check_tokenizer(tokenizer, model.config.vocab_size)
    if recording is not None:
        recorded_mask(recording, recipe, params)
    described = {
        "config": dataclasses.asdict(model.config),
        "recipe": dataclasses.asdict(recipe),
        "recording": None if recording is None else dataclasses.asdict(recording),
        "max_length": max_length,
        "records": len(records),
        "data_sha256": data_hash(records),
        "tokenizer_sha256": data_hash([tokenizer.get_vocab()]),
        "start_sha256": params_hash(params),
        "start_dtype": str(params["wte"]["embedding"].dtype),
    }
    described = json.loads(json.dumps(described))  # tuples become lists, as on disk
    path = directory / "run.json"
    if path.exists():
        found = read_json(path)
        other = [key for key in DESCRIBED if found[key] != described[key]]
        if other:
            raise ValueError(
                f"{directory} holds another run (its {', '.join(other)} differ): "
                f"choose another --out, or delete that folder"
            )
        return open_run(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    write_text(directory / "records.jsonl", "\n".join(lines) + "\n")
    tokenizer.save_pretrained(directory / "tokenizer")
    checkpoints.save_params(directory / "start", params)
    # Last, because its presence says that the rest is whole.
    write_json(path, described | {"versions": versions()})
    return open_run(directory)


def open_run(directory: Path) -> Run:
    """Open a run directory.

    Raises:
      FileNotFoundError: There is no run.
      ValueError: Its records are not those it was trained on, or a file is damaged.
    """
    directory = Path(directory)
    path = directory / "run.json"
    if not path.exists():
        raise FileNotFoundError(
            f"run={directory}: no run.json there. First-epoch unlearning needs the "
            f"training run; make one with `jaxunlearn train --out {directory}`, or use "
            f"--method gradient_ascent, which works on any model"
        )
    found = read_json(path)
    text = (directory / "records.jsonl").read_text(encoding="utf-8")
    try:
        records = [json.loads(line) for line in text.split("\n") if line]
    except json.JSONDecodeError:
        records = []
    if data_hash(records) != found["data_sha256"]:
        raise ValueError(
            f"{directory / 'records.jsonl'} is not the data that the run was trained "
            f"on (its hash differs): restore the file; a replay needs the same records"
        )
    tokenizer = load_tokenizer(str(directory / "tokenizer"))
    recording = found["recording"]
    if recording is not None:
        recording = Recording(**recording | {"epochs": tuple(recording["epochs"])})
    return Run(
        directory,
        GPT2(GPT2Config(**found["config"])),
        Recipe(**found["recipe"]),
        recording,
        records,
        tokenizer,
        tokenize(records, tokenizer, max_length=found["max_length"]),
        found["max_length"],
    )


def read_json(path: Path) -> dict:
    """Read a run.json, or say that it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in DESCRIBED}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it or train "
            f"again into a new --out"
        ) from error
