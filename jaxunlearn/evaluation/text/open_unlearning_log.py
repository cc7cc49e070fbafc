"""OpenUnlearning's layout of evaluation logs, in and out.

``{metric: {"agg_value": x, "value_by_index": {question: {...}}}}``. A question that a
metric could not measure is null there, or one of its fields is.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn.evaluation.text.answer_log import AnswerLog, ratios_of
from jaxunlearn.evaluation.text.log_columns import ROUGES, flat, log_of, number, short
from jaxunlearn.evaluation.text.rouge_scores import rouge
from jaxunlearn.files import write_json

PREFIXES = {
    "forget": "forget",
    "retain": "retain",
    "ra": "real_authors",
    "wf": "world_facts",
}
METRIC = re.compile(
    r"(forget|retain|ra|wf)_"
    r"(?:(q_a_prob|q_a_para_prob|q_a_pert_prob|q_a_rouge|truth_ratio)"
    r"|(knowmem|verbmem)_rouge)"
)
OF_FORGET = ("extraction_strength", "exact_memorization")
STATED = re.compile(r"privleak|mia_\w+")
FIELDS = {
    "rougeL_recall": "rouge_recall",
    "rougeL_f1": "rouge_f1",
    "rouge1_recall": "rouge1_recall",
}
TEXTS = ("input", "generation", "ground_truth")


def read_layout(
    where: str, found: Mapping[str, Any], words: str
) -> dict[str, AnswerLog]:
    """Return the sets of a log in OpenUnlearning's layout.

    MUSE's questions and continuations are sets of their own: ``forget_knowmem``,
    ``forget_verbmem``, ``retain_knowmem``.
    """
    sets: dict[str, dict[str, Mapping]] = {}
    for key, block in found.items():
        if not isinstance(block, dict) or block.get("value_by_index") is None:
            continue
        match = METRIC.fullmatch(key.lower())
        if match:
            prefix, kind, muse = match.groups()
            name, kind = PREFIXES[prefix], kind or "q_a_rouge"
            name = f"{name}_{muse}" if muse else name
        elif key in OF_FORGET:
            name, kind = "forget", key
        else:
            continue
        entries = block["value_by_index"]
        if not isinstance(entries, dict):
            raise ValueError(
                f"{where}, {key}: value_by_index is {short(entries)} where an object "
                f"of questions was expected"
            )
        for question, entry in entries.items():
            if not (entry is None or isinstance(entry, dict)):
                raise ValueError(
                    f"{where}, {key}, question {question}: {short(entry)} where an "
                    f"object was expected"
                )
        sets.setdefault(name, {})[kind] = entries
    return {
        name: read_set(f"{where}, {name}", metrics, words)
        for name, metrics in sets.items()
        if any(metrics.values())
    }


def read_set(where: str, metrics: Mapping[str, Mapping], words: str) -> AnswerLog:
    """Return one set: each metric with its own questions, those of all in one order."""
    index = list(dict.fromkeys(i for entries in metrics.values() for i in entries))

    def column(metric: str, read: Callable[[Mapping], Any]) -> list | None:
        entries = metrics.get(metric, {})
        values = [None if (e := entries.get(i)) is None else read(e) for i in index]
        return None if all(value is None for value in values) else values

    def field(metric: str, name: str) -> list | None:
        return column(metric, lambda entry: entry.get(name))

    def losses(metric: str) -> list | None:
        return column(metric, lambda entry: losses_of(f"{where}: {metric}", entry))

    def row(entry: Mapping) -> list | None:
        parts = [entry.get(name) for name in TEXTS]
        return None if any(part is None for part in parts) else parts

    return log_of(
        where,
        index,
        words=words,
        texts=column("q_a_rouge", row),
        loss=losses("q_a_prob"),
        paraphrased_loss=losses("q_a_para_prob"),
        wrong_losses=losses("q_a_pert_prob"),
        truth_ratio=field("truth_ratio", "score"),
        **{ours: field("q_a_rouge", theirs) for theirs, ours in FIELDS.items()},
        **{name: field(name, "score") for name in OF_FORGET},
    )


def losses_of(what: str, entry: Mapping) -> Any:
    """Return the losses of an entry; from its probabilities where they are null.

    A writer of strict JSON has null for the loss of an impossible answer, and 0 for its
    probability, which is a value.
    """
    losses, shares = flat(entry.get("avg_loss")), flat(entry.get("prob"))
    if len(shares) != len(losses):
        return entry.get("avg_loss")
    return [
        loss_of_probability(what, share) if loss is None else loss
        for loss, share in zip(losses, shares, strict=True)
    ]


def loss_of_probability(what: str, share: Any) -> float | None:
    """Return ``-log p``; None for null."""
    p = number(f"{what}: prob", share, 0.0, 1.0)
    return None if math.isnan(p) else -math.log(p) if p > 0 else math.inf


def stated_scores(where: str, found: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that a log states whole, without values to compute them from.

    PrivLeak, in per cent, and the AUC of membership attacks (``mia_<attack>_auc``).
    """
    stated = {}
    for key, block in found.items():
        if STATED.fullmatch(key) and isinstance(block, dict):
            value = block.get("agg_value")
            name = key if key == "privleak" else f"{key.removesuffix('_auc')}_auc"
            low, high = (-100.0, 1e15) if key == "privleak" else (0.0, 1.0)
            value = number(f"{where}, {key}: agg_value", value, low, high)
            if not math.isnan(value):
                stated[name] = value
    return stated


