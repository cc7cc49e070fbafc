"""``jaxunlearn evaluate``: what a model still knows, beside one that never saw it."""

from pathlib import Path
from typing import Any

from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.display import display_of, typed_command
from jaxunlearn.commands.evaluate_options import Options
from jaxunlearn.evaluation.suite.file import Evaluation
from jaxunlearn.evaluation.suite.logs import evaluate_logs
from jaxunlearn.evaluation.suite.run import evaluate as evaluate_models
from jaxunlearn.evaluation.suite.wanted import refuse_missing
from jaxunlearn.evaluation.text.answer_log import Scores
from jaxunlearn.report import console_table

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


OF_LOGS = "from_logs reference_logs metrics write_logs name words out".split()
"""Options that an evaluation of logs reads."""


def evaluate(options: Options) -> int:
    """Measure what a model still knows, beside one that never saw it.

    From a model and records, or from logs that another framework wrote. Writes one JSON
    file: each score by its name, then what it follows from; `jaxunlearn report` draws
    it. What cannot be computed from what was given is listed with the reason.
    """
    options.check()
    told = {"about": {"command": typed_command()}, "display": display_of(evaluate)}
    given: dict[str, Any] = dict(vars(options))
    if options.from_logs is not None:
        found = evaluate_logs(**{name: given[name] for name in OF_LOGS}, **told)
    else:
        del given["from_logs"]
        found = evaluate_models(**given, **told)
    show_scores(found, options.out)
    refuse_missing(options.metrics, found.scores)  # what was measured is not lost
    return 0


def show_scores(found: Evaluation, out: Path) -> None:
    """Print the headline scores beside the reference's, and what is missing."""
    scores = found.scores
    reference = found.blocks.get("reference", {}).get("scores", {})
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
    say(f"{len(scores.values)} scores: {out}")


def questions_of(scores: Scores, name: str) -> str | None:
    """Return how many questions a score is a mean over, and of how many."""
    count = scores.counts.get(name)
    if count is None:
        return None
    of_all = f" of {count.used + count.left_out}" if count.left_out else ""
    return f"{count.used}{of_all}"
