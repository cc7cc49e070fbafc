"""A training run on disk: all that is needed to train it, resume it and replay it.

``run.json`` (model configuration, recipe, recording, data hash, versions),
``records.jsonl`` (the training records), ``tokenizer/``, ``start/`` (starting
parameters), ``checksums.json`` (the hashes of these), ``checkpoints/``,
``losses.jsonl``, ``gradients/`` (where recorded), ``model/`` (the trained model,
Hugging Face layout) and ``trained.json`` (its hash).

The folder holds the training data: delete it when the data themselves must go.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxunlearn.data import TokenizedData, check_tokenizer, load_tokenizer, tokenize
from jaxunlearn.files import parse_json, write_text
from jaxunlearn.folders import CHECKSUMS, check_checksums, write_checksums
from jaxunlearn.locks import LOCK
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.gpt2_config import GPT2Config
from jaxunlearn.models.tying import token_table
from jaxunlearn.provenance import data_hash, params_hash, versions
from jaxunlearn.sealed import read_sealed, typed, write_sealed
from jaxunlearn.training import checkpoints
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.training.recorder import Recording, check_recording
from jaxunlearn.types import Params

FORMAT = 2
"""Of run.json; the first had no seal, and its run no ``checksums.json``."""

DESCRIPTION = "run.json"
TRAINED = "trained.json"

RESULTS = ("checkpoints", "model", TRAINED)
"""What of a run is not given up for another run in the same folder."""

UNFINISHED = ("gradients", "influence_track")
"""What is made anew where nothing of ``RESULTS`` is there yet."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What run.json says of a run; all but the versions decides it."""

    config: GPT2Config
    recipe: Recipe
    recording: Recording | None
    max_length: int
    records: int
    data_sha256: str
    tokenizer_sha256: str
    start_sha256: str
    start_dtype: str
    versions: Mapping[str, str]
    format: int = 1


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
    known_start: Params | None = None  # see with_start

    @property
    def start(self) -> Params:
        """The starting parameters, read from disk each time, or :meth:`with_start`.

        Raises:
          ValueError: They are missing, or not those that the run was started from.
        """
        if self.known_start is not None:
            return self.known_start
        told = read_description(self.directory)
        like = jax.eval_shape(lambda key: self.model.init(key=key), jax.random.key(0))
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, told.start_dtype), like
        )
        start = checkpoints.restore_params(self.directory / "start", like)
        if params_hash(start) != told.start_sha256:
            raise ValueError(
                f"{self.directory / 'start'} does not hold the parameters that the run "
                f"was started from (their hash differs): restore it, or train again "
                f"into a new folder"
            )
        return start

    def with_start(self) -> "Run":
        """Return the run with its starting parameters in memory, read once."""
        return self._replace(known_start=self.start)


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

    Everything is checked before anything is written. ``run.json`` comes first and says
    that the folder is a run's, ``checksums.json`` last and says that it is whole. A run
    that has no checkpoint yet gives way to another.

    Raises:
      ValueError: Another run or anything else stands there, or the tokenizer does not
        fit the model.
    """
    directory = Path(directory)
    check_tokenizer(tokenizer, model.config.vocab_size)
    if recording is not None:
        check_recording(recording, recipe, params)
    data = tokens_from_disk(records, tokenizer, max_length)
    wanted = Description(
        config=model.config,
        recipe=recipe,
        recording=recording,
        max_length=max_length,
        records=len(records),
        data_sha256=data_hash(records),
        tokenizer_sha256=data_hash([tokenizer.get_vocab()]),
        start_sha256=params_hash(params),
        start_dtype=str(token_table(params).dtype),
        versions=versions(),
        format=FORMAT,
    )
    path = directory / DESCRIPTION
    if path.exists():
        found = read_description(directory)
        other = [
            field.name
            for field in dataclasses.fields(Description)
            if field.name not in ("versions", "format")
            and getattr(found, field.name) != getattr(wanted, field.name)
        ]
        if other and any((directory / name).exists() for name in RESULTS):
            raise ValueError(
                f"{directory} holds another run (its {', '.join(other)} differ): "
                f"choose another folder, or delete that one"
            )
        if not other and is_whole(directory, found):
            return open_run(directory, data=data)
        # It came to nothing, as a run that diverged at once: nothing of it is lost.
        (directory / CHECKSUMS).unlink(missing_ok=True)
        for name in UNFINISHED:
            shutil.rmtree(directory / name, ignore_errors=True)
    else:
        refuse_foreign(directory)
    write_sealed(path, dataclasses.asdict(wanted))
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    write_text(directory / "records.jsonl", "\n".join(lines) + "\n")
    tokenizer.save_pretrained(directory / "tokenizer")
    checkpoints.save_params(directory / "start", params)
    write_checksums(directory)
    return open_run(directory, data=data)


def tokens_from_disk(
    records: Sequence[dict], tokenizer: Any, max_length: int
) -> TokenizedData:
    """Tokenize records by the tokenizer as a replay reads it, which may be another."""
    with tempfile.TemporaryDirectory(prefix="jaxunlearn-") as place:
        tokenizer.save_pretrained(place)
        return tokenize(records, load_tokenizer(place), max_length=max_length)


def refuse_foreign(directory: Path) -> None:
    """Refuse a folder that holds anything: without a ``run.json`` it is no run's."""
    found = directory.iterdir() if directory.exists() else ()
    names = sorted(path.name for path in found if path.name != LOCK)
    if names:
        raise ValueError(
            f"{directory} holds other files ({', '.join(names[:3])}) and no run: "
            f"choose a folder that is empty or not there"
        )


