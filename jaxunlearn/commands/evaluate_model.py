"""Evaluate models on records: measure, compare with retrained ones, write the file."""

import time
from typing import TYPE_CHECKING, Any

from jaxunlearn.commands.console import console, say, working
from jaxunlearn.commands.evaluate import (
    LOG_WORDS,
    reference_block,
    refuse_missing,
    show_scores,
    write_scores,
)
from jaxunlearn.commands.evaluate_blocks import (
    add_depth,
    examples_block,
    layers_block,
    losses_block,
    retraining_block,
)
from jaxunlearn.commands.evaluate_inputs import Inputs, Loaded, prepare
from jaxunlearn.evaluation.suite.prepared import Measured, measure
from jaxunlearn.evaluation.suite.scores import suite_scores
from jaxunlearn.evaluation.text.answer_log import Scores
from jaxunlearn.evaluation.text.logs import read_logs, write_open_unlearning

if TYPE_CHECKING:
    from jaxunlearn.commands.evaluate import Options


def evaluate_model(options: "Options") -> int:
    """Measure the model, its references and its original; write all scores."""
    logs = None
    if options.reference_logs is not None:
        logs = read_logs(options.reference_logs, words=options.words or LOG_WORDS)
    inputs = prepare(options)
    started = time.perf_counter()
    ours, first = measure_all(inputs, inputs.models())
    theirs, reference = measure_all(inputs, inputs.references())
    before, original = None, None
    if inputs.original is not None:
        original = inputs.original()
        before = measured_of(inputs, original)
    assert first is not None  # noqa: S101, --model names one at least
    end = inputs.tokenizer.eos_token_id
    beside = theirs[0] if theirs else None
    if beside is None and logs is not None:
        beside = Measured(logs, {}, {}, {})
    found = [suite_scores(one, beside, end_of_text=end) for one in ours]
    scores, membership = found[0]
    console.print("Comparing the insides of the models")
    add_depth(scores, inputs, first, original, reference)
    blocks: dict[str, Any] = {
        "losses": losses_block(ours[0]),
        "membership": membership,
        "layers": layers_block(inputs, first, original, reference),
    }
    if before is not None and original is not None:
        known = suite_scores(before, None, end_of_text=end, resamples=0).scores
        blocks["original"] = {"name": original.name, "scores": known.values}
    if theirs:
        retrained = reference_scores(theirs, end)
        name = "retrained without them"
        blocks["reference"] = reference_block(name, retrained)
        block = retraining_block(ours, theirs, [f.scores for f in found], retrained)
        if block:
            blocks["retraining"] = block
    shown = {"before": before, "after": ours[0], "retrained": beside}
    blocks["examples"] = examples_block(
        inputs,
        {k: v for k, v in shown.items() if v is not None and v.statistics},
        options.examples,
    )
    blocks["cost"] = {"seconds": {"evaluation": time.perf_counter() - started}}
    used = options.reference[0] if options.reference else options.reference_logs
    if used is None and options.retrain:
        used = f"{options.retrain} retrained models"
    words = inputs.settings.words
    write_scores(options, scores, blocks, options.model[0], used, words)
    if options.write_logs is not None:
        write_open_unlearning(options.write_logs, ours[0].logs, scores.values)
    show_scores(options, scores, blocks)
    refuse_missing(options.metrics, scores)  # what was measured is not thrown away
    return 0


def measure_all(inputs: Inputs, models: Any) -> tuple[list[Measured], Loaded | None]:
    """Measure models one after the other; keep the first of them in memory."""
    found, first = [], None
    for one in models:
        found.append(measured_of(inputs, one))
        first = first or one
    return found, first


def measured_of(inputs: Inputs, one: Loaded) -> Measured:
    """Measure one model, with a line that says what is going on."""
    with working(f"{one.name}: measuring") as status:
        found = measure(
            one.model,
            one.params,
            inputs.tokenizer,
            inputs.sets,
            inputs.settings,
            progress=lambda what: status(f"{one.name}: {what}"),
        )
    say(f"Measured {one.name}")
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
