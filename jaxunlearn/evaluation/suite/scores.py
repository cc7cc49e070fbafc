"""From what was measured of a model to its scores, beside a retrained model's."""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.evaluation import aggregates
from jaxunlearn.evaluation.membership import roc, signals
from jaxunlearn.evaluation.suite.measurement import HOLDOUT, Measured
from jaxunlearn.evaluation.text import memorization
from jaxunlearn.evaluation.text.answer_log import (
    OUTSIDE,
    Scores,
    add_mean,
    answer_scores,
)
from jaxunlearn.evaluation.text.token_pass import mean_losses
from jaxunlearn.intervals import LEVEL, Interval

NEEDS_HOLDOUT = "needs a holdout: records like the forgotten ones that no model saw"
NEEDS_REFERENCE = "needs a reference: a model trained without the forgotten records"
PRIVACY_ATTACKS = ("loss", "zlib", "min_k", "min_k_pp")


class SuiteScores(NamedTuple):
    """All scores of one model.

    Attributes:
      scores: Numbers by name, intervals, and what is missing.
      membership: Attack -> the scores of each example and their separation, as the
        scores file holds them.
    """

    scores: Scores
    membership: dict[str, dict[str, Any]]


def suite_scores(
    measured: Measured,
    reference: Measured | None = None,
    *,
    end_of_text: int,
    resamples: int = 1000,
) -> SuiteScores:
    """Return every score of a model that what was measured allows.

    To those of :func:`~.answer_log.answer_scores` come, of forget and retain,
    ``extraction_strength`` and ``exact_memorization`` (without the end-of-text token);
    ``holdout_loss``; of forget against holdout ``mia_<attack>_auc`` and
    ``mia_<attack>_tpr_at_1_fpr``; against the reference ``privleak``, ``s_mia`` and
    ``privacy``; and ``memorization``, OpenUnlearning's harmonic mean.

    Args:
      measured: Of the model.
      reference: Of a retrained model on the same sets. Without it the scores that need
        one are missing, and say so.
      end_of_text: The tokenizer's end-of-text token.
      resamples: Of the bootstraps; 0 leaves intervals out.
    """
    found = answer_scores(
        measured.logs,
        None if reference is None else reference.logs,
        resamples=resamples,
    )
    values, missing = found.values, found.missing
    end = {"drop_last": True, "end_of_text": end_of_text}
    for name in ("forget", "retain"):
        if name not in measured.statistics:
            continue
        statistics = measured.statistics[name]
        for score, column in (
            (
                "extraction_strength",
                memorization.extraction_strength(statistics, **end),
            ),
            ("exact_memorization", memorization.exact_memorization(statistics, **end)),
        ):
            add_mean(found, f"{name}_{score}", column, resamples)
    if HOLDOUT in measured.statistics:
        add_mean(found, "holdout_loss", mean_losses(measured.statistics[HOLDOUT]), 0)
    block = membership_block(measured, reference, end_of_text, resamples)
    add_membership(found, block)
    add_privacy(found, measured, reference, end_of_text, resamples)
    parts = {
        "extraction_strength": values.get("forget_extraction_strength"),
        "exact_memorization": values.get("forget_exact_memorization"),
        "paraphrase_probability": values.get("forget_paraphrased_probability"),
        "truth_ratio": values.get("forget_truth_share"),
    }
    absent = [name for name, value in parts.items() if value is None]
    if absent:
        missing["memorization"] = (
            "needs paraphrased_answer and perturbed_answer in the forget records"
        )
    else:
        values["memorization"] = aggregates.memorization_score(**parts)
    return SuiteScores(found, block)


def score_names() -> list[str]:
    """Return the name of every score that an evaluation of a model may give."""
    kinds = (
        *("loss", "probability", "paraphrased_probability", "perplexity"),
        *("rouge", "rouge_f1", "rouge1"),
        *("truth_ratio", "truth_ratio_arithmetic", "truth_share"),
        *("extraction_strength", "exact_memorization"),
    )
    outside = ("loss", "probability", "perplexity", "rouge", "rouge_f1", "rouge1")
    outside += ("truth_ratio", "truth_ratio_arithmetic")
    of_sets = [f"{name}_{kind}" for name in ("forget", "retain") for kind in kinds]
    of_sets += [f"{name}_{kind}" for name in OUTSIDE for kind in outside]
    attacks = [f"mia_{attack}" for attack in signals.ATTACKS]
    rates = [f"{a}_{kind}" for a in attacks for kind in ("auc", "tpr_at_1_fpr")]
    others = ("holdout_loss", "privleak", "s_mia", "privacy", "memorization")
    others += ("model_utility", "model_utility_arithmetic", "uds", "logit_lens_depth")
    quality = [f"forget_quality{suffix}" for suffix in ("", "_log10", "_statistic")]
    return [*of_sets, *rates, *others, *quality]


