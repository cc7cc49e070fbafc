"""What a removal request comes to: the examples to forget and keep, and the model."""

import re
from typing import Any, NamedTuple

from jaxunlearn.commands.console import console
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.data import Match, match, read_records, subset, tokenize
from jaxunlearn.data.requests.others import check_unseen, without_forgotten
from jaxunlearn.provenance import data_hash


class Found(NamedTuple):
    """What a request means."""

    run: Any  # the training run, or None
    source: list[dict] | None  # the training data, where known
    records: list[dict]  # to be forgotten
    matches: list[Match]  # in the training data; empty without any


class Removal(NamedTuple):
    """What is to be forgotten and kept, tokenised, and the model that knows it."""

    model: Any
    params: Any
    tokenizer: Any
    found: Found
    forget: Any  # TokenizedData
    retain: Any
    unseen: Any  # or None
    retain_records: list[dict]

    @property
    def run(self) -> Any:
        """The training run, or None."""
        return self.found.run

    @property
    def indices(self) -> list[int]:
        """The positions of the examples in the training data, in order."""
        return sorted(m.index for m in self.found.matches)


def find(options: Options) -> Found:
    """Read the training data, and find what the request means there.

    Raises:
      ValueError: Nothing is meant, or not the records that ``forget_sha256`` says.
    """
    from jaxunlearn import training

    run = None if options.run is None else training.open_run(options.run)
    source = None if run is None else run.records
    if options.data is not None:
        source = read_records(options.data)
    wanted: Any = list(options.ids)
    how = "ids"
    if options.forget is not None:
        wanted, how = read_records(options.forget), options.match_by or "exact"
    elif options.request is not None:
        wanted, how = options.request, options.match_by or "fuzzy"
    matches, records = [], wanted
    if source is not None:
        try:
            matches = match(wanted, source, how=how, threshold=options.threshold)
        except ValueError as error:  # what is `how` there is called otherwise here
            told = re.sub(r"\bhow=(?=')", "match_by=", str(error))
            raise ValueError(told) from error
        records = [source[m.index] for m in sorted(matches)]
    expected = options.forget_sha256
    if expected is not None and data_hash(records) != expected:
        raise ValueError(
            f"forget_sha256={expected} is not the hash of the {len(records)} records "
            f"that are named ({data_hash(records)}): name the records that it is of, "
            f"or leave it out"
        )
    return Found(run, source, records, matches)


def prepare(options: Options, found: Found) -> Removal:
    """Read the other records and the model, and check that all fits together.

    Raises:
      ValueError: Retain or unseen records are to be forgotten, or the model is not the
        one that the run trained.
    """
    from jaxunlearn.data import check_tokenizer, load_tokenizer
    from jaxunlearn.models import load_pretrained
    from jaxunlearn.unlearning.origin import check_origin

    run = found.run
    every = read_records(options.retain)
    retain = without_forgotten(every, found.records, name="--retain")
    if len(retain) < len(every):
        console.print(
            f"{len(every) - len(retain)} of the {len(every)} retain records are to be "
            f"forgotten and are left out of what is kept."
        )
    unseen = None if options.unseen is None else read_records(options.unseen)
    if unseen is not None:
        check_unseen(unseen, found.records, found.source or [], name="--unseen")
    network, params = load_pretrained(options.model)
    if run is not None:
        if run.model.sizes != network.sizes:
            raise ValueError(
                f"model={options.model} is not the model that run={options.run} "
                f"trained (their configurations differ): pass {options.run}/model"
            )
        check_origin(run, options.model, params)
    words = run.tokenizer if run is not None else load_tokenizer(options.model)
    check_tokenizer(words, network.config.vocab_size)
    length = run.max_length if run is not None else network.positions

    def tokens(records):
        return tokenize(records, words, max_length=length)

    thinning = max(1, -(-len(retain) // options.retain_size))
    indices = sorted(m.index for m in found.matches)
    return Removal(
        network,
        params,
        words,
        found,
        tokens(found.records) if run is None else subset(run.data, indices),
        tokens(retain[::thinning]),
        None if unseen is None else tokens(unseen),
        retain,
    )
