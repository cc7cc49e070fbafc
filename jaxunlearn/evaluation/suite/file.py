"""The scores file: what it holds, and how an evaluation becomes one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.evaluation.text.answer_log import Scores
from jaxunlearn.evaluation.text.open_unlearning_log import plain
from jaxunlearn.intervals import mean_interval
from jaxunlearn.provenance import versions
from jaxunlearn.sealed import write_sealed

FORMAT = "jaxunlearn scores"

INTERVALS = {str: [float]}
MODEL = {"name?": str, "count?": float, "scores": {str: float}}
SCORES_SHAPE: Mapping[str, Any] = {
    "about?": {"versions?": {str: None}},
    "intervals?": INTERVALS,
    "reference?": {**MODEL, "intervals?": INTERVALS},
    "original?": MODEL,
    "losses?": {str: [float]},
    "membership?": {
        str: {
            "forget": [float],
            "holdout": [float],
            "auc?": float,
            "tpr_at_1_fpr?": float,
            "auc_interval?": [float],
            "tpr_interval?": [float],
        }
    },
    "examples?": [
        {
            "set": str,
            "prompt": str,
            "truth": str,
            "answers?": {str: str},
            "tokens?": {str: [(str, float)]},
        }
    ],
    "layers?": [{"layer": str}],
    "curves?": {str: [{"step": float}]},
    "retraining?": {
        "distance?": {str: {"z?": float, "p_value?": float}},
    },
    "cost?": {"seconds?": {str: float}, "peak_bytes?": float, "flops?": float},
    "not_computed?": {str: str},
    "counts?": {str: {"used": float, "left_out": float}},
    "notes?": {str: str},
}
"""What a scores file holds beside its numbers, see :mod:`~jaxunlearn.json_shapes`."""


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      scores: Numbers by name, their intervals, and what is missing and why.
      blocks: What stands behind them, by its name in the file: losses of examples,
        membership, layers, the retrained models as ``reference``, ...
      about: What was evaluated, and with what.
    """

    scores: Scores
    blocks: dict[str, Any]
    about: dict[str, Any]


def about_scores(
    model: str, name: str | None, reference: Any, words: str, told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a scores file says of itself.

    Args:
      model: What was evaluated.
      name: What a report calls it; None is the last part of ``model``.
      reference: Beside what, or None.
      words: What counted as a word of ROUGE.
      told: What else to say, the command perhaps.
    """
    return {
        "format": FORMAT,
        "model": model,
        "name": name or Path(model).name or model,
        "reference": None if reference is None else str(reference),
        "words": words,
        **told,
        "versions": versions(),
    }


def reference_block(name: str, found: Sequence[Scores]) -> dict[str, Any]:
    """Return the scores of one or more retrained models, with intervals over them.

    With one model the intervals are over its examples, with several over the models.
    """
    common = [
        key
        for key in found[0].values
        if all(math.isfinite(s.values.get(key, math.nan)) for s in found)
    ]
    if len(found) == 1:
        scores = found[0].values
        intervals = {k: (i.low, i.high) for k, i in found[0].intervals.items()}
    else:
        over = {k: mean_interval([s.values[k] for s in found]) for k in common}
        scores = {k: i.value for k, i in over.items()}
        intervals = {k: (i.low, i.high) for k, i in over.items()}
    return {
        "name": name,
        "count": len(found),
        "scores": scores,
        "intervals": intervals,
    }


def scores_file(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as its file holds it: numbers at the top, then the blocks.

    A number that is infinite is null there, and among what was not computed.
    """
    scores = found.scores
    infinite = {n: scores.notes[n] for n, v in scores.values.items() if math.isinf(v)}
    stands_behind = {
        "about": found.about,
        "intervals": {n: (i.low, i.high) for n, i in scores.intervals.items()},
        "counts": {n: count._asdict() for n, count in scores.counts.items()},
        "notes": scores.notes,
        "not_computed": scores.missing | infinite,
    }
    return jsonable(scores.values | stands_behind | found.blocks)


def write_scores(path: Path, found: Evaluation) -> None:
    """Write the scores file, whole."""
    write_sealed(path, scores_file(found))


def jsonable(value: Any) -> Any:
    """Return a value of JSON: arrays as lists, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    return plain(value)
