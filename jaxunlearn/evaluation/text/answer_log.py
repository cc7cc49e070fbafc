"""What was measured of each question of a set, and the scores that follow from it."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.evaluation.text import utility
from jaxunlearn.evaluation.text.kolmogorov_smirnov import forget_quality
from jaxunlearn.intervals import Interval, bootstrap

SETS = ("forget", "retain", "real_authors", "world_facts")
KEPT = SETS[1:]
OUTSIDE = SETS[2:]
"""Sets whose answers are known from elsewhere: probabilities are normalised there."""


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerLog:
    """Per-question measurements of one set.

    What was measured of no question is None; of a single question it is NaN (a text:
    None), and its other measurements stand. An infinite loss is a measurement: the
    model gives the answer a probability of 0.

    Attributes:
      index: n names of the questions.
      loss: float64[n], mean token loss of the true answer.
      tokens: float64[n], how many tokens that is a mean of.
      paraphrased_loss: float64[n], of the paraphrased answer.
      wrong_losses: n arrays, of the wrong answers.
      truth_ratio: float64[n], where only the ratio is known and not its parts.
      rouge_recall: float64[n], ROUGE-L recall of the greedy answer; NaN also where the
        true answer has no words.
      rouge_f1: float64[n], ROUGE-L F1, which MUSE reports.
      rouge1_recall: float64[n], ROUGE-1 recall.
      extraction_strength: float64[n], where a log has it.
      exact_memorization: float64[n], likewise.
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
    rouge_f1: np.ndarray | None = None
    rouge1_recall: np.ndarray | None = None
    extraction_strength: np.ndarray | None = None
    exact_memorization: np.ndarray | None = None
    prompts: tuple[str | None, ...] | None = None
    answers: tuple[str | None, ...] | None = None
    truths: tuple[str | None, ...] | None = None


class Counted(NamedTuple):
    """How many questions a score is a mean over, and how many had no value for it."""

    used: int
    left_out: int


class Scores(NamedTuple):
    """The scores of one model.

    Attributes:
      values: Numbers by name. One that is infinite has a note.
      intervals: Their 95 % intervals.
      missing: Why others are missing.
      counts: Of scores that are means over questions, how many those are.
      notes: What else is to be known of a score.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    missing: dict[str, str]
    counts: dict[str, Counted]
    notes: dict[str, str]


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
    for kind, column in (
        ("rouge", log.rouge_recall),
        ("rouge_f1", log.rouge_f1),
        ("rouge1", log.rouge1_recall),
        ("extraction_strength", log.extraction_strength),
        ("exact_memorization", log.exact_memorization),
    ):
        if column is not None:
            found[kind] = column
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
    ``rouge_f1``, ``truth_ratio`` and ``truth_ratio_arithmetic`` (of forget
    :func:`~utility.closeness_to_one`, else :func:`~utility.preference_for_truth`),
    ``truth_share`` and ``perplexity`` (over all tokens of the set). And
    ``model_utility``, ``model_utility_arithmetic``, ``forget_quality``,
    ``forget_quality_log10``, ``forget_quality_statistic``.

    Each is over the questions that have a value for it, whatever else they lack; a
    truth ratio needs both kinds of answers. ``counts`` says how many those are.

    Args:
      logs: Set name -> measurements.
      reference: Those of a model trained without the forget set; forget quality is
        missing without them, and says so.
      resamples: Of the bootstrap over questions; 0 leaves intervals out.
    """
    found = Scores({}, {}, {}, {}, {})
    examples: dict[str, np.ndarray] = {}
    for name, log in logs.items():
        for kind, column in examples_of(name, log).items():
            examples[f"{name}_{kind}"] = column
            add_mean(found, f"{name}_{kind}", column, resamples)
        if log.loss is not None and log.tokens is not None:
            add_perplexity(found, f"{name}_perplexity", log.loss, log.tokens)
    for suffix in ("", "_arithmetic"):
        name = f"model_utility{suffix}"
        kinds = ("probability", "rouge", f"truth_ratio{suffix}")
        parts = [f"{kept}_{kind}" for kept in KEPT for kind in kinds]
        absent = [part for part in parts if part not in found.values]
        if absent:
            found.missing[name] = lacking(absent)
            continue
        found.values[name] = utility.model_utility([found.values[p] for p in parts])
        if resamples:
            columns = utility_columns([examples[part] for part in parts])
            found.intervals[name] = bootstrap(utility_of, *columns, resamples=resamples)
    add_forget_quality(found, logs, reference)
    return found


