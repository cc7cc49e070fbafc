"""What a removal request comes to: the options, the examples, the target."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxunlearn.commands.console import console
from jaxunlearn.data import (
    Match,
    match,
    pad_token_id,
    read_records,
    subset,
    tokenize,
)
from jaxunlearn.report import console_table

NO_REFERENCE_RISE = 1.0
"""Nats by which the forget loss is to rise where no reference says how far."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn unlearn``.

    Attributes:
      model: Hugging Face directory of the trained model.
      retain: Records to keep; their loss is watched.
      out: Directory for the unlearned model.
      method: first_epoch adds back the gradients that the examples gave in epoch one,
        and needs --run to replay; gradient_ascent climbs their loss on any model.
      forget: File of records to forget.
      request: What to forget, in words; matched fuzzily in the training data.
      ids: Positions in the training data to forget.
      run: The training run, from `jaxunlearn train`.
      data: Training records to match in, where there is no run.
      match_by: exact (default for --forget), near_duplicate, or fuzzy (for --request).
      threshold: Least score of a fuzzy or near-duplicate match, 0 to 1.
      layers: Regular expression of the leaves to change. Default: wte (the embedding)
        for first_epoch, all for gradient_ascent.
      part: Which use of the tied embedding to change, in first_epoch.
      epochs: Whose gradients to add back; 1 is the first.
      weight: unit: each gradient counts the same; sgd: as SGD applied it.
      mode: oneshot: one step along the sum; iterative: example by example.
      scale: Take this scale instead of calibrating one.
      target: The forget loss to reach: a number, before (the loss of the same examples
        before training; default with a run) or unseen (the loss of --unseen records).
        Without run and unseen, the loss now plus 1 nat.
      unseen: Records like the forgotten ones that the model never saw.
      max_retain_increase: Refuse where retain loss rises by more: 0.02nats (a token;
        of perplexity, 2 % at every loss), 5% (of the loss) or none. Default: 0.02nats
        for first_epoch, none for gradient_ascent.
      max_relative_step: Refuse where the step is longer than this share of the layers.
      max_exposures: How often iterative mode may use one recorded gradient.
      learning_rate: Of gradient_ascent; default: steps of constant length.
      max_steps: Of gradient_ascent.
      retain_size: Most retain records measured, evenly spaced.
      batch_size: Examples at a time.
      list_matches: Only list what the request matches.
    """

    model: str
    retain: str
    out: Path
    method: Literal["first_epoch", "gradient_ascent"]
    forget: str | None = None
    request: str | None = None
    ids: tuple[int, ...] = ()
    run: Path | None = None
    data: str | None = None
    match_by: Literal["exact", "fuzzy", "near_duplicate"] | None = None
    threshold: float | None = None
    layers: str | None = None
    part: Literal["tied", "input", "output"] = "tied"
    epochs: tuple[int, ...] = (1,)
    weight: Literal["unit", "sgd"] = "unit"
    mode: Literal["oneshot", "iterative"] = "oneshot"
    scale: float | None = None
    target: str | None = None
    unseen: str | None = None
    max_retain_increase: str | None = None
    max_relative_step: float = 1.0
    max_exposures: int = 1
    learning_rate: float | None = None
    max_steps: int = 500
    retain_size: int = 512
    batch_size: int = 16
    list_matches: bool = False

    def check(self) -> None:
        """Refuse options that contradict one another."""
        named = (self.forget is not None, self.request is not None, bool(self.ids))
        if sum(named) != 1:
            raise ValueError(
                "name what to forget by exactly one of --forget, --request and --ids"
            )
        if self.method == "first_epoch" and self.run is None:
            raise ValueError(
                "--method first_epoch replays the training run: pass --run RUN, a "
                "directory made by `jaxunlearn train`; or use --method "
                "gradient_ascent, which works on any model"
            )


def limits_of(options: Options) -> Any:
    """Return what the step must not pass."""
    from jaxunlearn.unlearning import Limits

    limits = Limits(max_relative_step=options.max_relative_step)
    text = options.max_retain_increase
    if text is None and options.method == "first_epoch":
        return limits
    return limits._replace(**retain_limit(text or "none"))


def retain_limit(text: str) -> dict[str, float | None]:
    """Return the limits that ``--max-retain-increase`` names, as fields of `Limits`.

    >>> retain_limit("5%")
    {'max_retain_nats': None, 'max_retain_increase': 0.05}
    >>> retain_limit("0.02nats")
    {'max_retain_nats': 0.02, 'max_retain_increase': None}
    """
    found = re.fullmatch(r"\s*(none|([\d.eE+-]+)\s*(%|nats?)?)\s*", text)
    try:
        if found is None:
            raise ValueError
        value = None if found[2] is None else float(found[2])
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(
            f"max_retain_increase={text!r}: nats a token such as 0.02nats, a share of "
            f"the loss such as 5%, or none"
        )
    if found is not None and (found[3] or "").startswith("nat"):
        return {"max_retain_nats": value, "max_retain_increase": None}
    if value is not None and found is not None and found[3] == "%":
        value /= 100
    return {"max_retain_nats": None, "max_retain_increase": value}


class Removal(NamedTuple):
    """What is to be forgotten and kept, tokenised."""

    model: Any
    params: Any
    tokenizer: Any
    run: Any  # the training run, or None
    matches: list[Match]  # in the training data; empty without any
    forget: Any  # TokenizedData
    retain: Any
    unseen: Any  # or None
    forget_records: list[dict]


def prepare(options: Options) -> Removal:
    """Read everything, check that it fits together, and find what the request means."""
    from jaxunlearn import training
    from jaxunlearn.data import check_tokenizer, load_tokenizer
    from jaxunlearn.models import load_pretrained

    run = None if options.run is None else training.open_run(options.run)
    source = run.records if run is not None else None
    if source is None and options.data is not None:
        source = read_records(options.data)
    forget_records, matches = named(options, source)
    chosen = {m.index for m in matches}
    retain = kept(read_records(options.retain), forget_records)
    network, params = load_pretrained(options.model)
    if run is not None and shape_of(run.model) != shape_of(network):
        raise ValueError(
            f"model={options.model} is not the model that run={options.run} "
            f"trained (their configurations differ): pass {options.run}/model"
        )
    words = run.tokenizer if run is not None else load_tokenizer(options.model)
    check_tokenizer(words, network.config.vocab_size)
    length = run.max_length if run is not None else network.config.n_positions

    def tokens(records):
        return tokenize(records, words, max_length=length)

    every = max(1, -(-len(retain) // options.retain_size))
    unseen = options.unseen
    return Removal(
        network,
        params,
        words,
        run,
        matches,
        subset(run.data, sorted(chosen)) if run is not None else tokens(forget_records),
        tokens(retain[::every]),
        None if unseen is None else tokens(read_records(unseen)),
        forget_records,
    )


def shape_of(model: Any) -> tuple:
    """Return the part of a configuration that decides the parameters' shapes."""
    config = dataclasses.asdict(model.config)
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
    return tuple(config[name] for name in names)


