"""Evaluation logs of other frameworks, in and out: TOFU's and OpenUnlearning's.

TOFU wrote one JSON of ``{file: {statistic: {question: value}}}`` (some copies hold
lists in place of the inner objects), OpenUnlearning writes ``{metric: {"agg_value": x,
"value_by_index": {question: {...}}}}``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn.evaluation.answer_log import AnswerLog, ratios_of
from jaxunlearn.evaluation.rouge import rouge
from jaxunlearn.files import write_json

TOFU_FILES = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
OPEN_PREFIXES = {
    "forget": "forget",
    "retain": "retain",
    "ra": "real_authors",
    "wf": "world_facts",
}
ROUGE_TOLERANCE = 1e-6


def read_logs(path: str | Path) -> dict[str, AnswerLog]:
    """Read the evaluation log of a model, in TOFU's or OpenUnlearning's layout.

    Args:
      path: The JSON file.

    Returns:
      Set name (forget, retain, real_authors, world_facts) -> measurements. ROUGE is
      computed again from the texts where they are there.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is no JSON, of another layout, or damaged; the message names the
        file, the set and the statistic.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"logs={path}: no such file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, or cut short: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: an object of sets or metrics expected")
    if any(isinstance(v, dict) and "value_by_index" in v for v in found.values()):
        logs = open_unlearning_logs(path, found)
    elif any(name in TOFU_FILES for name in found):
        logs = {
            TOFU_FILES[name]: tofu_log(f"{path}, {name}", block)
            for name, block in found.items()
            if name in TOFU_FILES
        }
    elif "avg_gt_loss" in found and path.name in TOFU_FILES:
        logs = {TOFU_FILES[path.name]: tofu_log(str(path), found)}
    else:
        raise ValueError(
            f"{path} is no evaluation log: found {', '.join(list(found)[:6])}; "
            f"accepted are TOFU's files ({', '.join(TOFU_FILES)}) and OpenUnlearning's "
            f'metrics, each with "value_by_index"'
        )
    if not logs:
        raise ValueError(f"{path} holds no measurements of a question set")
    return logs


def tofu_log(where: str, block: Any) -> AnswerLog:
    """Return one set of TOFU's layout; ``where`` names it in messages."""
    if not isinstance(block, dict):
        raise ValueError(f"{where}: an object of statistics expected")
    columns = {
        name: {str(i): v for i, v in enumerate(x)} if isinstance(x, list) else x
        for name, x in block.items()
        if isinstance(x, dict | list)
    }
    if "avg_gt_loss" not in columns:
        raise ValueError(
            f"{where} has no avg_gt_loss; found {', '.join(columns) or 'nothing'}"
        )
    index = tuple(columns["avg_gt_loss"])

    def column(name: str) -> list | None:
        if name not in columns:
            return None
        lost = [i for i in index if i not in columns[name]]
        if lost or len(columns[name]) != len(index):
            raise ValueError(
                f"{where}: {name} is of {len(columns[name])} questions, avg_gt_loss of "
                f"{len(index)}; the log is damaged"
            )
        return [columns[name][i] for i in index]

    return answer_log(
        where,
        index,
        loss=column("avg_gt_loss"),
        tokens=column("num_token_gt"),
        paraphrased_loss=column("avg_paraphrased_loss"),
        wrong_losses=column("average_perturb_loss"),
        rouge_recall=column("rougeL_recall"),
        rouge1_recall=column("rouge1_recall"),
        texts=column("generated_text"),
    )


def open_unlearning_logs(path: Path, found: Mapping[str, Any]) -> dict[str, AnswerLog]:
    """Return the sets of OpenUnlearning's layout."""
    logs = {}
    for prefix, name in OPEN_PREFIXES.items():
        metrics = {
            key.lower()[len(prefix) + 1 :]: block["value_by_index"]
            for key, block in found.items()
            if key.lower().startswith(f"{prefix}_")
            and isinstance(block, dict)
            and isinstance(block.get("value_by_index"), dict)
        }
        if metrics:
            logs[name] = open_unlearning_log(f"{path}, {name}", name, metrics)
    return {name: log for name, log in logs.items() if log is not None}


def open_unlearning_log(
    where: str, name: str, metrics: Mapping[str, Mapping[str, Any]]
) -> AnswerLog | None:
    """Return one set of OpenUnlearning's layout, from its metrics in small letters."""
    known = ("q_a_prob", "q_a_para_prob", "q_a_pert_prob", "q_a_rouge", "truth_ratio")
    present = [key for key in known if key in metrics]
    if not present:
        return None
    # A question that one metric could not measure (null) is left out of all.
    index = tuple(
        i
        for i in metrics[present[0]]
        if all(measured(metrics[key].get(i)) for key in present)
    )

    def column(metric: str, field: str) -> list | None:
        values = metrics.get(metric)
        if values is None or any(field not in values[i] for i in index):
            return None
        return [values[i][field] for i in index]

    fields = [column("q_a_rouge", x) for x in ("input", "generation", "ground_truth")]
    texts = None
    if all(part is not None for part in fields):
        texts = [list(row) for row in zip(*fields, strict=True)]
    return answer_log(
        where,
        index,
        loss=column("q_a_prob", "avg_loss"),
        paraphrased_loss=column("q_a_para_prob", "avg_loss"),
        wrong_losses=column("q_a_pert_prob", "avg_loss"),
        truth_ratio=column("truth_ratio", "score"),
        rouge_recall=column("q_a_rouge", "rougeL_recall"),
        rouge1_recall=column("q_a_rouge", "rouge1_recall"),
        texts=texts,
    )


