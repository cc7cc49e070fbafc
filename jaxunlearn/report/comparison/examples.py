"""Single examples: what each model answers, and which tokens of the truth it knows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.influence.page import visible
from jaxunlearn.report.kit.marking import MarkedAnswer, mark_answer

SHOWN_AT_ONCE = 4  # examples beyond these are folded away
MOST = 60  # and beyond these left in their files
LEVELS = ((0.5, 3), (0.1, 2), (0.01, 1))  # least probability, thickness
AFTER = "after"
NAMES = {"before": "original", "retrained": "retrained"}


class Told(NamedTuple):
    """An example as one model sees it.

    Attributes:
      model: The run's name, "original" or "retrained".
      run: The run's position; None of a model that is no run's own.
      answer: What it answered, right words marked, or None.
      tokens: The truth's tokens coloured by their loss, or None.
      loss: Their mean loss, nats a token, or None.
    """

    model: str
    run: int | None
    answer: MarkedAnswer | None
    tokens: Markup | None
    loss: float | None


class ComparedExample(NamedTuple):
    """An example with what every model makes of it."""

    kind: str  # "forget" or "retain"
    prompt: str
    truth: str
    told: Sequence[Told]


def compared_examples(runs: Sequence[ComparedRun]) -> list[ComparedExample]:
    """Bring together what all runs have of the same example, of each set in turn.

    The original's and the retrained model's answers, which are mostly the same in all
    runs, stand once for each different answer.

    Args:
      runs: The runs; those whose scores file has ``examples`` take part.

    Returns:
      The examples in the order in which they first occur, sets alternating.
    """
    found: dict[tuple, list[Told]] = {}
    for position, run in enumerate(runs):
        for example in run.block("examples") or ():
            place = (example["set"], example["prompt"], example["truth"])
            told = found.setdefault(place, [])
            for one in example_models(run, position, example):
                if one not in told:
                    told.append(one)
    examples = [
        ComparedExample(*place, sorted(told, key=order))
        for place, told in found.items()
    ]
    turns = []
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.kind] = counts.get(example.kind, 0) + 1
        turns.append((counts[example.kind], example))
    return [example for _, example in sorted(turns, key=lambda turn: turn[0])]


def coloured_by_loss(tokens: Sequence[Sequence]) -> Markup:
    """Return a text, one ``<span>`` a token, the stronger the better it is known.

    The shade is the probability exp(-loss), the underline's thickness says the same in
    steps, and the loss itself shows on pointing, on focus and in the text mode.

    Args:
      tokens: (text, loss in nats or None) of each token in order.

    Returns:
      The spans.

    >>> print(coloured_by_loss([["a", 0.0], ["b", 3.0], ["c", None]]))
    <span class="k u3" style="--s:1.00" tabindex="0" data-loss="0.00">a</span><span
    class="k u1" style="--s:0.05" tabindex="0" data-loss="3.00">b</span><span class="k
    u0" style="--s:0.00" tabindex="0" data-loss="–">c</span>
    """
    span = Markup(
        '<span class="k u{}" style="--s:{:.2f}" tabindex="0" data-loss="{}">{}</span>'
    )
    parts = []
    for text, loss in tokens:
        known = loss is not None and not math.isnan(loss)
        probability = math.exp(-max(loss, 0.0)) if known else 0.0
        level = next((u for least, u in LEVELS if probability >= least), 0)
        shown = f"{loss:.2f}" if known else "–"
        parts.append(span.format(level, probability, shown, visible(text)))
    return Markup("").join(parts)


def example_models(run: ComparedRun, position: int, example: dict) -> list[Told]:
    """Return what the models of a run make of an example."""
    answers = example.get("answers") or {}
    tokens = example.get("tokens") or {}
    told = []
    for model in dict.fromkeys([*answers, *tokens]):
        own = model not in NAMES
        called = NAMES.get(model, run.name if model == AFTER else model)
        if own and model != AFTER:
            called = f"{run.name}: {model}"
        answer = losses = spans = None
        if model in answers:
            answer = mark_answer(
                answers[model], truth=example["truth"], prompt=example["prompt"]
            )
        if tokens.get(model):
            spans = coloured_by_loss(tokens[model])
            known = [loss for _, loss in tokens[model] if loss is not None]
            losses = sum(known) / len(known) if known else None
        told.append(Told(called, position if own else None, answer, spans, losses))
    return told


def order(told: Told) -> tuple:
    """Return the original first, then the runs, the retrained model last."""
    last = told.run is None and told.model == NAMES["retrained"]
    return (2 if last else 0 if told.run is None else 1, told.run or 0)
