"""Evaluate models on records: measure, and compare with retrained ones."""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.display import SILENT, Display
from jaxunlearn.evaluation.loading import (
    GivenModel,
    GivenRecords,
    NamedModel,
    load_records,
    without_wrapper,
)
from jaxunlearn.evaluation.suite.blocks import (
    add_depth,
    examples_block,
    layers_block,
    losses_block,
    retraining_block,
)
from jaxunlearn.evaluation.suite.file import (
    Evaluation,
    about_scores,
    reference_block,
    write_scores,
)
from jaxunlearn.evaluation.suite.inputs import (
    Inputs,
    Retraining,
    original_of,
    prepare,
)
from jaxunlearn.evaluation.suite.logs import LOG_WORDS
from jaxunlearn.evaluation.suite.measurement import Measured, measure
from jaxunlearn.evaluation.suite.scores import score_names, suite_scores
from jaxunlearn.evaluation.suite.wanted import check_metric, check_wanted
from jaxunlearn.evaluation.text.answer_log import Scores
from jaxunlearn.evaluation.text.logs import read_logs, write_open_unlearning
from jaxunlearn.locks import locked_file
from jaxunlearn.ranges import check_number

MOST = 4096
"""Models to retrain, examples at a time: more is a slip of the finger."""


def evaluate(
    model: GivenModel | Sequence[GivenModel],
    *,
    forget: GivenRecords,
    retain: GivenRecords | None = None,
    real_authors: GivenRecords | None = None,
    world_facts: GivenRecords | None = None,
    holdout: GivenRecords | None = None,
    reference: Sequence[GivenModel] = (),
    original: GivenModel | None = None,
    run: Any = None,
    retrain: int = 0,
    retrained: Path | None = None,
    reference_logs: Path | None = None,
    metrics: Sequence[str] = (),
    write_logs: Path | None = None,
    name: str | None = None,
    examples: int = 8,
    gradient_norm: bool = False,
    max_new_tokens: int = 200,
    max_length: int | None = None,
    batch_size: int = 16,
    words: str | None = None,
    tokenizer: Any = None,
    out: Path | None = None,
    about: Mapping[str, Any] | None = None,
    display: Display = SILENT,
) -> Evaluation:
    """Measure what a model still knows, beside one that never saw it.

    Args:
      model: The model to evaluate, or its directory. Several, of one method with
        different seeds, are compared as an ensemble with the references.
      forget: Records that were to be forgotten, or their file. With
        ``paraphrased_answer`` and ``perturbed_answer`` truth ratios are measured too.
      retain: Records that were to be kept.
      real_authors: TOFU's real_authors_perturbed.json.
      world_facts: TOFU's world_facts_perturbed.json.
      holdout: Records like the forgotten ones that no model saw, for membership scores.
      reference: Models trained without the forgotten records; several are better.
      original: The model before unlearning; by default that of ``run``.
      run: Training run of the original, or its directory; what ``retrain`` needs.
      retrain: Retrain so many models without the forgotten records and compare.
      retrained: Where those are kept, and found again; by default beside ``out``.
      reference_logs: In place of a reference the log of one, as OpenUnlearning writes.
      metrics: Scores that have to be there; refused beforehand where they lack what
        they need. What could not be had after all is in ``scores.missing``.
      write_logs: Also write OpenUnlearning's layout, question by question, here.
      name: What a report calls the model.
      examples: How many examples of each set are kept with answers and token losses.
      gradient_norm: Also the gradient-norm membership score: a backward pass each.
      max_new_tokens: Most tokens of an answer.
      max_length: Most tokens of an example; by default what the model takes.
      batch_size: Examples at a time.
      words: What counts as a word of ROUGE, see :func:`~.rouge_scores.rouge_l`; by
        default ``"unicode"``.
      tokenizer: Of models in memory; a directory has its own.
      out: The .json file for the scores.
      about: What the result shall say of itself beside what is known here.
      display: Where work tells of itself.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: What was given does not fit together, or a score of ``metrics`` cannot
        be had from it.

    Cost: of each model, :func:`~.measurement.measure`, and comparisons of hidden
    states.
    """
    models = [model] if isinstance(model, str | Path | NamedModel) else list(model)
    for metric in metrics:
        check_metric(metric, score_names())
    check_numbers(retrain, examples, batch_size, max_new_tokens, max_length)
    if retrain and run is None:
        raise ValueError(
            f"retrain={retrain} trains again from the start of the training run: pass "
            f"run=RUN, a directory made by `jaxunlearn train`"
        )
    logs = None
    if reference_logs is not None:
        logs = read_logs(reference_logs, words=words or LOG_WORDS)
    given = {
        "forget": forget,
        "retain": retain,
        "real_authors": real_authors,
        "world_facts": world_facts,
        "holdout": holdout,
    }
    sets = {n: load_records(one) for n, one in given.items() if one is not None}
    there = {
        "reference": bool(reference or retrain or reference_logs),
        "original": original_of(original, run) is not None,
        "gradient_norm": gradient_norm,
    }
    check_wanted(metrics, sets, [n for n, known in there.items() if known])
    if retrained is None and out is not None:
        retrained = out.parent / "retrained"
    inputs = prepare(
        *(models, reference, original, Retraining(retrain, run, retrained), sets),
        tokenizer=tokenizer,
        settings={
            "max_length": max_length,
            "max_new_tokens": max_new_tokens,
            "batch_size": batch_size,
            "gradient_norms": gradient_norm,
            "words": words or "unicode",
        },
        display=display,
    )
    used = reference[0] if reference else reference_logs
    if used is None and retrain:
        used = f"{retrain} retrained models"
    with contextlib.nullcontext() if out is None else locked_file(out):
        scores, blocks, measured = measured_scores(inputs, logs, examples, display)
        told = about_scores(
            *(called(models[0]), name, used and called(used)),
            *(inputs.settings.words, about or {}),
        )
        found = Evaluation(scores, blocks, told)
        if out is not None:
            write_scores(out, found)
        if write_logs is not None:
            write_open_unlearning(write_logs, measured.logs, scores.values)
    return found


