"""The options of ``jaxunlearn unlearn``: who reads which, and what is refused."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, Literal

from jaxunlearn.commands.arguments import MOST

FIRST_EPOCH = {"mode": "oneshot", "part": "output", "epochs": (1,), "weight": "unit"}
READS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("first_epoch", "oneshot"): FIRST_EPOCH | {"scale": None},
    ("first_epoch", "iterative"): FIRST_EPOCH | {"max_exposures": 1},
    ("gradient_ascent", None): {"learning_rate": None, "max_steps": 500},
}
"""By method and mode, the options that only some ways read, with their defaults."""

PRIVATE = ("request", "forget", "out", "keep_texts")
"""Options that may hold a person's words or name, or say where a result is to go."""


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
      part: Which use of the tied embedding to change, in first_epoch; default
        output.
      epochs: Whose gradients to add back, in first_epoch; default 1, the first.
      weight: unit: each gradient counts the same (default of first_epoch); sgd: as SGD
        applied it.
      mode: oneshot: one step along the sum (default of first_epoch); iterative: example
        by example.
      scale: Take this scale, above 0, instead of calibrating one, in oneshot.
      target: The forget loss to reach: a number, before (the loss of the same examples
        before training; default with a run) or unseen (the loss of --unseen records).
        Without run and unseen, the loss now plus 1 nat.
      unseen: Records like the forgotten ones that the model never saw.
      max_retain_increase: Refuse where retain loss rises by more: 0.02nats (a token;
        of perplexity, 2 % at every loss), 5% (of the loss) or none. Default: 0.02nats
        for first_epoch, none for gradient_ascent.
      max_relative_step: Refuse where the step is longer than this share of the layers.
      max_exposures: How often iterative mode may use one recorded gradient; default 1.
      learning_rate: Of gradient_ascent; default: steps of constant length.
      max_steps: Of gradient_ascent; default 500.
      retain_size: Most retain records measured, evenly spaced.
      batch_size: Examples at a time.
      list_matches: Only list what the request matches, in full; needs no model.
      overwrite: Replace an earlier result of this command in --out.
      keep_texts: Write the forgotten records to this file, outside of --out, which
        itself holds their positions and hashes only. --forget reads it again.
      forget_sha256: Refuse unless the records to forget have this hash, as in
        unlearning.json.
    """

    model: str | None = None
    retain: str | None = None
    out: Path | None = None
    method: Literal["first_epoch", "gradient_ascent"] | None = None
    forget: str | None = None
    request: str | None = None
    ids: tuple[int, ...] = ()
    run: Path | None = None
    data: str | None = None
    match_by: Literal["exact", "fuzzy", "near_duplicate"] | None = None
    threshold: float | None = None
    layers: str | None = None
    part: Literal["tied", "input", "output"] | None = None
    epochs: tuple[int, ...] | None = None
    weight: Literal["unit", "sgd"] | None = None
    mode: Literal["oneshot", "iterative"] | None = None
    scale: float | None = None
    target: str | None = None
    unseen: str | None = None
    max_retain_increase: str | None = None
    max_relative_step: float = 1.0
    max_exposures: int | None = None
    learning_rate: float | None = None
    max_steps: int | None = None
    retain_size: int = 512
    batch_size: int = 16
    list_matches: bool = False
    overwrite: bool = False
    keep_texts: Path | None = None
    forget_sha256: str | None = None

    @property
    def way(self) -> tuple[str, str | None]:
        """The method and, where it has several, its mode: a key of ``READS``."""
        if self.method == "first_epoch":
            return "first_epoch", self.mode or FIRST_EPOCH["mode"]
        return "gradient_ascent", None

    def of_way(self, name: str) -> Any:
        """Return an option of the chosen way, its default where it was not given."""
        given = getattr(self, name)
        return READS[self.way][name] if given is None else given

    def shared(self) -> dict[str, Any]:
        """Return what was given, as JSON values, without what may name somebody."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in (*PRIVATE, "list_matches", "overwrite")
        }
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in given.items()
            if value is not None and value != ()
        }