def measured(entry: Any) -> bool:
    """Whether a question of OpenUnlearning's layout has its value."""
    return isinstance(entry, dict) and all(
        value is not None for value in entry.values()
    )


def answer_log(
    where: str,
    index: tuple[str, ...],
    *,
    texts: list | None,
    wrong_losses: list | None = None,
    **numbers: list | None,
) -> AnswerLog:
    """Return the log of columns that were read, its numbers checked."""
    if not index:
        raise ValueError(f"{where} holds no question")
    checked: dict[str, Any] = {
        name: None if values is None else finite(f"{where}: {name}", values)
        for name, values in numbers.items()
    }
    if wrong_losses is not None:
        checked["wrong_losses"] = tuple(
            finite(f"{where}: losses of wrong answers of question {i}", np.ravel(row))
            for i, row in zip(index, wrong_losses, strict=True)
        )
    if texts is not None:
        if any(len(row) < 3 or not all(map(str_like, row[:3])) for row in texts):
            raise ValueError(
                f"{where}: a generated text is to be [prompt, answer, truth]"
            )
        prompts, answers, truths = (tuple(row[k] for row in texts) for k in range(3))
        checked |= {"prompts": prompts, "answers": answers, "truths": truths}
        for kind, name in (("rougeL", "rouge_recall"), ("rouge1", "rouge1_recall")):
            again = rouge(kind, truths, answers, words="open_unlearning").recall
            stored = checked.get(name)
            if stored is not None:
                apart = np.flatnonzero(np.abs(again - stored) > ROUGE_TOLERANCE)
                if len(apart):
                    i = int(apart[0])
                    raise ValueError(
                        f"{where}: the texts of {len(apart)} questions do not give the "
                        f"{name} that is stored (question {index[i]}: {again[i]:.6f}, "
                        f"stored {stored[i]:.6f}); the log is damaged"
                    )
            checked[name] = again
    return AnswerLog(index, **checked)


def str_like(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def finite(what: str, values: Sequence) -> np.ndarray:
    """Return float64 values; refuse what is no finite number."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: numbers expected ({error})") from error
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{what}: {array[bad[0]]} at place {bad[0]} is no finite number"
        )
    return array


def write_open_unlearning(
    path: str | Path, logs: Mapping[str, AnswerLog], scores: Mapping[str, float]
) -> None:
    """Write measurements in OpenUnlearning's layout (its TOFU_EVAL.json).

    Args:
      path: The file, replaced whole.
      logs: Set name -> measurements.
      scores: The aggregates, from :func:`~answer_log.answer_scores`.
    """
    names = {ours: prefix for prefix, ours in OPEN_PREFIXES.items()}
    found: dict[str, Any] = {}

    def add(metric: str, index: Sequence[str], aggregate: float, **columns: Any):
        rows = zip(*columns.values(), strict=True)
        found[metric] = {
            "agg_value": aggregate,
            "value_by_index": {
                i: {k: plain(v) for k, v in zip(columns, row, strict=True)}
                for i, row in zip(index, rows, strict=True)
            },
        }

    for name, log in logs.items():
        prefix, index = names[name], log.index
        for metric, losses in (
            ("Q_A_Prob", log.loss),
            ("Q_A_PARA_Prob", log.paraphrased_loss),
            ("Q_A_PERT_Prob", log.wrong_losses),
        ):
            if losses is not None:
                prob = [np.exp(-np.asarray(x)) for x in losses]
                mean = float(np.mean([np.mean(p) for p in prob]))
                add(f"{prefix}_{metric}", index, mean, prob=prob, avg_loss=losses)
        if log.rouge_recall is not None and log.answers is not None:
            again = {"words": "open_unlearning"}
            f1 = rouge("rougeL", log.truths or (), log.answers, **again).f1
            add(
                f"{prefix}_Q_A_ROUGE",
                index,
                scores[f"{name}_rouge"],
                rouge1_recall=log.rouge1_recall,
                rougeL_f1=f1,
                rougeL_recall=log.rouge_recall,
                input=log.prompts,
                ground_truth=log.truths,
                generation=log.answers,
            )
        ratios = ratios_of(log, name)
        if ratios is not None:
            metric = (
                "forget_truth_ratio" if name == "forget" else f"{prefix}_Truth_Ratio"
            )
            add(metric, index, scores[f"{name}_truth_ratio"], score=ratios)
    for metric in ("model_utility", "forget_quality"):
        if metric in scores:
            found[metric] = {"agg_value": scores[metric]}
    write_json(Path(path), found)


def plain(value: Any) -> Any:
    """Return a JSON value: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, np.ndarray):
        return [plain(x) for x in value.tolist()] if value.ndim else plain(value.item())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