def check_numbers(
    retrain: int,
    examples: int,
    batch_size: int,
    max_new_tokens: int,
    max_length: int | None,
) -> None:
    """Refuse numbers out of their range."""
    check_number("retrain", retrain, 0, MOST)
    check_number("examples", examples, 0)
    check_number("batch_size", batch_size, 1, MOST)
    check_number("max_new_tokens", max_new_tokens, 1)
    check_number("max_length", max_length, 2)


def called(given: GivenModel) -> str:
    """Return how a model is called."""
    return given.name if isinstance(given, NamedModel) else str(given)


def measured_scores(
    inputs: Inputs, logs: Any, examples: int, display: Display
) -> tuple[Scores, dict[str, Any], Measured]:
    """Return the scores, what stands behind them, and what the first model gave."""
    started = time.perf_counter()
    ours, first = measure_all(inputs, inputs.models(), display)
    theirs, reference = measure_all(inputs, inputs.references(), display)
    before, original = None, None
    if inputs.original is not None:
        original = inputs.original()
        before = measured_of(inputs, original, display)
    assert first is not None  # noqa: S101, there is one model at least
    end = inputs.tokenizer.eos_token_id
    beside = theirs[0] if theirs else None
    if beside is None and logs is not None:
        beside = Measured(logs, {}, {}, {})
    found = [suite_scores(one, beside, end_of_text=end) for one in ours]
    scores, membership = found[0]
    display.line("Comparing the insides of the models")
    insides = [
        None if one is None else without_wrapper(one) for one in (original, reference)
    ]
    add_depth(scores, inputs, without_wrapper(first), *insides)
    for name, reason in scores.missing.items():
        scores.missing[name] = display.spelled(reason)
    blocks: dict[str, Any] = {
        "losses": losses_block(ours[0]),
        "membership": membership,
        "layers": layers_block(inputs, without_wrapper(first), *insides),
    }
    if before is not None and original is not None:
        known = suite_scores(before, None, end_of_text=end, resamples=0).scores
        blocks["original"] = {"name": original.name, "scores": known.values}
    if theirs:
        retrained = reference_scores(theirs, end)
        blocks["reference"] = reference_block("retrained without them", retrained)
        block = retraining_block(ours, theirs, [f.scores for f in found], retrained)
        if block:
            blocks["retraining"] = block
    shown = {"before": before, "after": ours[0], "retrained": beside}
    blocks["examples"] = examples_block(
        inputs,
        {k: v for k, v in shown.items() if v is not None and v.statistics},
        examples,
    )
    blocks["cost"] = {"seconds": {"evaluation": time.perf_counter() - started}}
    return scores, blocks, ours[0]


def measure_all(
    inputs: Inputs, models: Iterable[NamedModel], display: Display
) -> tuple[list[Measured], NamedModel | None]:
    """Measure models one after the other; keep the first of them in memory."""
    found, first = [], None
    for one in models:
        found.append(measured_of(inputs, one, display))
        first = first or one
    return found, first


def measured_of(inputs: Inputs, one: NamedModel, display: Display) -> Measured:
    """Measure one model, with a line that says what is going on."""
    with display.working(f"{one.name}: measuring") as status:
        found = measure(
            one.model,
            one.params,
            inputs.tokenizer,
            inputs.sets,
            inputs.settings,
            progress=lambda what: status(f"{one.name}: {what}"),
        )
    display.line(f"Measured {one.name}")
    return found


def reference_scores(theirs: list[Measured], end: int) -> list[Scores]:
    """Return the scores of retrained models, each beside the next of them.

    So forget quality and PrivLeak of models that never saw the forget set show what
    another seed alone does to them. A single one has nobody to stand beside.
    """
    beside = [*theirs[1:], theirs[0]] if len(theirs) > 1 else [None]
    return [
        suite_scores(one, other, end_of_text=end).scores
        for one, other in zip(theirs, beside, strict=True)
    ]