def write_open_unlearning(
    path: str | Path, logs: Mapping[str, AnswerLog], scores: Mapping[str, float]
) -> None:
    """Write measurements in OpenUnlearning's layout (its TOFU_EVAL.json).

    ROUGE is of OpenUnlearning's words there, since that is what its readers take it
    for. A question that was not measured is null, and so is an infinite loss, beside
    which the probability 0 stands.

    Args:
      path: The file, replaced whole.
      logs: Set name -> measurements.
      scores: The aggregates, from :func:`~answer_log.answer_scores`.
    """
    found: dict[str, Any] = {}
    for name, log in logs.items():
        found |= metrics_of(name, log, scores)
    for metric in ("model_utility", "forget_quality", "privleak"):
        if metric in scores:
            found[metric] = {"agg_value": scores[metric]}
    write_json(Path(path), found)


def metrics_of(
    name: str, log: AnswerLog, scores: Mapping[str, float]
) -> dict[str, dict]:
    """Return one set as metrics of the layout."""
    base, _, muse = name.partition("_") if name.endswith("mem") else (name, "", "")
    prefix = {ours: theirs for theirs, ours in PREFIXES.items()}[base]
    found = {}
    for metric, losses in (
        ("Q_A_Prob", log.loss),
        ("Q_A_PARA_Prob", log.paraphrased_loss),
        ("Q_A_PERT_Prob", log.wrong_losses),
    ):
        if losses is not None:
            prob = [np.exp(-np.asarray(x)) for x in losses]
            mean = mean_of([np.mean(p) for p in prob])
            found[f"{prefix}_{metric}"] = metric_of(
                log.index, mean, prob=prob, avg_loss=losses
            )
    columns = rouge_columns(log)
    if columns:
        metric = f"{prefix}_{muse}_ROUGE" if muse else f"{prefix}_Q_A_ROUGE"
        field = "rougeL_f1" if muse else "rougeL_recall"  # as each benchmark reports
        mean = mean_of(columns[field]) if field in columns else None
        found[metric] = metric_of(log.index, mean, **columns)
    ratios = ratios_of(log, name)
    if ratios is not None:
        metric = "forget_truth_ratio" if name == "forget" else f"{prefix}_Truth_Ratio"
        mean = scores.get(f"{name}_truth_ratio")
        found[metric] = metric_of(log.index, mean, score=ratios)
    for metric in OF_FORGET:
        column = getattr(log, metric)
        if column is not None:
            found[metric] = metric_of(log.index, mean_of(column), score=column)
    return found


def rouge_columns(log: AnswerLog) -> dict[str, Any]:
    """Return a set's ROUGE and its texts, by the layout's names."""
    columns = {
        theirs: np.array(getattr(log, ours))
        for theirs, ours in FIELDS.items()
        if getattr(log, ours) is not None
    }
    if log.answers is None or log.truths is None or log.prompts is None:
        return columns
    at = [i for i, text in enumerate(log.answers) if text is not None]
    truths, answers = (
        [str(column[i]) for i in at] for column in (log.truths, log.answers)
    )
    theirs = {ours: name for name, ours in FIELDS.items()}
    for kind, part, ours in ROUGES:
        column = columns.setdefault(theirs[ours], np.full(len(log.index), np.nan))
        if at:
            scores = rouge(kind, truths, answers, words="open_unlearning")
            column[at] = np.nan_to_num(getattr(scores, part))
    return columns | {
        "input": log.prompts,
        "ground_truth": log.truths,
        "generation": log.answers,
    }


def metric_of(
    index: Sequence[str], mean: float | None, **columns: Sequence[Any]
) -> dict[str, Any]:
    """Return one metric; null for a question none of whose columns has a value."""
    entries = {}
    for i, row in zip(index, zip(*columns.values(), strict=True), strict=True):
        entry = {k: plain(v) for k, v in zip(columns, row, strict=True)}
        entries[i] = None if all(v is None for v in entry.values()) else entry
    return {"agg_value": mean, "value_by_index": entries}


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean of what is not NaN; None where nothing is."""
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if len(array) else None


def plain(value: Any) -> Any:
    """Return a JSON value: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, np.ndarray):
        return [plain(x) for x in value.tolist()] if value.ndim else plain(value.item())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
