"""What attacks work on: records, models and their references, all checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxunlearn.commands.lengths import check_max_length
from jaxunlearn.data import (
    TokenizedData,
    check_tokenizer,
    load_tokenizer,
    read_lines,
    read_records,
    tokenize,
)
from jaxunlearn.provenance import data_hash, params_hash

if TYPE_CHECKING:
    from jaxunlearn.commands.attack import Options

RECORDS = ("related", "unrelated", "holdout", "context", "paraphrases")


class Loaded(NamedTuple):
    """A model in memory."""

    name: str
    model: Any
    params: Any


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
      fingerprint: Hashes of the models, the records and the prefixes.
    """

    model: Loaded
    references: list[Loaded]
    original: Loaded | None
    tokenizer: Any
    records: dict[str, list[dict]]
    prefixes: list[str] | None
    forget: TokenizedData
    max_length: int
    fingerprint: dict[str, Any]

    def models(self) -> list[tuple[str, Loaded]]:
        """Return ``(role, model)``: the model, its references, the original."""
        found = [("model", self.model), *(("reference", r) for r in self.references)]
        return found + ([] if self.original is None else [("original", self.original)])

    def tokens(self, records: Sequence[dict]) -> TokenizedData:
        """Return records as the models read them."""
        return tokenize(records, self.tokenizer, max_length=self.max_length)


def read_given(options: "Options") -> dict[str, list[dict]]:
    """Read the records, ``forget`` and what else was given, and look whether they fit.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is damaged, or there are too few records.
    """
    records = {"forget": read_records(options.forget)}
    for name in RECORDS:
        path = getattr(options, name)
        if path is not None:
            records[name] = read_records(path)
    if len(records["forget"]) < 4:
        raise ValueError(
            f"--forget {options.forget} has {len(records['forget'])} records: 4 or "
            f"more are needed, since attacks learn from one half and are judged on the "
            f"other"
        )
    wanted = len(records["forget"])
    if "paraphrases" in records and len(records["paraphrases"]) != wanted:
        raise ValueError(
            f"--paraphrases {options.paraphrases} has {len(records['paraphrases'])} "
            f"records: one for each of the {wanted} of --forget, in their order"
        )
    return records


def prepare(options: "Options", records: dict[str, list[dict]]) -> Inputs:
    """Read and check everything else; the weights last, because they take longest.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is damaged, or tokenizers differ.
    """
    prefixes = None
    if options.prefixes is not None:
        prefixes = [line + "\n" for line in read_lines(options.prefixes)]
    names = [options.model, *options.reference]
    names += [] if options.original is None else [options.original]
    check_max_length(options.max_length, names)
    tokenizer = shared_tokenizer(options)
    loaded = [load(name) for name in names]
    for one in loaded:
        check_tokenizer(tokenizer, one.model.config.vocab_size)
    positions = min(one.model.config.n_positions for one in loaded)
    max_length = options.max_length or positions
    count = len(options.reference)
    return Inputs(
        loaded[0],
        loaded[1 : 1 + count],
        loaded[-1] if options.original is not None else None,
        tokenizer,
        records,
        prefixes,
        tokenize(records["forget"], tokenizer, max_length=max_length),
        max_length,
        {
            "models": [params_hash(one.params) for one in loaded],
            "records": {name: data_hash(found) for name, found in records.items()},
            "prefixes": prefixes,
        },
    )


def shared_tokenizer(options: "Options") -> Any:
    """Return the tokenizer, after checking that every model has the same."""
    tokenizer = load_tokenizer(options.model)
    others = [("--reference", name) for name in options.reference]
    if options.original is not None:
        others.append(("--original", options.original))
    words = tokenizer.get_vocab()
    for option, name in others:
        if load_tokenizer(name).get_vocab() != words:
            raise ValueError(
                f"{option} {name} has another tokenizer than --model {options.model}: "
                f"what they recover cannot be compared"
            )
    return tokenizer


def load(name: str) -> Loaded:
    """Load a model, named after its directory."""
    from jaxunlearn.models import load_pretrained

    return Loaded(Path(name).name or name, *load_pretrained(name))
