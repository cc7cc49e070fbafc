"""The parts of a scores file that stand behind the scores: examples, layers, seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn.data import in_order, prompt_and_completion, subset
from jaxunlearn.data.text.decoding import token_texts
from jaxunlearn.evaluation.internals.depth import unlearning_depth
from jaxunlearn.evaluation.internals.parameters import parameter_distance
from jaxunlearn.evaluation.internals.representations import layer_cka
from jaxunlearn.evaluation.loading import NamedModel
from jaxunlearn.evaluation.retrained import ensembles
from jaxunlearn.evaluation.retrained.distance import retrained_distance
from jaxunlearn.evaluation.retrained.margins import language_model_margin
from jaxunlearn.evaluation.retrained.privacy import epsilon
from jaxunlearn.evaluation.suite.inputs import Inputs
from jaxunlearn.evaluation.suite.measurement import HOLDOUT, Measured
from jaxunlearn.evaluation.suite.scores import NEEDS_REFERENCE
from jaxunlearn.evaluation.text.answer_log import Scores
from jaxunlearn.evaluation.text.token_pass import mean_losses
from jaxunlearn.models.states_by_layer import state_names

FEWEST_FOR_CKA = 4
FEWEST_MODELS = 3  # of each kind, to tell two ensembles apart
DEPTH_EXAMPLES = 64


def losses_block(measured: Measured) -> dict[str, np.ndarray]:
    """Return the loss of every example of every set."""
    return {name: mean_losses(s) for name, s in measured.statistics.items()}


def examples_block(
    inputs: Inputs, measured: dict[str, Measured], count: int
) -> list[dict[str, Any]]:
    """Return examples of what was forgotten and kept, with answers and token losses.

    Those whose loss changed most come first, since they show what was done; without
    a model to compare with, they are evenly spaced.

    Args:
      inputs: The records.
      measured: "after", and where known "before" and "retrained".
      count: Examples of each set.
    """
    rows = []
    for name in ("forget", "retain"):
        if name not in inputs.sets or count == 0:
            continue
        records = inputs.sets[name].records
        after = mean_losses(measured["after"].statistics[name])
        if "before" in measured:
            before = mean_losses(measured["before"].statistics[name])
            chosen = np.argsort(-np.abs(after - before), kind="stable")[:count]
        else:
            chosen = np.unique(np.linspace(0, len(records) - 1, count).astype(int))
        rows += [example_row(inputs, measured, name, int(i)) for i in chosen]
    return rows


def example_row(
    inputs: Inputs, measured: dict[str, Measured], name: str, i: int
) -> dict[str, Any]:
    """Return one example with every model's answer and token losses."""
    prompt, truth = prompt_and_completion(inputs.sets[name].records[i])
    answers, tokens = {}, {}
    for model, found in measured.items():
        log, statistics = found.logs[name], found.statistics[name][i]
        if log.answers is not None:
            answers[model] = log.answers[i]
        texts = token_texts(inputs.tokenizer, statistics.token)
        tokens[model] = [
            [text, round(-float(p), 4)]
            for text, p in zip(texts, statistics.log_probability, strict=True)
        ]
    return {
        "set": name,
        "prompt": prompt,
        "truth": truth.strip(),
        "answers": answers,
        "tokens": tokens,
    }


def layers_block(
    inputs: Inputs,
    model: NamedModel,
    original: NamedModel | None,
    reference: NamedModel | None,
) -> list[dict[str, Any]]:
    """Return by layer how far parameters and states are from before and retrained."""
    rows: dict[str, dict[str, Any]] = {}
    if original is not None:
        for row in parameter_distance(original.params, model.params):
            rows.setdefault(row["layer"], {}).update(row)
    forget = inputs.sets["forget"]
    if len(forget.records) >= FEWEST_FOR_CKA:
        batches = in_order(forget.texts.data, batch_size=inputs.settings.batch_size)
        for name, other in (("cka_before", original), ("cka_retrained", reference)):
            if other is None:
                continue
            values = layer_cka(model.model, model.params, other.params, batches)
            for layer, value in zip(state_names(model.model), values, strict=True):
                rows.setdefault(layer, {})[name] = float(value)
    return [{**row, "layer": layer} for layer, row in rows.items()]


def add_depth(
    scores: Scores,
    inputs: Inputs,
    model: NamedModel,
    original: NamedModel | None,
    reference: NamedModel | None,
) -> None:
    """Add the unlearning depth scores, by patching and by the logit lens."""
    if original is None or reference is None:
        lacks = (
            "an original (original=DIR)" if reference is not None else NEEDS_REFERENCE
        )
        reason = lacks if lacks.startswith("needs") else f"needs {lacks}"
        scores.missing.update(uds=reason, logit_lens_depth=reason)
        return
    data = inputs.sets["forget"].texts.data
    if len(data.examples) > DEPTH_EXAMPLES:
        spaced = np.linspace(0, len(data.examples) - 1, DEPTH_EXAMPLES).astype(int)
        data = subset(data, spaced.tolist())
    batches = in_order(data, batch_size=inputs.settings.batch_size)
    for name, read in (("uds", "patching"), ("logit_lens_depth", "lens")):
        depth = unlearning_depth(
            model.model,
            model.params,
            batches,
            full=original.params,
            retained=reference.params,
            end_id=inputs.tokenizer.eos_token_id,
            read=read,
        )
        if depth.score is None:
            scores.missing[name] = (
                "original and retrained model do not differ on the forget set"
            )
        else:
            scores.values[name] = depth.score


def retraining_block(
    ours: Sequence[Measured],
    retrained: Sequence[Measured],
    scores: Sequence[Scores],
    retrained_scores: Sequence[Scores],
) -> dict[str, Any]:
    """Return how the model or models stand among several retrained ones.

    With one model: of each score, its distance to the retrained models' mean in their
    standard deviations, and the share of them that stand further out. With two or more
    models: also what tells the two ensembles apart (KLOM, epsilon, U-LiRA).
    """
    if len(retrained) < 2:
        return {}
    block: dict[str, Any] = {"models": len(ours), "retrained": len(retrained)}
    every = (scores[0], *retrained_scores)
    common = [
        name
        for name in scores[0].values
        if all(np.isfinite(one.values.get(name, np.nan)) for one in every)
    ]
    distances = retrained_distance(
        {k: scores[0].values[k] for k in common},
        {k: np.array([s.values[k] for s in retrained_scores]) for k in common},
    )
    block["distance"] = {k: d._asdict() for k, d in distances.items()}
    if len(ours) < 2:
        return block
    for name in ("forget", "retain", HOLDOUT):
        if name not in ours[0].statistics:
            continue
        a, b = (
            np.stack([mean_losses(m.statistics[name]) for m in group])
            for group in (ours, retrained)
        )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            block[f"klom_{name}_p95"] = None  # an impossible answer has no margin
            continue
        a, b = language_model_margin(a), language_model_margin(b)
        block[f"klom_{name}_p95"] = ensembles.klom(a, b).p95
        if name == "forget" and min(len(a), len(b)) >= FEWEST_MODELS:
            attack = ensembles.u_lira(a, b)
            block["u_lira_accuracy"] = attack.accuracy
            block["u_lira_auc"] = attack.auc
            block["epsilon_score"] = epsilon(a, b).score
            block["klom_forget_noise"] = float(
                np.mean(ensembles.noise_floor(lambda u, r: ensembles.klom(u, r).p95, b))
            )
    return block