def check(options: Options) -> None:
    """Refuse options that are missing, out of range, or without effect.

    Raises:
      ValueError: Names the option, its value and the remedy.
    """
    check_named(options)
    check_numbers(options)
    if options.list_matches:
        return
    for name in ("model", "retain", "out", "method"):
        if getattr(options, name) is None:
            raise ValueError(f"--{name} is missing; only --list-matches needs none")
    if options.method == "first_epoch" and options.run is None:
        raise ValueError(
            "--method first_epoch replays the training run: pass --run RUN, a "
            "directory made by `jaxunlearn train`; or use --method "
            "gradient_ascent, which works on any model"
        )
    check_way(options)
    limits_of(options)
    given_target(options)


def check_named(options: Options) -> None:
    """Refuse what names nothing, or says twice what is to be forgotten."""
    named = (options.forget is not None, options.request is not None, options.ids != ())
    if sum(named) != 1:
        raise ValueError(
            "name what to forget by exactly one of --forget, --request and --ids "
            "(unlearning.json keeps no texts and no names: where it has no positions "
            "either, name it beside --config again, such as by a file of --keep-texts)"
        )
    if options.run is not None and options.data is not None:
        raise ValueError(
            f"data={options.data} has no effect beside run={options.run}, which holds "
            f"its training data: leave one of them out"
        )
    known = options.run is not None or options.data is not None
    if not known and options.forget is None:
        raise ValueError(
            "--request and --ids are looked up in the training data: pass --run RUN, "
            "or --data FILE"
        )
    how = "ids" if options.ids else "training data"
    for name in ("match_by", "threshold"):
        value = getattr(options, name)
        if value is not None and (options.ids or not known):
            reason = "beside ids" if how == "ids" else "without run or data to match in"
            raise ValueError(f"{name}={value} has no effect {reason}: leave it out")
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise ValueError(f"threshold={options.threshold} is not in (0, 1]")


def check_way(options: Options) -> None:
    """Refuse options that the chosen method and mode do not read."""
    for name in sorted({name for reads in READS.values() for name in reads}):
        if getattr(options, name) is None or name in READS[options.way]:
            continue
        others = [spelled(way) for way, reads in READS.items() if name in reads]
        raise ValueError(
            f"{name}={getattr(options, name)} has no effect with "
            f"{spelled(options.way)}: leave it out, or use {' or '.join(others)}"
        )


def spelled(way: tuple[str, str | None]) -> str:
    """Return a key of ``READS`` as a user gives it.

    >>> spelled(("first_epoch", "iterative"))
    '--method first_epoch --mode iterative'
    """
    method, mode = way
    return f"--method {method}" + (f" --mode {mode}" if mode else "")


def check_numbers(options: Options) -> None:
    """Refuse numbers that are out of range."""
    for name in ("batch_size", "retain_size", "max_steps", "max_exposures"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= MOST:
            raise ValueError(f"{name}={value}: must be at least 1, at most {MOST:,}")
    for name in ("scale", "learning_rate"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: must be a finite number above 0")
    if not 0 <= options.max_relative_step < math.inf:
        raise ValueError(
            f"max_relative_step={options.max_relative_step}: must be a finite number "
            f"of at least 0"
        )
    for name, least in (("ids", 0), ("epochs", 1)):
        values = getattr(options, name) or ()
        if any(value < least for value in values) or len(set(values)) < len(values):
            raise ValueError(
                f"{name}={' '.join(map(str, values))}: must be different whole numbers "
                f"of at least {least}"
            )


def given_target(options: Options) -> float | None:
    """Return the forget loss to reach where it was given as a number."""
    if options.target in (None, "before", "unseen"):
        if options.target == "before" and options.run is None:
            raise ValueError("--target before needs --run, whose start it measures")
        if options.target == "unseen" and options.unseen is None:
            raise ValueError("--target unseen needs --unseen FILE")
        return None
    try:
        value = float(options.target)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"target={options.target!r}: a number above 0 (nats a token), before or "
            f"unseen"
        )
    return value


def limits_of(options: Options) -> Any:
    """Return what the step must not pass."""
    from jaxunlearn.unlearning import Limits

    limits = Limits(max_relative_step=options.max_relative_step)
    text = options.max_retain_increase
    if text is None:
        text = "none" if options.method == "gradient_ascent" else None
    return limits if text is None else limits._replace(**retain_limit(text))


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
