"""``jaxunlearn evaluate``: what a model still knows, beside one that never saw it."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from jaxunlearn.commands.console import console
from jaxunlearn.evaluation.answer_log import Scores, answer_scores
from jaxunlearn.evaluation.logs import plain, read_logs, write_open_unlearning
from jaxunlearn.files import locked_file, write_json
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table

FORMAT = "jaxunlearn scores"
HEADLINES = (
    "model_utility",
    "model_utility_arithmetic",
    "forget_quality",
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


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn evaluate``.

    Attributes:
      out: The .json file for the scores.
      model: Hugging Face directory of the model to evaluate. Several, of one method
        with different seeds, are compared as an ensemble with --retrain or --reference.
      forget: Records that were to be forgotten. With paraphrased_answer and
        perturbed_answer (TOFU's *_perturbed.json) truth ratios are measured too.
      retain: Records that were to be kept.
      real_authors: TOFU's real_authors_perturbed.json.
      world_facts: TOFU's world_facts_perturbed.json.
      holdout: Records like the forgotten ones that no model saw, for membership scores.
      reference: Model trained without the forgotten records; several are better.
      original: The model before unlearning.
      run: Training run of the original, from `jaxunlearn train`; what --retrain needs.
      retrain: Retrain so many models without the forgotten records and compare.
      retrained: Where those models are kept, and found again. Default: beside --out.
      from_logs: An evaluation log (of OpenUnlearning or TOFU) in place of a model.
      reference_logs: The log of a model trained without the forgotten records.
      metrics: Scores that have to be there; an error says beforehand what they lack.
      write_logs: Also write OpenUnlearning's layout, question by question, here.
      name: What the report calls the model.
      examples: How many examples of each set are kept with answers and token losses.
      gradient_norm: Also the gradient-norm membership score: a backward pass each.
      max_new_tokens: Most tokens of an answer.
      max_length: Most tokens of an example; by default what the model takes.
      batch_size: Examples at a time.
    """

    out: Path
    model: tuple[str, ...] = ()
    forget: str | None = None
    retain: str | None = None
    real_authors: str | None = None
    world_facts: str | None = None
    holdout: str | None = None
    reference: tuple[str, ...] = ()
    original: str | None = None
    run: Path | None = None
    retrain: int = 0
    retrained: Path | None = None
    from_logs: Path | None = None
    reference_logs: Path | None = None
    metrics: tuple[str, ...] = ()
    write_logs: Path | None = None
    name: str | None = None
    examples: int = 8
    gradient_norm: bool = False
    max_new_tokens: int = 200
    max_length: int | None = None
    batch_size: int = 16

    def check(self) -> None:
        """Refuse options that contradict one another."""
        if bool(self.model) == (self.from_logs is not None):
            raise ValueError(
                "name what to evaluate: --model DIR with --forget FILE and --retain "
                "FILE, or --from-logs FILE (one of the two)"
            )
        if self.from_logs is not None:
            given = [
                name
                for name in ("forget", "retain", "holdout", "original", "run")
                if getattr(self, name) is not None
            ] + [name for name in ("reference", "retrain") if getattr(self, name)]
            if given:
                raise ValueError(
                    f"--from-logs reads no model and no records: leave out --"
                    f"{', --'.join(given)}; a reference is given by --reference-logs"
                )
        elif self.forget is None:
            raise ValueError("--model needs --forget FILE, the forgotten records")
        if self.retrain and self.run is None:
            raise ValueError(
                "--retrain trains again from the start of the training run: pass --run "
                "RUN, a directory made by `jaxunlearn train`"
            )
        for name, low in (("retrain", 0), ("examples", 0), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')}: at least {low}")
        if self.out.suffix != ".json":
            raise ValueError(f"out={self.out}: a .json file")


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
    logs = read_logs(options.from_logs)
    reference = None
    if options.reference_logs is not None:
        reference = read_logs(options.reference_logs)
        check_same_questions(options, logs, reference)
    scores = answer_scores(logs, reference)
    refuse_missing(options.metrics, scores)
    blocks: dict[str, Any] = {}
    if reference is not None:
        found = answer_scores(reference)
        blocks["reference"] = reference_block(str(options.reference_logs), [found])
    blocks["losses"] = {
        name: log.loss for name, log in logs.items() if log.loss is not None
    }
    source = str(options.from_logs)
    write_scores(options, scores, blocks, source, options.reference_logs)
    if options.write_logs is not None:
        write_open_unlearning(options.write_logs, logs, scores.values)
    show_scores(options, scores, blocks)
    return 0


def check_same_questions(options: Options, logs, reference) -> None:
    """Refuse a reference log of other questions: its truth ratios mean other things."""
    a, b = logs.get("forget"), reference.get("forget")
    if a is None or b is None or a.truths is None or b.truths is None:
        return
    common = set(a.truths) & set(b.truths)
    if not common:
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
        if name in scores.values:
            continue
        if name in scores.missing:
            raise ValueError(f"metrics: {name} {scores.missing[name]}")
        raise ValueError(
            f"metrics: {name} is not among what these inputs give: "
            f"{', '.join(sorted(scores.values))}"
        )


def reference_block(name: str, found: list[Scores]) -> dict[str, Any]:
    """Return the scores of one or more retrained models, with intervals over them.

    With one model the intervals are over its examples, with several over the models.
    """
    from jaxunlearn.evaluation.intervals import mean_interval

    common = [key for key in found[0].values if all(key in s.values for s in found)]
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
) -> None:
    """Write the scores file: numbers at the top, then the blocks."""
    about = {
        "format": FORMAT,
        "model": model,
        "name": options.name or Path(model).name or model,
        "reference": None if reference is None else str(reference),
        "command": shlex.join(["jaxunlearn", *sys.argv[1:]]),
        "versions": versions(),
    }
    intervals = {name: (i.low, i.high) for name, i in scores.intervals.items()}
    write_json(
        options.out,
        jsonable(
            scores.values
            | {"about": about, "intervals": intervals, "not_computed": scores.missing}
            | blocks
        ),
    )


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
    rows = []
    for name in HEADLINES:
        if name in scores.values:
            row: dict[str, Any] = {"score": name, "value": scores.values[name]}
            interval = scores.intervals.get(name)
            row["95 % interval"] = (
                None
                if interval is None
                else f"{interval.low:.4g} to {interval.high:.4g}"
            )
            if reference:
                row["retrained"] = reference.get(name)
            rows.append(row)
    console.print(console_table(rows, title="Scores"))
    for name, reason in scores.missing.items():
        console.print(f"not computed: {name}: {reason}")
    console.print(f"{len(scores.values)} scores: {options.out}")
