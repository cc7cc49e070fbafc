"""Which run a model is of, and which of its examples are to be forgotten."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn.data import TokenizedData
from jaxunlearn.files import read_json, sha256_of
from jaxunlearn.provenance import params_hash
from jaxunlearn.training.runs import Run, check_model
from jaxunlearn.types import Batch, Params
from jaxunlearn.unlearning.outcome import Outcome
from jaxunlearn.unlearning.streams import stacked_rows

RESULT = "unlearning.json"
"""The file of an unlearned model's folder that says how it came about."""


def run_hash(run: Run) -> str:
    """Return the SHA-256 of a run's description, which decides its trained model."""
    return sha256_of(run.directory / "run.json")


def check_origin(run: Run, origin: Path | str | Outcome | None, params: Params) -> None:
    """Refuse a model that is neither the run's own nor unlearned from it.

    Args:
      run: The training run.
      origin: Where the parameters come from: the outcome that they are of, or the
        folder that they were read from, whose ``unlearning.json`` holds the hash of
        just these; None: from the run itself.
      params: The parameters.

    Raises:
      ValueError: They are another model's, or the run is not at its end.

    Cost: a hash of all parameters.
    """
    found = params_hash(params)
    if isinstance(origin, Outcome):
        if params_hash(origin.params) == found:
            return
    elif origin is not None and (Path(origin) / RESULT).exists():
        told = read_json(Path(origin) / RESULT)
        expected = {"run_sha256": run_hash(run), "params_sha256": found}
        if isinstance(told, dict) and told.get("result") == expected:
            return
    check_model(run, params)


def check_run(run: Any) -> None:
    """Refuse what is no open run.

    Raises:
      ValueError: Says how to open one.
    """
    if run is not None and not isinstance(run, Run):
        raise ValueError(
            f"run={run!r:.80} is no training run: open its folder by training.open_run"
        )


def check_examples(run: Run, indices: Sequence[int], forget: Iterable[Batch]) -> None:
    """Refuse positions in a run's data that are not those of the examples to forget.

    Args:
      run: The training run.
      indices: Positions in its data, in the order of ``forget``.
      forget: Batches of the examples. What has no ``input_ids`` is only counted.

    Raises:
      ValueError: They are more or fewer, outside the data, or of other texts.
    """
    remedy = (
        "give the positions of just these examples, in their order; "
        "in_order(subset(run.data, indices)) is the set of given positions"
    )
    rows = stacked_rows(forget)
    size, total = len(rows["index"]), len(run.data.examples)
    if len(indices) != size:
        raise ValueError(
            f"indices={list(indices)!r:.80} are {len(indices)} positions, and "
            f"sets.forget holds {size} examples: {remedy}"
        )
    for row, index in enumerate(indices):
        if not 0 <= index < total:
            raise ValueError(
                f"indices={index}: the run's data have the positions 0 to {total - 1}"
            )
        if "input_ids" in rows and not holds_text(rows, row, run.data, index):
            raise ValueError(
                f"indices={index}: example {row} of sets.forget is another text than "
                f"the one at this position of the run's data: {remedy}"
            )


def holds_text(
    rows: dict[str, np.ndarray], row: int, data: TokenizedData, index: int
) -> bool:
    """Return whether a row holds the tokens of an example, whatever its padding."""
    ids, tokens = rows["input_ids"][row], data.examples[index].input_ids
    if "attention_mask" in rows:
        return np.array_equal(ids[rows["attention_mask"][row] > 0], tokens)
    # An example may end in the id of padding itself.
    size = len(tokens)
    return np.array_equal(ids[:size], tokens) and bool(
        (ids[size:] == data.pad_id).all()
    )
