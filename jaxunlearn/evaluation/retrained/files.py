"""A directory of retrained models, which knows what they were trained on.

``retraining.json`` says it, ``seed-K`` holds the parameters of a finished model, and
``unfinished`` the checkpoints of models that are being trained.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.data import TokenizedData
from jaxunlearn.folders import sweep
from jaxunlearn.journal import fingerprint, foreign
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.provenance import versions
from jaxunlearn.sealed import read_sealed, typed, write_sealed
from jaxunlearn.training import checkpoints
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.types import Params

DESCRIPTION = "retraining.json"
FORMAT = 2
"""Of retraining.json; the first had no seal."""


@dataclasses.dataclass(frozen=True)
class Described:
    """What retraining.json says: :func:`describe`, and of which starts and versions."""

    model: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    data_sha256: str
    forget: list[int]
    start_sha256: dict[str, str]
    versions: dict[str, str]
    format: int = 1


def describe(
    model: GPT2, recipe: Recipe, data: TokenizedData, forget: Sequence[int]
) -> dict:
    """Return what decides retrained models, their seeds and starts apart."""
    settings = dataclasses.asdict(recipe)
    del settings["seed"]
    return {
        "model": type(model).__name__,
        "config": dataclasses.asdict(model.config),
        "recipe": settings,
        "data_sha256": tokens_hash(data),
        "forget": [int(i) for i in forget],
    }


def tokens_hash(data: TokenizedData) -> str:
    """Return the SHA-256 of the examples' tokens and labels, in their order."""
    digest = hashlib.sha256()
    for example in data.examples:
        digest.update(f"{len(example.input_ids)} ".encode())
        digest.update(example.input_ids.tobytes())
        digest.update(example.labels.tobytes())
    return digest.hexdigest()


def claim(directory: Path, described: dict, starts: Mapping[str, str]) -> None:
    """Take a directory for retrained models, new or of the same description.

    What a killed process was writing there is deleted.

    Args:
      directory: Made if it is not there.
      described: See :func:`describe`.
      starts: Hash of the starting parameters, of ``every seed`` or by seed; those of
        further seeds may be added later.

    Raises:
      ValueError: It holds other models, or its description is missing or damaged.
    """
    described = fingerprint(described)
    path = directory / DESCRIPTION
    known: dict[str, str] = {}
    if path.exists():
        found = read_sealed(
            path,
            lambda found: typed(found, Described, later=("format",)),
            remedy="restore it, or delete the folder to train its models again",
            unsealed=lambda found: "format" not in found,
        )
        known = dict(found.start_sha256)
        other = [k for k in described if getattr(found, k) != described[k]]
        both = known.keys() & starts.keys()
        shared = ["every seed" in names for names in (known, starts)]
        if shared[0] != shared[1] or any(known[x] != starts[x] for x in both):
            other.append("start")
        if other:
            raise ValueError(
                f"directory={str(directory)!r} holds models of another retraining (its "
                f"{', '.join(other)} differ): name another, or delete that folder"
            )
    elif foreign(directory):
        raise ValueError(
            f"directory={str(directory)!r} is not empty and holds no {DESCRIPTION} "
            f"that says which models these are: name another directory"
        )
    if directory.exists():
        sweep(directory)
    if not starts.keys() <= known.keys():
        content = {**described, "start_sha256": {**known, **starts}}
        write_sealed(path, {**content, "versions": versions(), "format": FORMAT})


def finished(directory: Path, seed: int) -> bool:
    """Return whether the model of a seed is there, whole."""
    return (directory / f"seed-{seed}").is_dir()


def write(directory: Path, seed: int, params: Params) -> None:
    """Keep a finished model; it has its name once it is whole."""
    checkpoints.save_params(directory / f"seed-{seed}", params)


def read(directory: Path, seed: int, like: Params) -> Params:
    """Return a finished model."""
    return checkpoints.restore_params(directory / f"seed-{seed}", like)


def checkpoints_of(directory: Path, seeds: Sequence[int]) -> Path:
    """Return where models that are trained together keep their checkpoints."""
    name = hashlib.sha256(json.dumps(list(seeds)).encode()).hexdigest()[:16]
    return directory / "unfinished" / name


def forget_checkpoints(directory: Path) -> None:
    """Delete all checkpoints of models that were not finished."""
    shutil.rmtree(directory / "unfinished", ignore_errors=True)
