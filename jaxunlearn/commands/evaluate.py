"""``jaxunlearn evaluate``: what a model still knows, beside one that never saw it."""

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.evaluate_options import Options, check_metric
from jaxunlearn.evaluation.text.answer_log import AnswerLog, Scores, answer_scores
from jaxunlearn.evaluation.text.logs import (
    read_logs,
    read_stated,
    write_open_unlearning,
)
from jaxunlearn.evaluation.text.open_unlearning_log import plain
from jaxunlearn.evaluation.text.rouge import splitter
from jaxunlearn.locks import locked_file
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table
from jaxunlearn.sealed import write_sealed

FORMAT = "jaxunlearn scores"
LOG_WORDS = "open_unlearning"
"""By which logs were written; the published numbers come out."""
HEADLINES = (
    "model_utility",
    "model_utility_arithmetic",
    "forget_quality",
    "forget_quality_log10",
    "forget_truth_ratio",
    "forget_probability",
    "forget_rouge",
    "forget_loss",
    "retain_loss",
    "forget_extraction_strength",
    "retain_extraction_strength",
    "forget_exact_memorization",
    "mia_min_k_auc",
    "privleak",
    "uds",
)
"""Shown first on the console; the file has all."""


def evaluate(options: Options) -> int:
    """Measure what a model still knows, beside one that never saw it.

    From a model and records, or from logs that another framework wrote. Writes one JSON
    file: each score by its name, then what it follows from; `jaxunlearn report` draws
    it. What cannot be computed from what was given is listed with the reason.
    """
    options.check()
    with locked_file(options.out):
        if options.from_logs is not None:
            return evaluate_logs(options)
        from jaxunlearn.commands.evaluate_model import evaluate_model

        return evaluate_model(options)


def evaluate_logs(options: Options) -> int:
    """Compute every score that evaluation logs allow."""
    words = options.words or LOG_WORDS
    assert options.from_logs is not None  # noqa: S101, the caller has looked
    logs = read_logs(options.from_logs, words=words)
    reference = None
    if options.reference_logs is not None:
        reference = read_logs(options.reference_logs, words=words)
        check_same_questions(options, logs, reference)
    scores = answer_scores(logs, reference)
    add_stated(scores, read_stated(options.from_logs))
    add_notes_of_words(scores, logs, words)
    refuse_missing(options.metrics, scores)
    blocks: dict[str, Any] = {}
    if reference is not None:
        found = answer_scores(reference)
        blocks["reference"] = reference_block(str(options.reference_logs), [found])
    blocks["losses"] = {
        name: log.loss for name, log in logs.items() if log.loss is not None
    }
    source = str(options.from_logs)
    write_scores(options, scores, blocks, source, options.reference_logs, words)
    if options.write_logs is not None:
        write_open_unlearning(options.write_logs, logs, scores.values)
    show_scores(options, scores, blocks)
    return 0


def add_stated(scores: Scores, stated: Mapping[str, float]) -> None:
    """Add what a log states whole where we have not computed it."""
    for name, value in stated.items():
        if name not in scores.values:
            scores.values[name] = value
            scores.missing.pop(name, None)
            scores.notes[name] = "as the log states it, which has no values behind it"


def add_notes_of_words(
    scores: Scores, logs: Mapping[str, AnswerLog], words: str
) -> None:
    """Say of ROUGE whose words are a-z and 0-9 how many true answers that cuts up."""
    if words != "open_unlearning":
        return
    every, theirs = splitter(False, "unicode"), splitter(False, words)
    for name, log in logs.items():
        truths = [text for text in log.truths or () if text is not None]
        cut = sum(every(text) != theirs(text) for text in truths)
        if cut:
            scores.notes[f"{name}_rouge"] = (
                f"its words are a-z and 0-9, which {cut} of {len(truths)} true answers "
                f"do not keep to; --words unicode takes them as they are"
            )