def add_mean(found: Scores, name: str, column: np.ndarray, resamples: int) -> None:
    """Add the mean of what is not NaN, its interval and its count."""
    used = column[~np.isnan(column)]
    found.counts[name] = Counted(len(used), len(column) - len(used))
    if not len(used):
        found.missing[name] = f"none of {len(column)} questions has a value"
        return
    mean = found.values[name] = float(np.mean(used))
    if np.isinf(mean):
        impossible = int(np.isinf(used).sum())
        found.notes[name] = (
            f"infinite: the model gives {impossible} of {len(used)} answers a "
            f"probability of 0"
        )
    elif resamples:
        found.intervals[name] = bootstrap(np.mean, used, resamples=resamples)


def add_perplexity(
    found: Scores, name: str, losses: np.ndarray, tokens: np.ndarray
) -> None:
    """Add ``exp`` of the mean loss over the tokens of all questions with a loss."""
    known = ~np.isnan(losses + tokens)
    found.counts[name] = Counted(int(known.sum()), int((~known).sum()))
    if not known.any():
        found.missing[name] = f"none of {len(losses)} questions has a value"
        return
    mean = np.average(losses[known], weights=tokens[known])
    with np.errstate(over="ignore"):
        found.values[name] = float(np.exp(mean))
    if np.isinf(found.values[name]):
        found.notes[name] = f"exp({mean:.4g}), the mean loss of a token, has no number"


def add_forget_quality(
    found: Scores,
    logs: Mapping[str, AnswerLog],
    reference: Mapping[str, AnswerLog] | None,
) -> None:
    """Add forget quality in its three forms, or what is missing for it."""
    problem = quality_problem(logs, reference)
    if problem or reference is None:
        found.missing["forget_quality"] = problem or "needs a reference"
        return
    ratios, others = (ratios_of(one["forget"], "forget") for one in (logs, reference))
    used, others_used = (x[~np.isnan(x)] for x in (ratios, others))
    quality = forget_quality(used, others_used)
    for suffix, value in (
        ("", quality.p_value),
        ("_log10", quality.log10_p_value),
        ("_statistic", quality.statistic),
    ):
        name = f"forget_quality{suffix}"
        found.values[name] = value
        found.counts[name] = Counted(len(used), len(ratios) - len(used))
        if len(others_used) < len(others):
            found.notes[name] = (
                f"of the retrained model {len(others_used)} of {len(others)} truth "
                f"ratios are known"
            )
    if quality.p_value == 0:
        found.notes["forget_quality"] = (
            f"10^{quality.log10_p_value:.2f}, smaller than any number; see "
            f"forget_quality_log10"
        )


def lacking(absent: list[str]) -> str:
    """Return what is missing, by set, from names such as real_authors_rouge."""
    sets: dict[str, list[str]] = {}
    for part in absent:
        (name,) = (s for s in SETS if part.startswith(f"{s}_"))
        sets.setdefault(name, []).append(part[len(name) + 1 :].replace("_", " "))
    return "needs of " + "; of ".join(f"{k} {', '.join(v)}" for k, v in sets.items())


def utility_columns(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return what is resampled for model utility, [questions, metrics] arrays.

    A question is drawn with its three values; where one is not known, those of each
    metric are drawn by themselves.
    """
    if any(np.isnan(part).any() for part in parts):
        return [part[~np.isnan(part)][:, None] for part in parts]
    return [np.stack(parts[i : i + 3], axis=1) for i in (0, 3, 6)]


def utility_of(*sets: np.ndarray) -> float:
    """Return model utility from arrays [questions, metrics] of nine metrics."""
    return utility.model_utility(
        np.concatenate([x.mean(axis=0) for x in sets]).tolist()
    )


def quality_problem(
    logs: Mapping[str, AnswerLog], reference: Mapping[str, AnswerLog] | None
) -> str | None:
    """Return what is missing for forget quality, or None."""
    if "forget" not in logs or not has_ratios(logs["forget"]):
        return (
            "needs truth ratios of the forget set: records with paraphrased_answer and "
            "perturbed_answer"
        )
    if reference is None:
        return "needs the logs of a model trained without the forget set"
    if "forget" not in reference or not has_ratios(reference["forget"]):
        return "the reference's logs hold no truth ratios of the forget set"
    return None


def has_ratios(forget: AnswerLog) -> bool:
    """Say whether the forget set has a truth ratio of any question."""
    ratios = ratios_of(forget, "forget")
    return ratios is not None and not np.isnan(ratios).all()
