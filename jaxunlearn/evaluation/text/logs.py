"""Evaluation logs of other frameworks: TOFU's and OpenUnlearning's.

TOFU wrote one JSON of ``{file: {statistic: {question: value}}}`` (some copies hold
lists in place of the inner objects); OpenUnlearning's is in ``open_unlearning_log.py``.
Both are written by Python, whose JSON has Infinity for the loss of an answer that the
model rules out: it is read here, and nowhere else.
"""

from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.text import open_unlearning_log
from jaxunlearn.evaluation.text.answer_log import AnswerLog
from jaxunlearn.evaluation.text.log_columns import log_of, short
from jaxunlearn.evaluation.text.open_unlearning_log import write_open_unlearning
from jaxunlearn.evaluation.text.rouge_scores import check_kind
from jaxunlearn.files import read_json

__all__ = ["read_logs", "read_stated", "write_open_unlearning"]

TOFU_FILES = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
TOFU_STATISTICS = {
    "loss": "avg_gt_loss",
    "tokens": "num_token_gt",
    "paraphrased_loss": "avg_paraphrased_loss",
    "wrong_losses": "average_perturb_loss",
    "rouge_recall": "rougeL_recall",
    "rouge1_recall": "rouge1_recall",
    "texts": "generated_text",
}


def read_logs(
    path: str | Path, *, words: str = "open_unlearning"
) -> dict[str, AnswerLog]:
    """Read the evaluation log of a model, in TOFU's or OpenUnlearning's layout.

    Args:
      path: The JSON file.
      words: What counts as a word where ROUGE is computed again from the texts, see
        :func:`~.rouge_scores.rouge_l`. The default gives the numbers that
        the log's framework gives.

    Returns:
      Set name (forget, retain, real_authors, world_facts; of MUSE forget_knowmem,
      forget_verbmem, retain_knowmem) -> measurements. A null is NaN there, a question
      that was not measured, and leaves the question's other statistics alone.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is no JSON, of another layout, or damaged; the message names the
        file, the set, the statistic and the question.
    """
    check_kind(words)
    path, found = read_object(path)
    if is_open_unlearning(found):
        logs = open_unlearning_log.read_layout(str(path), found, words)
    elif any(name in TOFU_FILES for name in found):
        logs = {
            TOFU_FILES[name]: tofu_log(f"{path}, {name}", block, words)
            for name, block in found.items()
            if name in TOFU_FILES
        }
    elif "avg_gt_loss" in found and path.name in TOFU_FILES:
        logs = {TOFU_FILES[path.name]: tofu_log(str(path), found, words)}
    else:
        raise ValueError(
            f"{path} is no evaluation log: found {', '.join(list(found)[:6])}; "
            f"accepted are TOFU's files ({', '.join(TOFU_FILES)}) and OpenUnlearning's "
            f'metrics, each with "value_by_index"'
        )
    if not logs:
        raise ValueError(f"{path} holds no measurements of a question set")
    return logs


def read_stated(path: str | Path) -> dict[str, float]:
    """Return the scores that a log states whole; see :func:`read_logs`.

    They cannot be computed again: PrivLeak, say, which OpenUnlearning writes without
    the scores of the examples.
    """
    path, found = read_object(path)
    return open_unlearning_log.stated_scores(str(path), found)


def read_object(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return a log's path and contents; Infinity and NaN are let through."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"logs={path}: no such file")
    try:
        found = read_json(path, infinity=True)
    except ValueError as error:
        raise ValueError(f"{error}; is it a log, or one cut short?") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: an object of sets or metrics expected")
    return path, found


def is_open_unlearning(found: dict[str, Any]) -> bool:
    """Say whether any metric has its values by question."""
    return any(isinstance(v, dict) and "value_by_index" in v for v in found.values())


def tofu_log(where: str, block: Any, words: str) -> AnswerLog:
    """Return one set of TOFU's layout; ``where`` names it in messages."""
    if not isinstance(block, dict):
        raise ValueError(f"{where}: an object of statistics expected")
    columns = {
        name: {str(i): v for i, v in enumerate(x)} if isinstance(x, list) else x
        for name, x in block.items()
        if name in TOFU_STATISTICS.values() and x is not None
    }
    for name, column in columns.items():
        if not isinstance(column, dict):
            raise ValueError(
                f"{where}: {name} is {short(column)} where an object of questions was "
                f"expected"
            )
    if "avg_gt_loss" not in columns:
        raise ValueError(
            f"{where} has no avg_gt_loss; found {', '.join(columns) or 'nothing'}"
        )
    index = tuple(columns["avg_gt_loss"])
    for name, column in columns.items():
        if column.keys() != columns["avg_gt_loss"].keys():
            raise ValueError(
                f"{where}: {name} is of {len(column)} questions, avg_gt_loss of "
                f"{len(index)}, or of others; the log is damaged"
            )
    found = {
        ours: [columns[theirs][i] for i in index]
        for ours, theirs in TOFU_STATISTICS.items()
        if theirs in columns
    }
    return log_of(where, index, words=words, **found)