def check_same_questions(options: Options, logs, reference) -> None:
    """Refuse a reference log of other questions: its truth ratios mean other things."""
    a, b = logs.get("forget"), reference.get("forget")
    if a is None or b is None or a.truths is None or b.truths is None:
        return
    if not (set(a.truths) & set(b.truths)) - {None}:
        raise ValueError(
            f"reference_logs={options.reference_logs}: none of its forget answers is "
            f"in from_logs={options.from_logs}; they are of different forget sets"
        )


def refuse_missing(wanted: tuple[str, ...], scores: Scores) -> None:
    """Refuse if a score that has to be there is not.

    Raises:
      ValueError: Naming what it lacks.
    """
    for name in wanted:
        if name in scores.missing:
            raise ValueError(f"--metrics {name}: {scores.missing[name]}")
        check_metric(name, scores.values)


def reference_block(name: str, found: list[Scores]) -> dict[str, Any]:
    """Return the scores of one or more retrained models, with intervals over them.

    With one model the intervals are over its examples, with several over the models.
    """
    from jaxunlearn.intervals import mean_interval

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


def write_scores(
    options: Options,
    scores: Scores,
    blocks: dict[str, Any],
    model: str,
    reference: Any,
    words: str,
) -> None:
    """Write the scores file: numbers at the top, then the blocks.

    A number that is infinite is null there, and among what was not computed.
    """
    about = {
        "format": FORMAT,
        "model": model,
        "name": options.name or Path(model).name or model,
        "reference": None if reference is None else str(reference),
        "words": words,
        "command": shlex.join(["jaxunlearn", *sys.argv[1:]]),
        "versions": versions(),
    }
    infinite = {n: scores.notes[n] for n, v in scores.values.items() if math.isinf(v)}
    stands_behind = {
        "about": about,
        "intervals": {n: (i.low, i.high) for n, i in scores.intervals.items()},
        "counts": {n: count._asdict() for n, count in scores.counts.items()},
        "notes": scores.notes,
        "not_computed": scores.missing | infinite,
    }
    write_sealed(options.out, jsonable(scores.values | stands_behind | blocks))


def jsonable(value: Any) -> Any:
    """Return a value of JSON: arrays as lists, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    return plain(value)


def show_scores(options: Options, scores: Scores, blocks: dict[str, Any]) -> None:
    """Print the headline scores beside the reference's, and what is missing."""
    reference = blocks.get("reference", {}).get("scores", {})
    of_muse = [n for n in scores.values if "mem_rouge" in n and n.endswith("_f1")]
    rows = []
    for name in (*HEADLINES, *of_muse):
        if name in scores.values:
            interval = scores.intervals.get(name)
            row: dict[str, Any] = {
                "score": name,
                "value": scores.values[name],
                "95 % interval": None
                if interval is None
                else f"{interval.low:.4g} to {interval.high:.4g}",
                "n": questions_of(scores, name),
            }
            if reference:
                row["retrained"] = reference.get(name)
            rows.append(row)
    if rows:
        console.print(console_table(rows, title="Scores"))
    for lines, told in ((scores.notes, ""), (scores.missing, "not computed: ")):
        for name, text in lines.items():
            say(f"{told}{name}: {text}")
    left_out = {n: c for n, c in scores.counts.items() if c.left_out and c.used}
    for count in dict.fromkeys(left_out.values()):
        names = ", ".join(n for n, other in left_out.items() if other == count)
        total = count.used + count.left_out
        say(f"{count.left_out} of {total} questions have no value for {names}")
    say(f"{len(scores.values)} scores: {options.out}")


def questions_of(scores: Scores, name: str) -> str | None:
    """Return how many questions a score is a mean over, and of how many."""
    count = scores.counts.get(name)
    if count is None:
        return None
    of_all = f" of {count.used + count.left_out}" if count.left_out else ""
    return f"{count.used}{of_all}"