def attack_scores(
    measured: Measured, name: str, reference: Measured | None, end_of_text: int
) -> dict[str, np.ndarray]:
    """Return the membership scores of a set, by attack; high = not a member."""
    statistics = measured.statistics[name]
    end = {"drop_last": True, "end_of_text": end_of_text}
    found = {
        "loss": signals.loss(statistics),
        "zlib": signals.zlib(statistics, measured.texts[name]),
        "min_k": signals.min_k(statistics, **end),
        "min_k_pp": signals.min_k_plus_plus(statistics, **end),
    }
    if name in measured.gradient_norms:
        found["gradient_norm"] = measured.gradient_norms[name]
    if reference is not None:
        found["reference"] = signals.reference(statistics, reference.statistics[name])
    return found


def membership_block(
    measured: Measured, reference: Measured | None, end_of_text: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Return, by attack, the scores of both sets and how far they stand apart."""
    if HOLDOUT not in measured.statistics or "forget" not in measured.statistics:
        return {}
    forget, holdout = (
        attack_scores(measured, name, reference, end_of_text)
        for name in ("forget", HOLDOUT)
    )
    block = {}
    for attack, scores in forget.items():
        sets = scores, holdout[attack]
        block[attack] = {
            "forget": scores,
            "holdout": holdout[attack],
            "auc": roc.auc(*sets),
            "tpr_at_1_fpr": roc.tpr_at_fpr(*sets),
        }
        if resamples:
            apart = roc.separation(*sets, resamples=resamples)
            block[attack]["intervals"] = {
                "auc": apart.auc[1:3],
                "tpr_at_1_fpr": apart.tpr_at_fpr[1:3],
            }
    return block


def add_membership(found: Scores, block: dict[str, dict[str, Any]]) -> None:
    """Add AUC and TPR of each attack to the scores, or say what is missing."""
    if not block:
        found.missing["mia_min_k_auc"] = NEEDS_HOLDOUT
    for attack, row in block.items():
        for kind in ("auc", "tpr_at_1_fpr"):
            name = f"mia_{attack}_{kind}"
            found.values[name] = row[kind]
            if "intervals" in row:
                low, high = row["intervals"][kind]
                found.intervals[name] = Interval(row[kind], low, high, LEVEL)


def add_privacy(
    found: Scores,
    measured: Measured,
    reference: Measured | None,
    end_of_text: int,
    resamples: int,
) -> None:
    """Add what compares membership with the reference's, or say what is missing."""
    names = ("privleak", "s_mia", "privacy")
    problem = None
    if HOLDOUT not in measured.statistics:
        problem = NEEDS_HOLDOUT
    elif reference is None:
        problem = NEEDS_REFERENCE
    elif HOLDOUT not in reference.statistics:
        problem = "the reference was not measured on the holdout"
    if problem or reference is None:
        found.missing.update(dict.fromkeys(names, problem or NEEDS_REFERENCE))
        return
    ours, theirs = (
        {
            name: attack_scores(one, name, None, end_of_text)
            for name in ("forget", HOLDOUT)
        }
        for one in (measured, reference)
    )

    def area(sets: dict, attack: str) -> float:
        return roc.auc(sets["forget"][attack], sets[HOLDOUT][attack])

    pairs = {a: (area(ours, a), area(theirs, a)) for a in PRIVACY_ATTACKS}
    if any(b in (0.0, 1.0) for _, b in pairs.values()):
        reason = (
            "the retrained model's own AUC is 0 or 1: the holdout is unlike the rest"
        )
        found.missing.update(dict.fromkeys(names, reason))
        return
    found.values["privleak"] = roc.privleak(*pairs["min_k"])
    if resamples:
        try:
            found.intervals["privleak"] = roc.against_reference(
                roc.privleak,
                ours["forget"]["min_k"],
                ours[HOLDOUT]["min_k"],
                reference_forget=theirs["forget"]["min_k"],
                reference_holdout=theirs[HOLDOUT]["min_k"],
                resamples=resamples,
            )
        except ValueError as error:  # few examples: a resample that divides by 0
            found.missing["the interval of privleak"] = str(error)
    each = {a: roc.s_mia(*pair) for a, pair in pairs.items()}
    found.values["s_mia"] = each["min_k"]
    found.values["privacy"] = aggregates.privacy_score(**each)
