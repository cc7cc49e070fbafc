"""Models and records as they are given, in memory or by a path, read and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn import models
from jaxunlearn.data import load_tokenizer, read_records
from jaxunlearn.models.checkpoints.config_file import load_config
from jaxunlearn.models.checkpoints.families import family
from jaxunlearn.models.checkpoints.huggingface import local_directory
from jaxunlearn.types import Params
from jaxunlearn.unlearning.wrappers.decoders import (
    OffsetDecoder,
    offset_decoder,
    own_decoder,
)
from jaxunlearn.unlearning.wrappers.saving import is_wrapper, load_wrapper


class NamedModel(NamedTuple):
    """A model in memory, and how it is called."""

    name: str
    model: Any
    params: Params


GivenModel = str | Path | NamedModel
"""A model in memory, or its directory."""

GivenRecords = str | Path | Sequence[dict]
"""Records, or the file that holds them."""


def load_model(given: GivenModel) -> NamedModel:
    """Return a model, loaded where a directory is given and then named after it.

    The directory of a wrapper gives the wrapped model, which answers with the offset.
    """
    if isinstance(given, NamedModel):
        return given
    if is_wrapper(given):
        return NamedModel(str(given), *offset_decoder(*load_wrapper(given)))
    return NamedModel(str(given), *models.load_pretrained(given))


def model_without_weights(given: GivenModel) -> Any:
    """Return a model as its configuration says it, with no weights read."""
    if isinstance(given, NamedModel):
        return given.model
    config = load_config(local_directory(given))
    return family(config).model(config)


def without_wrapper(one: NamedModel) -> NamedModel:
    """Return the model whose weights and states are looked at: without its wrapper.

    A wrapper changes what a model says, and nothing inside of it.
    """
    if not isinstance(one.model, OffsetDecoder):
        return one
    return NamedModel(one.name, *own_decoder(one.model, one.params))


def load_records(given: GivenRecords) -> list[dict]:
    """Return records, read where a file is given.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is damaged, or holds no records.
    """
    return read_records(given) if isinstance(given, str | Path) else list(given)


def directories_of(given: Sequence[GivenModel]) -> list[str]:
    """Return the directories among models that were given."""
    return [str(one) for one in given if isinstance(one, str | Path)]


def shared_tokenizer(
    given: Mapping[str, Sequence[GivenModel]], tokenizer: Any = None
) -> Any:
    """Return the one tokenizer of all models.

    Args:
      given: Argument -> the models given by it. The tokenizer is that of the first
        directory.
      tokenizer: Of the models in memory; None if there are none.

    Raises:
      ValueError: A directory has another tokenizer, or models are in memory and none
        was given.
    """
    named = [(name, one) for name, found in given.items() for one in found]
    first = "tokenizer"
    for name, one in named:
        if isinstance(one, NamedModel):
            if tokenizer is None:
                raise ValueError(
                    f"tokenizer=None: {name} is a model in memory, give its tokenizer"
                )
            continue
        found = load_tokenizer(str(one))
        if tokenizer is None:
            tokenizer, first = found, f"{name}={one}"
        elif found.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"{name}={one} has another tokenizer than {first}: what the models "
                f"give cannot be compared"
            )
    return tokenizer
