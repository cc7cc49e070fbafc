"""The options of ``jaxunlearn index build`` and ``jaxunlearn index query``."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxunlearn.commands.arguments import TrainingRecords

DIMENSIONS = {"kronecker": (16, 16), "dense": (2048,)}
"""Of a projection's rows, by default."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Project every training example's gradient to a row, and keep the rows.

    A build that was interrupted goes on where it stood when the same command is run
    again.

    Attributes:
      model: Hugging Face directory, or a run directory of `jaxunlearn train`.
      train: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: Directory of the index.
      projection: kronecker (LoGra): each layer's inputs and output gradients are
        projected; dense: each whole gradient.
      dimensions: Two numbers a layer for kronecker, by default 16 16; one for dense, by
        default 2048.
      dtype: Of the rows; int8 has a scale for each row and layer.
      layers: Regular expression of the parameters that count; by default all.
      batch_size: Examples at a time.
      max_length: Most tokens of an example; by default what the model takes.
      seed: Of the projection.
    """

    model: str
    train: TrainingRecords
    out: Path
    projection: Literal["kronecker", "dense"] = "kronecker"
    dimensions: tuple[int, ...] = ()
    dtype: Literal["int8", "bfloat16", "float32"] = "int8"
    layers: str | None = None
    batch_size: int = 16
    max_length: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Query:
    """Find the strongest proponents and opponents of queries in an index.

    Attributes:
      index: Directory of the index.
      model: The model that it was built with.
      train: The training records that it was built from, for their text.
      query: Records whose loss is to be explained.
      top: How many proponents and opponents of each query are shown.
      damping_share: What is added to the projected Fisher before it is inverted, as a
        share of each layer's mean eigenvalue.
      no_precondition: Take plain products, without the inverse Fisher.
      cosine: Divide by the lengths of both rows.
      batch_size: Queries at a time.
      out: An .npz file for all scores, [queries, train].
      page: An .html file with the same as is printed.
    """

    index: Path
    model: str
    train: TrainingRecords
    query: str
    top: int = 5
    damping_share: float = 0.1
    no_precondition: bool = False
    cosine: bool = False
    batch_size: int = 16
    out: Path | None = None
    page: Path | None = None
