"""What was measured of each question of a set, and the scores that follow from it."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.evaluation import utility
from jaxunlearn.evaluation.intervals import Interval, bootstrap

SETS = ("forget", "retain", "real_authors", "world_facts")
KEPT = SETS[1:]
OUTSIDE = SETS[2:]
"""Sets whose answers are known from elsewhere: probabilities are normalised there."""


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerLog:
    """Per-question measurements of one set; what was not measured is None.

    Attributes:
      index: n names of the questions.
      loss: float64[n], mean token loss of the true answer.
      tokens: float64[n], how many tokens that is a mean of.
      paraphrased_loss: float64[n], of the paraphrased answer.
      wrong_losses: n arrays, of the wrong answers.
      truth_ratio: float64[n], where only the ratio is known and not its parts.
      rouge_recall: float64[n], ROUGE-L recall of the greedy answer.
      rouge1_recall: float64[n], ROUGE-1 recall.
      prompts: n texts.
      answers: n greedy answers.
      truths: n true answers.
    """

    index: tuple[str, ...]
    loss: np.ndarray | None = None
    tokens: np.ndarray | None = None
    paraphrased_loss: np.ndarray | None = None
    wrong_losses: tuple[np.ndarray, ...] | None = None
    truth_ratio: np.ndarray | None = None
    rouge_recall: np.ndarray | None = None
    rouge1_recall: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None
    truths: tuple[str, ...] | None = None


class Scores(NamedTuple):
    """Numbers by name, with intervals, and why others are missing."""

    values: dict[str, float]
    intervals: dict[str, Interval]
    missing: dict[str, str]


def ratios_of(log: AnswerLog, name: str, mean: str = "geometric") -> np.ndarray | None:
    """Return the truth ratios of a set, or None where its parts are not known."""
    right = log.paraphrased_loss
    if right is None and name in OUTSIDE:
        right = log.loss  # these questions have no paraphrased answers
    if right is not None and log.wrong_losses is not None:
        return utility.truth_ratio(right, log.wrong_losses, mean=mean)
    return log.truth_ratio if mean == "geometric" else None


def examples_of(name: str, log: AnswerLog) -> dict[str, np.ndarray]:
    """Return the per-question values whose means are scores of a set."""
    found: dict[str, np.ndarray] = {}
    outside = name in OUTSIDE
    if log.loss is not None:
        found["loss"] = log.loss
        if not outside:
            found["probability"] = utility.probability(log.loss)
        elif log.wrong_losses is not None:
            found["probability"] = utility.normalised_probability(
                log.loss, log.wrong_losses
            )
    if log.paraphrased_loss is not None and not outside:
        found["paraphrased_probability"] = utility.probability(log.paraphrased_loss)
    if log.rouge_recall is not None:
        found["rouge"] = log.rouge_recall
    if log.rouge1_recall is not None:
        found["rouge1"] = log.rouge1_recall
    score = (
        utility.closeness_to_one if name == "forget" else utility.preference_for_truth
    )
    for mean, suffix in (("geometric", ""), ("arithmetic", "_arithmetic")):
        ratios = ratios_of(log, name, mean)
        if ratios is not None:
            found[f"truth_ratio{suffix}"] = score(ratios)
            if not (suffix or outside):
                found["truth_share"] = utility.share_of_truth(ratios)
    return found


def answer_scores(
    logs: Mapping[str, AnswerLog],
    reference: Mapping[str, AnswerLog] | None = None,
    *,
    resamples: int = 1000,
) -> Scores:
    """Return every score that the logs of a model allow.

    Of each set, named ``forget_``, ``retain_``, ``real_authors_`` and ``world_facts_``:
    ``loss`` (nats a token, mean over questions), ``probability`` (normalised outside
    forget and retain), ``paraphrased_probability``, ``rouge`` and ``rouge1`` (recall),
    ``truth_ratio`` and ``truth_ratio_arithmetic`` (of forget :func:`~utility.
    closeness_to_one`, else :func:`~utility.preference_for_truth`), ``truth_share`` and
    ``perplexity`` (over all tokens of the set). And ``model_utility``,
    ``model_utility_arithmetic``, ``forget_quality``, ``forget_quality_log10``,
    ``forget_quality_statistic``.

    Args:
      logs: Set name -> measurements.
      reference: Those of a model trained without the forget set; forget quality is
        missing without them, and says so.
      resamples: Of the bootstrap over questions; 0 leaves intervals out.
    """
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    missing: dict[str, str] = {}
    examples: dict[str, np.ndarray] = {}
    for name, log in logs.items():
        for kind, column in examples_of(name, log).items():
            examples[f"{name}_{kind}"] = column
            values[f"{name}_{kind}"] = float(np.mean(column))
            if resamples:
                intervals[f"{name}_{kind}"] = bootstrap(
                    np.mean, column, resamples=resamples
                )
        if log.loss is not None and log.tokens is not None:
            mean = np.sum(log.loss * log.tokens) / np.sum(log.tokens)
            values[f"{name}_perplexity"] = float(np.exp(mean))
    for suffix in ("", "_arithmetic"):
        name = f"model_utility{suffix}"
        kinds = ("probability", "rouge", f"truth_ratio{suffix}")
        parts = [f"{kept}_{kind}" for kept in KEPT for kind in kinds]
        absent = [part for part in parts if part not in values]
        if absent:
            missing[name] = lacking(absent)
            continue
        values[name] = utility.model_utility([values[part] for part in parts])
        if resamples:
            columns = [
                np.stack([examples[part] for part in parts[i : i + 3]], axis=1)
                for i in (0, 3, 6)
            ]
            intervals[name] = bootstrap(utility_of, *columns, resamples=resamples)
    problem = quality_problem(logs, reference)
    if problem:
        missing["forget_quality"] = problem
    else:
        assert reference is not None  # noqa: S101, for the type checker
        quality = utility.forget_quality(
            ratios_of(logs["forget"], "forget"),
            ratios_of(reference["forget"], "forget"),
        )
        values["forget_quality"] = quality.p_value
        values["forget_quality_log10"] = quality.log10_p_value
        values["forget_quality_statistic"] = quality.statistic
    return Scores(values, intervals, missing)


def lacking(absent: list[str]) -> str:
    """Return what is missing, by set, from names such as real_authors_rouge."""
    sets: dict[str, list[str]] = {}
    for part in absent:
        (name,) = (s for s in SETS if part.startswith(f"{s}_"))
        sets.setdefault(name, []).append(part[len(name) + 1 :].replace("_", " "))
    return "needs of " + "; of ".join(f"{k} {', '.join(v)}" for k, v in sets.items())


def utility_of(*sets: np.ndarray) -> float:
    """Return model utility from three arrays [questions, 3], one a set."""
    return utility.model_utility(
        np.concatenate([x.mean(axis=0) for x in sets]).tolist()
    )


def quality_problem(
    logs: Mapping[str, AnswerLog], reference: Mapping[str, AnswerLog] | None
) -> str | None:
    """Return what is missing for forget quality, or None."""
    if "forget" not in logs or ratios_of(logs["forget"], "forget") is None:
        return (
            "needs truth ratios of the forget set: records with paraphrased_answer and "
            "perturbed_answer"
        )
    if reference is None:
        return "needs the logs of a model trained without the forget set"
    if "forget" not in reference or ratios_of(reference["forget"], "forget") is None:
        return "the reference's logs hold no truth ratios of the forget set"
    return None
