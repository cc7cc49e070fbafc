"""Every score that the evaluation logs of another framework allow, without a model."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.display import SILENT, Display
from jaxunlearn.evaluation.suite.file import (
    Evaluation,
    about_scores,
    reference_block,
    write_scores,
)
from jaxunlearn.evaluation.suite.wanted import refuse_missing
from jaxunlearn.evaluation.text.answer_log import AnswerLog, Scores, answer_scores
from jaxunlearn.evaluation.text.logs import (
    read_logs,
    read_stated,
    write_open_unlearning,
)
from jaxunlearn.evaluation.text.rouge_scores import splitter
from jaxunlearn.locks import locked_file

LOG_WORDS = "open_unlearning"
"""By which logs were written; the published numbers come out."""


def evaluate_logs(
    from_logs: Path,
    *,
    reference_logs: Path | None = None,
    metrics: Sequence[str] = (),
    write_logs: Path | None = None,
    name: str | None = None,
    words: str | None = None,
    out: Path | None = None,
    about: Mapping[str, Any] | None = None,
    display: Display = SILENT,
) -> Evaluation:
    """Return every score that evaluation logs of OpenUnlearning or TOFU allow.

    Args:
      from_logs: The log of a model.
      reference_logs: The log of a model trained without the forgotten records.
      metrics: Scores that have to be there.
      write_logs: Also write OpenUnlearning's layout, question by question, here.
      name: What a report calls the model.
      words: What counts as a word of ROUGE, see :func:`~.rouge_scores.rouge_l`; by
        default what the log was written with.
      out: The .json file for the scores.
      about: What the result shall say of itself beside what is known here.
      display: In whose words arguments are told.

    Raises:
      FileNotFoundError: A log is missing.
      ValueError: A log is damaged, the two are of different questions, or a score of
        ``metrics`` cannot be had.
    """
    words = words or LOG_WORDS
    logs = read_logs(from_logs, words=words)
    reference = None
    if reference_logs is not None:
        reference = read_logs(reference_logs, words=words)
        if different_questions(logs, reference):
            raise ValueError(
                f"reference_logs={reference_logs}: none of its forget answers is in "
                f"from_logs={from_logs}; they are of different forget sets"
            )
    scores = answer_scores(logs, reference)
    add_stated(scores, read_stated(from_logs))
    add_notes_of_words(scores, logs, words, display)
    refuse_missing(metrics, scores)
    blocks: dict[str, Any] = {}
    if reference is not None:
        others = [answer_scores(reference)]
        blocks["reference"] = reference_block(str(reference_logs), others)
    blocks["losses"] = {
        name: log.loss for name, log in logs.items() if log.loss is not None
    }
    told = about_scores(str(from_logs), name, reference_logs, words, about or {})
    found = Evaluation(scores, blocks, told)
    with contextlib.nullcontext() if out is None else locked_file(out):
        if out is not None:
            write_scores(out, found)
        if write_logs is not None:
            write_open_unlearning(write_logs, logs, scores.values)
    return found


def add_stated(scores: Scores, stated: Mapping[str, float]) -> None:
    """Add what a log states whole where we have not computed it."""
    for name, value in stated.items():
        if name not in scores.values:
            scores.values[name] = value
            scores.missing.pop(name, None)
            scores.notes[name] = "as the log states it, which has no values behind it"


def add_notes_of_words(
    scores: Scores, logs: Mapping[str, AnswerLog], words: str, display: Display
) -> None:
    """Say of ROUGE whose words are a-z and 0-9 how many true answers that cuts up."""
    if words != LOG_WORDS:
        return
    every, theirs = splitter(False, "unicode"), splitter(False, words)
    for name, log in logs.items():
        truths = [text for text in log.truths or () if text is not None]
        cut = sum(every(text) != theirs(text) for text in truths)
        if cut:
            scores.notes[f"{name}_rouge"] = display.spelled(
                f"its words are a-z and 0-9, which {cut} of {len(truths)} true answers "
                f"do not keep to; words=unicode takes them as they are"
            )


def different_questions(
    logs: Mapping[str, AnswerLog], reference: Mapping[str, AnswerLog]
) -> bool:
    """Return whether no forget answer is in both: truth ratios mean other things."""
    a, b = logs.get("forget"), reference.get("forget")
    if a is None or b is None or a.truths is None or b.truths is None:
        return False
    return not (set(a.truths) & set(b.truths)) - {None}
