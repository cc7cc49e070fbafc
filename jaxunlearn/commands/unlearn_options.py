"""The options that ``jaxunlearn unlearn`` has whatever the method."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

PRIVATE = ("request", "forget", "out", "keep_texts", "list_methods")
"""Options that may hold a person's words or name, or say where a result is to go."""

DEFAULT_MODE = "oneshot"

METHOD_S = tyro.conf.arg(help_behavior_hint="(default: the method's)")
"""Of an option whose default is in the method's row."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn unlearn``; a method adds its own.

    Attributes:
      model: Hugging Face directory of the trained model.
      retain: Records to keep; their loss is watched.
      out: Directory for the unlearned model.
      method: How to unlearn. first_epoch adds back the gradients that the examples gave
        in epoch one, and needs --run to replay; gradient_ascent climbs their loss on
        any model; --list names all. `jaxunlearn unlearn NAME --help` shows the options
        of one.
      list_methods: List the methods: form, needs, cost, source.
      forget: File of records to forget.
      request: What to forget, in words; matched fuzzily in the training data.
      ids: Positions in the training data to forget.
      run: The training run, from `jaxunlearn train`.
      data: Training records to match in, where there is no run.
      match_by: exact (default for --forget), near_duplicate, or fuzzy (for --request).
      threshold: Least score of a fuzzy or near-duplicate match, 0 to 1.
      layers: Regular expression of the leaves to change.
      mode: Of first_epoch. oneshot: one step along the sum; iterative: example by
        example, as the method iterative.
      target: The forget loss to reach: a number, before (the loss of the same examples
        before training; default with a run) or unseen (the loss of --unseen records).
        Without run and unseen, the loss now plus 1 nat.
      unseen: Records like the forgotten ones that the model never saw.
      max_retain_increase: Refuse where retain loss rises by more: 0.02nats (a token;
        of perplexity, 2 % at every loss), 5% (of the loss) or none.
      max_relative_step: Refuse where the step is longer than this share of the layers.
      retain_size: Most retain records measured, evenly spaced.
      batch_size: Examples at a time; of an objective, of each set in a step.
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
    method: str | None = None
    list_methods: Annotated[bool, tyro.conf.arg(name="list")] = False
    forget: str | None = None
    request: str | None = None
    ids: tuple[int, ...] = ()
    run: Path | None = None
    data: str | None = None
    match_by: Literal["exact", "fuzzy", "near_duplicate"] | None = None
    threshold: float | None = None
    layers: Annotated[str | None, METHOD_S] = None
    mode: Annotated[
        Literal["oneshot", "iterative"] | None,
        tyro.conf.arg(help_behavior_hint=f"(default: {DEFAULT_MODE})"),
    ] = None
    target: str | None = None
    unseen: str | None = None
    max_retain_increase: Annotated[str | None, METHOD_S] = None
    max_relative_step: float | None = 1.0
    retain_size: int = 512
    batch_size: int = 16
    list_matches: bool = False
    overwrite: bool = False
    keep_texts: Path | None = None
    forget_sha256: str | None = None

    @property
    def row(self) -> str:
        """The name of the method's row in the table."""
        if self.method == "first_epoch" and self.mode == "iterative":
            return "iterative"
        return self.method or ""

    @property
    def own(self) -> dict[str, Any]:
        """The method's own options, as given or by default."""
        shared = {field.name for field in dataclasses.fields(Options)}
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in shared}

    @property
    def settings(self) -> dict[str, Any]:
        """What the method was told, for those who read the result."""
        told = {name: value for name, value in self.own.items() if name != "work"}
        if self.method != "first_epoch":
            return told
        return {"mode": self.mode or DEFAULT_MODE, **told}

    def shared(self) -> dict[str, Any]:
        """Return what was given, as JSON values, without what may name somebody."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in (*PRIVATE, "list_matches", "overwrite", "work")
        }
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        usual = self.own.keys()
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in given.items()
            if value is not None
            and value != ()
            and not (name in usual and value == defaults[name])
        }
