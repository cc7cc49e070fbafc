"""A model's ``config.json``, read and written."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxunlearn.files import read_json
from jaxunlearn.models.checkpoints.families import FAMILIES, family, family_name
from jaxunlearn.models.gpt2_config import GPT2Config

OUR_FIELDS = ("attention", "remat", "dtype")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def load_config(path: str | Path) -> GPT2Config:
    """Return the configuration in a ``config.json``, given it or its directory.

    Options that change nothing here (``use_cache``, ``summary_type``, ...) are ignored.
    The three fields that are not Hugging Face's keep their defaults; set them with
    ``dataclasses.replace(config, attention=..., remat=..., dtype=...)``.

    Raises:
      FileNotFoundError: No such file.
      ValueError: The file is no JSON object, lacks a size, holds a field of the wrong
        type, a family or an option that is not supported; the message
        names it.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: it gives the model's shape")
    options = read_json(path)
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold a JSON object, not {options!r:.40}")
    kind = options.get("model_type", "gpt2")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"{path}: model_type={kind!r} is not supported, "
            f"only {', '.join(map(repr, FAMILIES))}"
        )
    row = FAMILIES[kind]
    for name, (only, reason) in row.supported_only.items():
        if options.get(name, only) != only:
            raise ValueError(
                f"{path}: {name}={options[name]!r} is not supported, only {only!r}: "
                f"{reason}"
            )
    for alias, name in row.aliases.items():
        if options.get(name, options.get(alias)) != options.get(
            alias, options.get(name)
        ):
            raise ValueError(
                f"{path}: {name}={options[name]!r} and {alias}={options[alias]!r} are "
                f"two names of one size: delete the wrong one"
            )
    options = {row.aliases.get(name, name): value for name, value in options.items()}
    absent = [name for name in row.required if name not in options]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}")
    types = typing.get_type_hints(row.config)
    values = {
        name: options[name]
        for name in hugging_face_fields(row.config)
        if name in options
    }
    ends = values.get("eos_token_id")
    if isinstance(ends, list) and ends:  # any of several tokens ends a text
        values["eos_token_id"] = ends[0]
    for name, value in values.items():
        expected = int | float if types[name] is float else types[name]
        if not isinstance(value, expected) or (
            isinstance(value, bool) and types[name] is not bool
        ):
            raise ValueError(
                f"{path}: {name}={value!r:.60} must be "
                f"{getattr(types[name], '__name__', types[name])}"
            )
    try:
        return row.config(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def config_options(
    config: GPT2Config,
    dtype: str,
    others: Mapping[str, Any],
    ids: Mapping[str, int],
) -> dict[str, Any]:
    """Return the ``config.json`` that transformers reads.

    Args:
      config: The configuration.
      dtype: The weights'.
      others: The ``config.json`` that it came from, whose other keys are kept.
      ids: The tokenizer's, as :func:`token_ids` gives them. Without them the config's
        are written, and null where the vocabulary has no such token.
    """
    row = family(config)
    fields = {name: getattr(config, name) for name in hugging_face_fields(row.config)}
    ours = {name: fields.pop(name) for name in TOKENS if name in fields}
    options = {
        "use_cache": True,
        **{name: value for name, value in others.items() if name not in row.aliases},
        "architectures": [row.architecture],
        "model_type": family_name(config),
        **fields,
        **{key: getattr(config, name) for key, name in row.copies.items()},
        "tie_word_embeddings": True,
        # transformers read the first before version 5 and reads the second since.
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    options = with_ids(options, ours | ids)
    unknown = [
        name
        for name in TOKENS
        if isinstance(options.get(name), int) and options[name] >= config.vocab_size
    ]
    return options | dict.fromkeys(unknown)


def with_tokens(config: GPT2Config, tokenizer: Any) -> GPT2Config:
    """Return the configuration with a tokenizer's ids for beginning and end."""
    ids = {name: i for name, i in token_ids(tokenizer).items() if hasattr(config, name)}
    return dataclasses.replace(config, **ids)


def token_ids(tokenizer: Any) -> dict[str, int]:
    """Return a tokenizer's ids for beginning, end and padding; those that it has."""
    found = {name: getattr(tokenizer, name, None) for name in TOKENS}
    return {name: value for name, value in found.items() if value is not None}


def with_ids(options: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's options with these ids; a list that holds one of them stays.

    >>> with_ids({"eos_token_id": [7, 2], "pad_token_id": 9}, {"eos_token_id": 2})
    {'eos_token_id': [7, 2], 'pad_token_id': 9}
    """

    def agreed(name: str) -> Any:
        old = options.get(name)
        return old if isinstance(old, list) and ids[name] in old else ids[name]

    return {**options, **{name: agreed(name) for name in ids}}


def hugging_face_fields(config: type) -> list[str]:
    """Return the names of the fields of a class that a ``config.json`` has."""
    names = [field.name for field in dataclasses.fields(config)]
    return [name for name in names if name not in OUR_FIELDS]
