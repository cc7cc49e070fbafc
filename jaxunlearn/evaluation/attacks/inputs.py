"""What attacks work on: records, models and their references, all checked."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.data import TokenizedData, check_tokenizer, read_lines, tokenize
from jaxunlearn.evaluation.loading import (
    GivenModel,
    GivenRecords,
    NamedModel,
    directories_of,
    load_model,
    load_records,
    shared_tokenizer,
)
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.ranges import check_number

FEWEST = 4
"""Records to forget: attacks learn from one half and are judged on the other."""

MOST, MOST_STEPS = 65_536, 10**6
"""Of what is held in memory at a time, and of steps: more is a slip of the finger."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of attacks.

    Attributes:
      steps: Of relearning; measured at 0, 1, 2, 4, ... of them.
      learning_rate: Of relearning, by AdamW.
      relearning_batch_size: Examples a relearning step.
      samples: Answers drawn, and first tokens tried, a prompt.
      temperature: Of the draws.
      offset_steps: Of the search for an offset of the prompt embeddings.
      max_length: Most tokens of an example; by default what the models take.
      batch_size: Examples at a time where nothing is learned.
      seed: Of the halves, the order of relearning, the contexts and the draws.

    Raises:
      ValueError: A number is out of its range.
    """

    steps: int = 32
    learning_rate: float = 1e-4
    relearning_batch_size: int = 8
    samples: int = 16
    temperature: float = 1.0
    offset_steps: int = 64
    max_length: int | None = None
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        for name in ("steps", "offset_steps"):
            check_number(name, getattr(self, name), 1, MOST_STEPS)
        for name in ("samples", "batch_size", "relearning_batch_size"):
            check_number(name, getattr(self, name), 1, MOST)
        check_number("seed", self.seed, 0, 2**32 - 1)
        check_number("max_length", self.max_length, 2)
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value}: a number above 0")


class Inputs(NamedTuple):
    """All that is needed, read and checked.

    Attributes:
      model: The model under attack.
      references: Models retrained without the forgotten records.
      original: The model before unlearning, or None.
      tokenizer: Of all of them.
      records: Name -> records: ``forget``, and what else was given.
      prefixes: Words to put in front of prompts, or None for the built-in ones.
      forget: The forgotten records, tokenised.
      max_length: Most tokens of an example.
    """

    model: NamedModel
    references: list[NamedModel]
    original: NamedModel | None
    tokenizer: Any
    records: dict[str, list[dict]]
    prefixes: list[str] | None
    forget: TokenizedData
    max_length: int

    def models(self) -> list[tuple[str, NamedModel]]:
        """Return ``(role, model)``: the model, its references, the original."""
        found = [("model", self.model), *(("reference", r) for r in self.references)]
        return found + ([] if self.original is None else [("original", self.original)])

    def tokens(self, records: Sequence[dict]) -> TokenizedData:
        """Return records as the models read them."""
        return tokenize(records, self.tokenizer, max_length=self.max_length)


def read_sets(given: Mapping[str, GivenRecords | None]) -> dict[str, list[dict]]:
    """Read the records, ``forget`` and what else was given, and look whether they fit.

    Args:
      given: Argument -> records, a file of them, or None.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is damaged, or there are too few records.
    """
    records = {n: load_records(one) for n, one in given.items() if one is not None}

    def told(name: str) -> str:
        path = given[name]
        return f"{name}={path}" if isinstance(path, str | Path) else name

    wanted = len(records["forget"])
    if wanted < FEWEST:
        raise ValueError(
            f"{told('forget')} has {wanted} records: {FEWEST} or more are needed, "
            f"since attacks learn from one half and are judged on the other"
        )
    if "paraphrases" in records and len(records["paraphrases"]) != wanted:
        raise ValueError(
            f"{told('paraphrases')} has {len(records['paraphrases'])} records: one for "
            f"each of the {wanted} of {told('forget')}, in their order"
        )
    return records


def prepare(
    model: GivenModel,
    reference: Sequence[GivenModel],
    original: GivenModel | None,
    records: dict[str, list[dict]],
    *,
    prefixes: str | Path | Sequence[str] | None,
    tokenizer: Any,
    max_length: int | None,
) -> Inputs:
    """Read and check everything else; the weights last, because they take longest.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is damaged, or tokenizers differ.
    """
    words = read_lines(prefixes) if isinstance(prefixes, str | Path) else prefixes
    named = {
        "model": [model],
        "reference": reference,
        "original": [] if original is None else [original],
    }
    given = [one for found in named.values() for one in found]
    check_max_length(max_length, directories_of(given))
    tokenizer = shared_tokenizer(named, tokenizer)
    loaded = [shortly_named(load_model(one)) for one in given]
    for one in loaded:
        check_tokenizer(tokenizer, one.model.config.vocab_size)
    length = max_length or min(one.model.positions for one in loaded)
    return Inputs(
        loaded[0],
        loaded[1 : 1 + len(reference)],
        loaded[-1] if original is not None else None,
        tokenizer,
        records,
        None if words is None else [word + "\n" for word in words],
        tokenize(records["forget"], tokenizer, max_length=length),
        length,
    )


def shortly_named(one: NamedModel) -> NamedModel:
    """Return a model named by the last part of its directory."""
    return one._replace(name=Path(one.name).name or one.name)
