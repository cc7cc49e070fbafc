"""A model folder as others read it: weights, configuration, tokenizer, and the rest.

What we do not know travels along: the other keys of ``config.json``, and the small
files of the folder that a model came from.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxunlearn.data.text.tokenizer import is_tokenizer_file
from jaxunlearn.files import read_json, row_by_row, write_json, write_tensors
from jaxunlearn.folders import (
    CHECKSUMS,
    file_names,
    named_checksums,
    replaced_folder,
    write_checksums,
)
from jaxunlearn.models.checkpoints.config_file import (
    config_options,
    token_ids,
    with_ids,
)
from jaxunlearn.models.checkpoints.families import family
from jaxunlearn.models.checkpoints.files import Tensor, layouts_in
from jaxunlearn.models.checkpoints.huggingface import (
    DTYPES,
    check_tensors,
    file_tensors,
    local_directory,
    parameter_shapes,
)
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.tying import token_table
from jaxunlearn.tree import non_finite_leaves
from jaxunlearn.types import Params

WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
SMALL = 1 << 20
WEIGHT_SUFFIXES = (
    *(".safetensors", ".bin", ".msgpack", ".h5", ".pt", ".pth", ".ckpt", ".onnx"),
    *(".npz", ".npy", ".gguf", ".ot", ".index.json"),
)
# Records of texts: those to be forgotten may be among them.
RECORD_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".arrow")
# Said of the weights that they came with, by us or on the hub.
OF_THOSE_WEIGHTS = ("config.json", CHECKSUMS, "unlearning.json", "README.md")


def save_pretrained(
    model: GPT2,
    params: Params,
    path: str | Path,
    tokenizer: Any = None,
    *,
    source: str | Path | None = None,
) -> None:
    """Write a directory that transformers' ``from_pretrained`` reads.

    Holds ``config.json``, ``model.safetensors``, where given the files of
    ``tokenizer.save_pretrained``, and ``checksums.json``, which loading compares.
    Loading it gives the same bits. It takes the place of what stood at ``path`` when it
    is whole: after a full disk or a kill the old model stands there, or the new one.

    Args:
      model: The model.
      params: Its parameters, in float32, float16 or bfloat16, on this host.
      path: The directory, made where absent; files of the same names are replaced, and
        others stay.
      tokenizer: Any object with Hugging Face's ``save_pretrained(directory)``. Its
        first, last and padding tokens are written into ``config.json`` and
        ``generation_config.json``.
      source: What the model was loaded from, or its ``config.json``. What stands there
        beside weights, tokenizer, records and model card is kept: the other keys of
        ``config.json``, ``generation_config.json``, and other files of up to 1 MiB.

    Raises:
      ValueError: The parameters are not the model's (the differences are listed) or not
        finite, or ``path`` is a file or holds weights in another layout.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"path={str(path)!r} is a file: give a directory")
    others = [] if not path.is_dir() else [n for n in layouts_in(path) if n != WEIGHTS]
    if others:
        raise ValueError(
            f"{path} holds weights in another layout ({', '.join(others)}), which are "
            f"not these: save to another directory"
        )
    params = jax.tree.map(  # JAX reads no array of the other byte order right
        lambda x: row_by_row(x) if isinstance(x, np.ndarray) else x, params
    )
    tensors = {
        name: Tensor(array.shape, array.dtype.name, lambda: np.empty(0))
        for name, array in file_tensors(model, params)
    }
    row = family(model.config)
    check_tensors(row, "params", tensors, parameter_shapes(model), None, DTYPES)
    broken = non_finite_leaves(params)
    if broken:
        raise ValueError(f"params hold NaN or infinite weights: {', '.join(broken)}")
    beside = came_from(source)
    with replaced_folder(path) as fresh:
        write_beside_weights(fresh, model.config, params, tokenizer, beside)
        write_tensors(
            fresh / WEIGHTS,
            {row.prefix + name: array for name, array in file_tensors(model, params)},
            metadata={"format": "pt"},
        )
        written = set(file_names(fresh))
        if path.is_dir():
            keep_others(path, fresh, replaced=tokenizer is not None)
            written |= named_checksums(path) & set(file_names(fresh))
        write_checksums(fresh, written)


def write_beside_weights(
    fresh: Path,
    config: Any,
    params: Params,
    tokenizer: Any,
    beside: tuple[dict[str, Any], list[Path]],
) -> None:
    """Write what a model's directory holds but for its weights.

    Args:
      fresh: The directory.
      config: The model's configuration.
      params: The model's parameters, whose dtype is told.
      tokenizer: As for :func:`save_pretrained`.
      beside: What :func:`came_from` gave.
    """
    known, files = beside
    ids = token_ids(tokenizer)
    dtype = np.asarray(token_table(params)).dtype.name
    for file in files:
        shutil.copyfile(file, fresh / file.name)
    if ids and (fresh / GENERATION).exists():
        generation = read_json(fresh / GENERATION, infinity=True)
        write_json(fresh / GENERATION, with_ids(generation, ids))
    write_json(fresh / "config.json", config_options(config, dtype, known, ids))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(fresh))


def came_from(source: str | Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Return a source's ``config.json`` and the files that stay with its models."""
    if source is None:
        return {}, []
    if Path(source).is_file():  # a configuration to start from has no folder of its own
        return read_json(source), []
    folder = local_directory(source)
    return read_json(folder / "config.json"), companions(folder)


def companions(source: Path) -> list[Path]:
    """Return the files of a model's directory that stay with a model made from it.

    They are small, and hold neither weights nor tokenizer nor records (lists in JSON
    are records), nor what speaks of those weights: results, model card, checksums.
    """
    return [
        file
        for file in sorted(source.iterdir())
        if file.is_file()
        and not file.name.startswith(".")
        and not is_tokenizer_file(file.name)
        and not file.name.endswith(WEIGHT_SUFFIXES + RECORD_SUFFIXES)
        and file.name not in OF_THOSE_WEIGHTS
        and file.stat().st_size <= SMALL
        and not (file.suffix == ".json" and not holds_object(file))
    ]


def holds_object(file: Path) -> bool:
    """Say whether a JSON file holds one object, NaN in it or not, as trainers log.

    What cannot be read is none: often it is JSON Lines, which are records.
    """
    try:
        return isinstance(read_json(file, infinity=True), dict)
    except ValueError:
        return False


def keep_others(old: Path, fresh: Path, *, replaced: bool) -> None:
    """Give ``fresh`` the files of ``old`` whose names it lacks, without copying them.

    Args:
      old: The directory that ``fresh`` takes the place of.
      fresh: The directory with the new files.
      replaced: Whether a new tokenizer stands there, so that no old one may.
    """

    def left(directory: str, names: list[str]) -> list[str]:
        if Path(directory) != old:
            return []
        new = {CHECKSUMS, *(entry.name for entry in fresh.iterdir())}
        return [n for n in names if n in new or (replaced and is_tokenizer_file(n))]

    shutil.copytree(
        old, fresh, ignore=left, copy_function=link, symlinks=True, dirs_exist_ok=True
    )


def link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the disk has no second names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