def named(
    options: Options, source: list[dict] | None
) -> tuple[list[dict], list[Match]]:
    """Return the records to forget and, where training data is known, their matches."""
    threshold = options.threshold
    if options.forget is not None:
        wanted: Any = read_records(options.forget)
        how = options.match_by or "exact"
        if source is None:
            return wanted, []
    elif source is None:
        raise ValueError(
            "--request and --ids are looked up in the training data: pass --run RUN, "
            "or --data FILE"
        )
    elif options.request is not None:
        wanted, how = options.request, options.match_by or "fuzzy"
    else:
        wanted, how = list(options.ids), "ids"
    found = match(wanted, source, how=how, threshold=threshold)
    return [source[m.index] for m in sorted(found)], found


def kept(retain: list[dict], forget: list[dict]) -> list[dict]:
    """Return the retain records without those that are to be forgotten."""
    from jaxunlearn.data import record_text

    unwanted = {record_text(record) for record in forget}
    rest = [record for record in retain if record_text(record) not in unwanted]
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


def show_matches(removal: Removal) -> None:
    """List what is to be forgotten, with scores."""
    if not removal.matches:
        console.print(f"{len(removal.forget_records)} records to forget.")
        return
    rows = [
        {"record": m.index, "score": f"{m.score:.2f}", "text": m.text[:90]}
        for m in removal.matches[:12]
    ]
    more = len(removal.matches) - len(rows)
    title = f"{len(removal.matches)} training records match"
    console.print(console_table(rows, title=title))
    if more > 0:
        console.print(f"... and {more} more (all are listed in unlearning.json)")


def forget_target(removal: Removal, options: Options, now: float) -> tuple[float, str]:
    """Return the forget loss to reach, and what it means."""
    from jaxunlearn.training import mean_loss_of

    chosen = options.target
    if chosen is None:
        if removal.unseen is not None:
            chosen = "unseen"
        else:
            chosen = "before" if removal.run is not None else "rise"
    if chosen == "rise":
        console.print(
            f"No reference was given: the target is the loss now plus "
            f"{NO_REFERENCE_RISE} nat. Better: --unseen FILE with look-alikes."
        )
        return now + NO_REFERENCE_RISE, "loss now plus 1 nat"
    settings = {
        "pad_id": pad_token_id(removal.tokenizer),
        "batch_size": options.batch_size,
    }
    if chosen == "before":
        if removal.run is None:
            raise ValueError("--target before needs --run, whose start it measures")
        loss = mean_loss_of(removal.model, removal.forget, **settings)
        return loss(removal.run.start), "loss of the same examples before training"
    if chosen == "unseen":
        if removal.unseen is None:
            raise ValueError("--target unseen needs --unseen FILE")
        loss = mean_loss_of(removal.model, removal.unseen, **settings)
        return loss(removal.params), "loss of look-alikes that were never seen"
    try:
        return float(chosen), "given"
    except ValueError:
        raise ValueError(f"target={chosen!r}: a number, before or unseen") from None