def is_whole(directory: Path, told: Description) -> bool:
    """Say whether all that is written before training stands there."""
    return told.format < FORMAT or (directory / CHECKSUMS).exists()


def open_run(directory: Path, *, data: TokenizedData | None = None) -> Run:
    """Open a run directory, its files compared with their hashes.

    Args:
      directory: The run's.
      data: Its records, where they were tokenized just now; None does it.

    Raises:
      FileNotFoundError: There is no run.
      ValueError: A file is damaged or is not the one that the run was trained with.
    """
    directory = Path(directory)
    if not (directory / DESCRIPTION).exists():
        raise FileNotFoundError(
            f"run={directory}: no run.json there, so it is no training run. Make one "
            f"with `jaxunlearn train`, or use a method that needs none, such as "
            f"gradient_ascent"
        )
    told = read_description(directory)
    if not is_whole(directory, told):
        raise ValueError(
            f"run={directory} is the beginning of a run, without {CHECKSUMS}: run the "
            f"same `jaxunlearn train` command again"
        )
    check_checksums(directory, remedy="restore it; a replay needs the same files")
    text = (directory / "records.jsonl").read_text(encoding="utf-8")
    try:
        records = [parse_json(line) for line in text.split("\n") if line]
    except ValueError:
        records = []
    if data_hash(records) != told.data_sha256:
        raise ValueError(
            f"{directory / 'records.jsonl'} is not the data that the run was trained "
            f"on (its hash differs): restore the file; a replay needs the same records"
        )
    tokenizer = load_tokenizer(str(directory / "tokenizer"))
    if data_hash([tokenizer.get_vocab()]) != told.tokenizer_sha256:
        raise ValueError(
            f"{directory / 'tokenizer'} is not the tokenizer that the run was trained "
            f"with (the hash of its tokens differs): restore it"
        )
    return Run(
        directory,
        GPT2(told.config),
        told.recipe,
        told.recording,
        records,
        tokenizer,
        tokenize(records, tokenizer, max_length=told.max_length)
        if data is None
        else data,
        told.max_length,
    )


def read_description(directory: Path) -> Description:
    """Read a run.json, field by field.

    Raises:
      ValueError: It is damaged or was edited; names the field where it can.
    """
    return read_sealed(
        directory / DESCRIPTION,
        lambda found: typed(found, Description, later=("format",)),
        remedy="restore it or train again into a new folder",
        unsealed=lambda found: "format" not in found,
    )


def finish_run(directory: Path, params: Params) -> None:
    """Keep the hash of the model that a run came to, for :func:`check_model`."""
    write_sealed(directory / TRAINED, {"params_sha256": params_hash(params)})


def check_model(run: Run, params: Params) -> None:
    """Refuse parameters that are not those that a run ended with.

    A run of a version that kept no hash of its model cannot be compared, which an
    ``UncheckedWarning`` says.

    Raises:
      ValueError: They are another model's, or the run is not at its end.
    """
    path = run.directory / TRAINED
    if path.exists():
        told = read_sealed(path, remedy="train again into a new folder")
        if told.get("params_sha256") != params_hash(params):
            raise ValueError(
                f"the model is not the one that run={run.directory} ended with (the "
                f"hash of its parameters differs): pass {run.directory / 'model'}, or "
                f"the run that this model came from"
            )
    elif read_description(run.directory).format >= FORMAT:
        raise ValueError(
            f"run={run.directory} has not come to its end ({TRAINED} is missing): run "
            f"the same `jaxunlearn train` command again"
        )
