"""Where a training run begins: a model, parameters and a tokenizer that fit."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxunlearn import models
from jaxunlearn.data import (
    check_tokenizer,
    load_tokenizer,
    record_text,
    train_tokenizer,
)
from jaxunlearn.models import GPT2, load_config
from jaxunlearn.models.checkpoints import huggingface
from jaxunlearn.models.checkpoints.config_file import with_tokens
from jaxunlearn.models.checkpoints.families import family
from jaxunlearn.randomness import random_key
from jaxunlearn.types import Params


def starting_point(
    model: str,
    tokenizer: str | None,
    records: list[dict],
    dropout: float | None,
    seed: int,
) -> tuple[GPT2, Params, Any]:
    """Return model, parameters and tokenizer to start from.

    Args:
      model: Hugging Face directory or hub name, or a config.json for fresh weights.
      tokenizer: Directory or hub name; by default the model's, and for a config.json
        one trained on the records.
      records: The training records.
      dropout: Sets all three dropout rates; by default the config's.
      seed: Of fresh weights.

    Raises:
      FileNotFoundError: There is no such model or tokenizer.
      ValueError: A file is damaged, the model too large for this machine's memory, or
        the tokenizer is not the model's.
    """
    if Path(model).is_file():
        config = load_config(model)
        network = family(config).model(config)
        huggingface.check_memory(huggingface.parameter_shapes(network), model)
        params = network.init(key=random_key(seed))
        if tokenizer is None:
            words = train_tokenizer(
                [record_text(r) for r in records],
                vocab_size=network.config.vocab_size,
            )
        else:
            words = load_tokenizer(tokenizer)
    else:
        words = load_tokenizer(tokenizer or model)
        network, params = models.load_pretrained(model)
    check_tokenizer(words, network.config.vocab_size)
    network = dataclasses.replace(network, config=with_tokens(network.config, words))
    if dropout is not None:
        network = network.with_dropout(dropout)
    return network, params, words
