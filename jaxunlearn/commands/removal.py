"""What a removal request comes to: the examples, the model, the target."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.commands.console import console
from jaxunlearn.commands.unlearn_options import Options, given_target
from jaxunlearn.data import (
    Match,
    in_order,
    match,
    read_records,
    record_text,
    subset,
    tokenize,
)
from jaxunlearn.data.requests.matching import match_near_duplicate
from jaxunlearn.files import read_json, sha256_of
from jaxunlearn.provenance import data_hash, params_hash
from jaxunlearn.report import console_table

NO_REFERENCE_RISE = 1.0
"""Nats by which the forget loss is to rise where no reference says how far."""

SHOWN, SHOWN_LETTERS = 12, 90
"""Matches that are shown before work begins, and letters of each."""

RESULT = "unlearning.json"
"""The file of an unlearned model's folder that says how it came about."""


class NearDuplicateWarning(UserWarning):
    """Records that should be others say nearly the same."""


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
        matches = match(wanted, source, how=how, threshold=options.threshold)
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

    run = found.run
    retain = kept(read_records(options.retain), found.records)
    unseen = None if options.unseen is None else read_records(options.unseen)
    if unseen is not None:
        check_unseen(unseen, found)
    network, params = load_pretrained(options.model)
    if run is not None:
        if shape_of(run.model) != shape_of(network):
            raise ValueError(
                f"model={options.model} is not the model that run={options.run} "
                f"trained (their configurations differ): pass {options.run}/model"
            )
        check_origin(run, Path(options.model), params)
    words = run.tokenizer if run is not None else load_tokenizer(options.model)
    check_tokenizer(words, network.config.vocab_size)
    length = run.max_length if run is not None else network.config.n_positions

    def tokens(records):
        return tokenize(records, words, max_length=length)

    every = max(1, -(-len(retain) // options.retain_size))
    indices = sorted(m.index for m in found.matches)
    return Removal(
        network,
        params,
        words,
        found,
        tokens(found.records) if run is None else subset(run.data, indices),
        tokens(retain[::every]),
        None if unseen is None else tokens(unseen),
        retain,
    )


def shape_of(model: Any) -> tuple:
    """Return the part of a configuration that decides the parameters' shapes."""
    config = dataclasses.asdict(model.config)
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
    return tuple(config[name] for name in names)


def run_hash(run: Any) -> str:
    """Return the SHA-256 of a run's description, which decides its trained model."""
    return sha256_of(run.directory / "run.json")


def check_origin(run: Any, directory: Path, params: Any) -> None:
    """Refuse a model that is neither the run's own nor unlearned from it.

    Whether it was unlearned from it says the ``unlearning.json`` beside its weights,
    which holds the hash of just these.
    """
    from jaxunlearn.training import check_model

    if (directory / RESULT).exists():
        told = read_json(directory / RESULT)
        origin = {"run_sha256": run_hash(run), "params_sha256": params_hash(params)}
        if isinstance(told, dict) and told.get("result") == origin:
            return
    check_model(run, params)


def kept(retain: list[dict], forget: list[dict]) -> list[dict]:
    """Return the retain records without those that are to be forgotten."""
    unwanted = set(map(saying, forget))
    rest = [record for record in retain if saying(record) not in unwanted]
    if not rest:
        raise ValueError(
            "every record of --retain is to be forgotten: pass records to keep"
        )
    if len(rest) < len(retain):
        console.print(
            f"{len(retain) - len(rest)} of the {len(retain)} retain records are to be "
            f"forgotten and are left out of what is kept."
        )
    return rest


def check_unseen(unseen: list[dict], found: Found) -> None:
    """Refuse look-alikes that the model has seen: their loss says nothing.

    Warns:
      NearDuplicateWarning: Some say nearly what is to be forgotten.
    """
    for name, others in (
        ("to be forgotten", found.records),
        ("training data", found.source or []),
    ):
        seen = set(map(saying, others))
        count = sum(saying(record) in seen for record in unseen)
        if count:
            raise ValueError(
                f"{count} of the {len(unseen)} records of --unseen are {name}: give "
                f"records like the forgotten ones that the model never saw"
            )
    near = match_near_duplicate(found.records, unseen)
    if near:
        warnings.warn(
            f"{len(near)} of the {len(unseen)} records of --unseen say nearly what is "
            f"to be forgotten, so that their loss may be too low a target",
            NearDuplicateWarning,
            stacklevel=2,
        )


def saying(record: dict) -> str:
    """Return what a record says, whatever its case and white space."""
    return " ".join(record_text(record).casefold().split())


def show_matches(found: Found, *, full: bool) -> None:
    """List what is to be forgotten, with scores; in full, or enough to recognise it."""
    rows = [
        {"record": m.index, "score": f"{m.score:.2f}", "text": m.text}
        for m in found.matches
    ]
    title = f"{len(rows)} training records match"
    if not rows:
        rows = [
            {"record": i, "text": record_text(r)} for i, r in enumerate(found.records)
        ]
        title = f"{len(rows)} records to forget"
    if not full:
        rows = [row | {"text": shortened(row["text"])} for row in rows[:SHOWN]]
    console.print(console_table(rows, title=title))
    more = len(found.records) - len(rows)
    if more > 0:
        console.print(f"... and {more} more; --list-matches shows all of them in full.")


def shortened(text: str) -> str:
    """Return a text on one line, cut with an ellipsis where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "…"


def forget_target(removal: Removal, options: Options, now: float) -> tuple[float, str]:
    """Return the forget loss to reach, and what it means.

    Raises:
      ValueError: The loss is there already, and no scale was given.
    """
    target, meaning = target_of(removal, options, now)
    if options.scale is None and not target > now:
        raise ValueError(
            f"the forget loss is {now:.4f} already, and its target {target:.4f} "
            f"({meaning}) is not above it: there is nothing to forget; if there is, "
            f"give a higher --target, or other --unseen records"
        )
    return target, meaning


def target_of(removal: Removal, options: Options, now: float) -> tuple[float, str]:
    """Return the forget loss that the options ask for, and what it means."""
    from jaxunlearn.training import mean_loss_of

    given = given_target(options)
    if given is not None:
        return given, "given"
    chosen = options.target
    if chosen is None and removal.unseen is not None:
        chosen = "unseen"
    if chosen is None and removal.run is None:
        console.print(
            f"No reference was given: the target is the loss now plus "
            f"{NO_REFERENCE_RISE} nat. Better: --unseen FILE with look-alikes."
        )
        return now + NO_REFERENCE_RISE, "loss now plus 1 nat"
    if chosen == "unseen":
        batches = in_order(removal.unseen, batch_size=options.batch_size)
        loss = mean_loss_of(removal.model.per_example_loss, batches)
        return loss(removal.params), "loss of look-alikes that were never seen"
    batches = in_order(removal.forget, batch_size=options.batch_size)
    loss = mean_loss_of(removal.model.per_example_loss, batches)
    return loss(removal.run.start), "loss of the same examples before training"
