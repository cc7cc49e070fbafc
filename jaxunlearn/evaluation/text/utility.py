"""TOFU's scores of answers: probability, truth ratio, model utility.

All from mean token losses ``L`` of the true answer ``a``, its paraphrase ``a~`` and the
wrong ("perturbed") answers ``a^_1 .. a^_k``, and from the ROUGE-L recall of the greedy
answer. Source: Maini et al. 2024 (TOFU, arXiv 2401.06121), sections 2.2 and 2.3, in the
form that locuslab/open-unlearning computes and publishes.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logsumexp

OPEN_UNLEARNING_EPSILON = 1e-10
"""What OpenUnlearning adds to denominators. TOFU's published numbers are without it; it
pulls the ratios of answers that are unlikely altogether to 0."""

MEANS = ("geometric", "arithmetic")


def probability(losses: np.ndarray) -> np.ndarray:
    """Return ``P(a) = exp(-L)`` of each answer, float64[n], in 0..1."""
    return np.exp(-np.asarray(losses, np.float64))


def normalised_probability(
    losses: np.ndarray,
    wrong_losses: Sequence[Sequence[float]],
    *,
    epsilon: float = 0.0,
) -> np.ndarray:
    """Return ``P(a) / (P(a) + sum_j P(a^_j) + epsilon)`` of each question, float64[n].

    The probability among the answers on offer, for questions whose answers a model
    knows from elsewhere (real authors, world facts). Higher is better known. Where all
    the answers are impossible, 0.

    Args:
      losses: [n], mean token loss of the true answer.
      wrong_losses: n lists of those of the wrong answers.
      epsilon: ``OPEN_UNLEARNING_EPSILON`` for that framework's number.
    """
    losses = np.asarray(losses, np.float64)
    wrong = log_wrong_probability(wrong_losses, len(losses), "arithmetic")
    wrong += np.log([len(row) for row in wrong_losses])
    if epsilon == 0:
        shares = expit(-log_ratio(losses, wrong))
        return np.where(np.isposinf(losses), 0.0, shares)
    return np.exp(-losses) / (np.exp(-losses) + np.exp(wrong) + epsilon)


def truth_ratio(
    losses: np.ndarray,
    wrong_losses: Sequence[Sequence[float]],
    *,
    mean: str = "geometric",
    epsilon: float = 0.0,
) -> np.ndarray:
    """Return ``R = w / (c + epsilon)`` of each question, float64[n], 0 or more.

    ``c = exp(-L(a~))``; ``w = exp(-mean_j L(a^_j))``, the geometric mean of the wrong
    answers' probabilities, or with ``mean="arithmetic"`` ``mean_j exp(-L(a^_j))`` as
    TOFU's text has it. Near 0 the model tells the truth from what is false; near 1 it
    does not, as where both are impossible (0 / 0 counts as 1).

    Args:
      losses: [n], mean token loss of the paraphrased answer (of the true one, where
        there is no paraphrase).
      wrong_losses: n lists of those of the wrong answers.
      mean: "geometric" or "arithmetic".
      epsilon: ``OPEN_UNLEARNING_EPSILON`` for that framework's number.

    Raises:
      ValueError: The sizes differ, a question has no wrong answer, or an unknown mean.
    """
    losses = np.asarray(losses, np.float64)
    wrong = log_wrong_probability(wrong_losses, len(losses), mean)
    with np.errstate(over="ignore"):  # a ratio may be infinite; nothing is NaN
        if epsilon == 0:
            return np.exp(log_ratio(losses, wrong))
        return np.exp(wrong) / (np.exp(-losses) + epsilon)


def log_ratio(losses: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return ``wrong + losses``, logs of wrong over right; 0 where both are impossible.

    A NaN, of a question that was not measured, stays one.
    """
    with np.errstate(invalid="ignore"):
        apart = wrong + losses
    return np.where(np.isneginf(wrong) & np.isposinf(losses), 0.0, apart)


def log_wrong_probability(
    wrong_losses: Sequence[Sequence[float]], questions: int, mean: str
) -> np.ndarray:
    """Return the log of the mean probability of the wrong answers, float64[n]."""
    if mean not in MEANS:
        raise ValueError(f"mean={mean!r}: one of {', '.join(MEANS)}")
    if len(wrong_losses) != questions:
        raise ValueError(
            f"wrong_losses are of {len(wrong_losses)} questions, losses of {questions}"
        )
    rows = [np.asarray(row, np.float64) for row in wrong_losses]
    bare = [i for i, row in enumerate(rows) if row.size == 0]
    if bare:
        raise ValueError(
            f"questions {bare[:5]} have no wrong answer (perturbed_answer)"
        )
    if mean == "geometric":
        return np.array([-row.mean() for row in rows])
    return np.array([logsumexp(-row) - np.log(len(row)) for row in rows])


def closeness_to_one(ratios: np.ndarray) -> np.ndarray:
    """Return ``min(R, 1 / R)``: 1 where true and false are equally likely.

    TOFU's form for the forget set; higher is better forgotten. A model that makes
    everything unlikely can end near 0 too: read it beside forget quality.
    """
    ratios = np.asarray(ratios, np.float64)
    with np.errstate(divide="ignore"):
        return np.minimum(ratios, 1 / ratios)


def preference_for_truth(ratios: np.ndarray) -> np.ndarray:
    """Return ``max(0, 1 - R)``, TOFU's form for what is kept; higher is better kept."""
    return np.maximum(0.0, 1 - np.asarray(ratios, np.float64))


def share_of_truth(ratios: np.ndarray) -> np.ndarray:
    """Return ``c / (c + w) = 1 / (1 + R)``, OpenUnlearning's ``prob_mean`` form.

    0.5 where true and false are equally likely, higher where the truth is known.
    """
    return 1 / (1 + np.asarray(ratios, np.float64))


def harmonic_mean(values: Sequence[float]) -> float:
    """Return ``n / sum 1/x``; 0 where any value is 0.

    Raises:
      ValueError: There is no value, or one is negative or NaN.

    >>> harmonic_mean([1.0, 0.5]), harmonic_mean([1.0, 0.0])
    (0.6666666666666666, 0.0)
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or not (array >= 0).all():
        raise ValueError(f"values={values}: numbers of 0 or more, at least one")
    least = float(array.min())
    if least == 0:
        return 0.0
    # 1 / x of the smallest numbers would overflow.
    return least * float(array.size / np.sum(least / array))


def model_utility(parts: Sequence[float]) -> float:
    """Return TOFU's model utility, the harmonic mean of nine numbers.

    Args:
      parts: Probability, ROUGE-L recall and :func:`preference_for_truth`, each averaged
        over the retain set, the real authors (probability normalised) and the world
        facts (likewise).

    Two numbers are published under this name: with the truth ratio's geometric mean
    (the table script of TOFU, and OpenUnlearning), and with the arithmetic one (TOFU's
    trainer), some 0.04 apart. The caller chooses by what it puts in, and names it.

    Raises:
      ValueError: There are not nine.
    """
    if len(parts) != 9:
        raise ValueError(f"parts has {len(parts)} numbers, model utility is of nine")
    return harmonic_mean(parts)
