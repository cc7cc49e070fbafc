"""The options of ``jaxunlearn train``, checked before anything is read."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxunlearn.commands.arguments import TrainingRecords
from jaxunlearn.ranges import check_number
from jaxunlearn.training import Recipe, Recording

FOLLOWED = ("gradient_dot", "act_act")
"""The scores that ``--track`` follows where none are named."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn train``.

    Attributes:
      model: Hugging Face directory or hub name to fine-tune, or a config.json to
        start from fresh weights.
      data: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: The run directory; its model/ is a Hugging Face directory.
      tokenizer: Directory or hub name; by default the model's, and for a config.json
        one trained on the data with the config's vocab_size.
      epochs: Passes over the data.
      batch_size: Examples a step.
      learning_rate: Peak learning rate.
      optimizer: What turns gradients into steps.
      weight_decay: Decoupled decay, for adamw.
      schedule: How the learning rate goes down.
      warmup_steps: Steps of linear warm-up.
      clip_norm: Clip the global gradient norm.
      reduction: token: every labelled token of a batch counts the same; example:
        every example does.
      microbatch_size: Examples computed at a time, to save memory; changes no result.
      dropout: Sets all three dropout rates; by default the config's.
      max_length: Most tokens of an example; by default what the model takes.
      seed: Of data order, dropout and fresh weights.
      keep_every: Steps between checkpoints that stay in OUT, from which exact_replay
        trains again without forgotten examples; by default it begins at the start.
      record: Also store each example's gradient on the layers that this regular
        expression names, such as wte. Not needed to unlearn: runs are replayed.
      record_epochs: Epochs to store; by default the first.
      record_dtype: Of what is stored; by default float32.
      head_entries: Largest entries a token kept of the output head's gradient; by
        default 64.
      evaluate: Records whose mean loss is measured after each epoch.
      track: Records, such as those that may have to be forgotten one day, whose
        influence is followed: before training and after each epoch their scores with
        every training example, their losses and the norms of their gradients layer
        by layer, into OUT/influence_track.npz. Holds as many gradients in memory as
        there are such records: name few.
      track_methods: Scores to follow; by default gradient_dot and act_act, which
        cost an evaluation about as much as an epoch of training; hvp and the inverse
        curvatures cost many times that.
    """

    model: str
    data: TrainingRecords
    out: Path
    tokenizer: str | None = None
    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 5e-5
    optimizer: Literal["adamw", "adam", "sgd", "momentum"] = "adamw"
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: int = 0
    clip_norm: float | None = None
    reduction: Literal["token", "example"] = "token"
    microbatch_size: int | None = None
    dropout: float | None = None
    max_length: int | None = None
    seed: int = 0
    keep_every: int | None = None
    record: str | None = None
    record_epochs: tuple[int, ...] | None = None
    record_dtype: Literal["float32", "bfloat16"] | None = None
    head_entries: int | None = None
    evaluate: str | None = None
    track: str | None = None
    track_methods: tuple[str, ...] | None = None

    def check(self) -> None:
        """Refuse options that contradict one another, or are out of range."""
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(
                f"--dropout {self.dropout}: must be at least 0 and below 1"
            )
        check_number("keep_every", self.keep_every, 1)
        if self.track is None and self.track_methods is not None:
            raise ValueError(
                "--track-methods needs --track FILE, the records to follow"
            )

    def recipe(self) -> Recipe:
        """Return how to train."""
        names = [field.name for field in dataclasses.fields(Recipe)]
        given = vars(self)
        return Recipe(**{name: given[name] for name in names if name in given})

    def recording(self) -> Recording | None:
        """Return what is to be recorded, None without ``--record``.

        Raises:
          ValueError: It cannot be recorded, or is described without being asked for.
        """
        given = {
            "epochs": self.record_epochs,
            "dtype": self.record_dtype,
            "head_entries": self.head_entries,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if self.record is not None:
            return Recording(layers=self.record, **given)
        if given:
            names = {"epochs": "--record-epochs", "dtype": "--record-dtype"}
            options = " and ".join(names.get(n, "--head-entries") for n in given)
            raise ValueError(f"{options} needs --record REGEX, the layers to record")
        return None
