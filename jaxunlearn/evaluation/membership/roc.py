"""How far a membership score sets the forgotten examples apart from unseen ones.

Scores are signed as in ``membership.py``: higher = less likely a member. Everything
here looks only at their order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxunlearn.intervals import Interval, bootstrap

MUSE_REFERENCE_AUC = {"news": 1 - 0.4772, "books": 1 - 0.5393}
"""AUC of Min-K (40 %) of MUSE's retrained Llama-2 models, whose code states 1 - AUC.
They hold for those models and sets only (Shi et al. 2024, arXiv 2407.06460)."""


class RocCurve(NamedTuple):
    """What an attacker gets who calls "member" every score up to a threshold.

    Attributes:
      threshold: float64[m], ascending; the first, -inf, calls nobody.
      false_positive_rate: float64[m], share of the holdout that is called.
      true_positive_rate: float64[m], share of the forget set that is called.
    """

    threshold: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray


class Separation(NamedTuple):
    """How well a score tells the forget set from the holdout, with intervals."""

    auc: Interval
    tpr_at_fpr: Interval


def auc(forget: np.ndarray, holdout: np.ndarray) -> float:
    """Return the probability that a holdout score is above a forget score.

    ``P(s_holdout > s_forget) + P(s_holdout = s_forget) / 2`` over all pairs: the
    Mann-Whitney statistic, and the area under the ROC curve with ties cut in half. 1:
    the forget set looks like training data through and through; 0.5: it cannot be told
    from the holdout; below: it looks less like training data than the holdout does.

    Args:
      forget: [n], scores of the examples to be forgotten.
      holdout: [m], scores of examples that no model has seen.

    Returns:
      0 to 1.

    Raises:
      ValueError: A set is empty, not flat, or holds a NaN or -inf. A loss of +inf has
        its place in the order.

    Source: OpenUnlearning's ``mia_auc``, label 0 = forget and 1 = holdout; MUSE has
    one minus this.

    >>> auc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    forget = scores_of("forget", forget)
    ordered = np.sort(scores_of("holdout", holdout))
    below = np.searchsorted(ordered, forget, side="left")
    up_to = np.searchsorted(ordered, forget, side="right")
    return float(1 - (below + up_to).sum() / (2 * len(forget) * len(ordered)))


def roc_curve(forget: np.ndarray, holdout: np.ndarray) -> RocCurve:
    """Return the ROC curve of an attacker who looks for members.

    One point for each distinct score, so that equal scores are called together: an
    attacker cannot tell them apart. Arguments and errors as in :func:`auc`.
    """
    forget = np.sort(scores_of("forget", forget))
    holdout = np.sort(scores_of("holdout", holdout))
    threshold = np.unique(np.concatenate([[-np.inf], forget, holdout]))
    called = (
        np.searchsorted(x, threshold, side="right") / len(x) for x in (holdout, forget)
    )
    return RocCurve(threshold, *called)


def tpr_at_fpr(
    forget: np.ndarray, holdout: np.ndarray, *, max_fpr: float = 0.01
) -> float:
    """Return the largest share of members found at few false alarms.

    The largest true positive rate over all thresholds whose false positive rate is at
    most ``max_fpr``; no interpolation between thresholds. Members are the forget set.
    With fewer than ``1 / max_fpr`` holdout examples none may be called falsely, which
    makes the number conservative and noisy.

    Args:
      forget: [n], scores of the examples to be forgotten.
      holdout: [m], scores of examples that no model has seen.
      max_fpr: 0 to 1.

    Returns:
      0 to 1, lower = more private; a score that tells nothing gives about ``max_fpr``.

    Raises:
      ValueError: As :func:`auc`, or ``max_fpr`` is out of range.

    Source: Carlini et al. 2022, Membership Inference Attacks From First Principles;
    mimir counts the same way. OpenUnlearning and MUSE have AUC only.
    """
    if not 0 <= max_fpr <= 1:
        raise ValueError(f"max_fpr={max_fpr}: a rate, 0 to 1")
    curve = roc_curve(forget, holdout)
    allowed = curve.false_positive_rate <= max_fpr
    return float(curve.true_positive_rate[allowed].max())


def separation(
    forget: np.ndarray,
    holdout: np.ndarray,
    *,
    max_fpr: float = 0.01,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Separation:
    """Return AUC and TPR at a low FPR with bootstrap intervals over the examples.

    Each set is resampled on its own. Sets that are separated completely give an
    interval of length 0: a bootstrap sees no more than the examples at hand.

    Arguments as in :func:`tpr_at_fpr` and :func:`~.intervals.bootstrap`.
    """
    sets = scores_of("forget", forget), scores_of("holdout", holdout)
    options = {"seed": seed, "resamples": resamples, "level": level}

    def rate(forget: np.ndarray, holdout: np.ndarray) -> float:
        return tpr_at_fpr(forget, holdout, max_fpr=max_fpr)

    return Separation(
        bootstrap(auc, *sets, **options), bootstrap(rate, *sets, **options)
    )


def privleak(auc: float, reference_auc: float) -> float:
    """Return MUSE's privacy leakage, in per cent.

    ``100 ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref)`` with the AUC of Min-K at 40 %.
    0: as the retrained model. Below, down to -100: under-unlearned, the forget set
    still looks like training data. Above, without a bound: over-unlearned, it looks
    more foreign than what was never seen, which tells on it too.

    Args:
      auc: Of the unlearned model, :func:`auc` of forget set and holdout.
      reference_auc: Of a model retrained without the forget set, the same sets; or one
        of ``MUSE_REFERENCE_AUC``. OpenUnlearning takes 0.5 where it is missing and
        only warns; here it is required.

    Raises:
      ValueError: One is not in 0..1, or the reference is 1.

    Source: Shi et al. 2024 (MUSE), criterion C3, PrivLeak. OpenUnlearning adds 1e-10
    to the denominator.

    >>> round(privleak(1.0, MUSE_REFERENCE_AUC["news"]), 6)
    -100.0
    """
    check_area("auc", auc)
    check_area("reference_auc", reference_auc)
    if reference_auc == 1:
        raise ValueError(
            f"reference_auc={reference_auc}: the reference, or a resample of it, sets "
            f"the forget set apart completely, so that there is nothing to divide by; "
            f"check that it never saw the forget set, and use more examples"
        )
    return 100 * (reference_auc - auc) / (1 - reference_auc)


def s_mia(auc: float, reference_auc: float) -> float:
    """Return how near an AUC is to the retrained model's, 0 to 1, higher = nearer.

    ``1 - min(1, |AUC - AUC_ref| / AUC_ref)``: 1 where the attack tells of the forget
    set what it tells of a model that never saw it.

    Args:
      auc: Of the unlearned model.
      reference_auc: Of the retrained model; required.

    Raises:
      ValueError: One is not in 0..1, or the reference is 0.

    Source: Dorna et al. 2025, OpenUnlearning, privacy score; UDS's ``s_MIA``.
    """
    check_area("auc", auc)
    check_area("reference_auc", reference_auc)
    if reference_auc == 0:
        raise ValueError(
            f"reference_auc={reference_auc}: there is nothing to divide by; check the "
            f"sign of the scores (higher = less likely a member)"
        )
    return 1 - min(1.0, abs(auc - reference_auc) / reference_auc)


def against_reference(
    score: Callable[[float, float], float],
    forget: np.ndarray,
    holdout: np.ndarray,
    *,
    reference_forget: np.ndarray,
    reference_holdout: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return :func:`privleak` or :func:`s_mia` with its interval over the examples.

    Both models score the same examples, so an example is drawn with both its scores.

    Args:
      score: ``privleak`` or ``s_mia``.
      forget: [n], the unlearned model's scores.
      holdout: [m], the unlearned model's scores.
      reference_forget: [n], the retrained model's scores of the same examples.
      reference_holdout: [m], likewise.
      seed: Of the draws.
      resamples: Draws.
      level: Of the interval.

    Raises:
      ValueError: The sizes differ; or as :func:`auc` and ``score``.

    >>> rng = np.random.default_rng(0)
    >>> f, h = rng.normal(size=(2, 50))
    >>> against_reference(
    ...     privleak, f, h, reference_forget=f, reference_holdout=h, resamples=9
    ... )
    Interval(value=0.0, low=0.0, high=0.0, level=0.95)
    """
    sets = []
    for name, own, other in (
        ("forget", forget, reference_forget),
        ("holdout", holdout, reference_holdout),
    ):
        own, other = scores_of(name, own), scores_of(f"reference_{name}", other)
        if len(own) != len(other):
            raise ValueError(
                f"{name} has {len(own)} scores, reference_{name} {len(other)}: both "
                f"models must score the same examples"
            )
        sets.append(np.stack([own, other], axis=1))

    def compare(forget: np.ndarray, holdout: np.ndarray) -> float:
        areas = (auc(forget[:, i], holdout[:, i]) for i in range(2))
        return score(*areas)

    return bootstrap(compare, *sets, seed=seed, resamples=resamples, level=level)


def scores_of(name: str, scores: np.ndarray) -> np.ndarray:
    """Return scores as float64[n]; refuse what has no order."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"{name} has shape {scores.shape}: at least one score needed")
    bad = np.isnan(scores) | np.isneginf(scores)
    if bad.any():
        raise ValueError(
            f"{name} holds NaN or -inf in {bad.sum()} of {scores.size} scores, first "
            f"at {np.flatnonzero(bad)[0]}: leave such examples out and say so"
        )
    return scores


def check_area(name: str, value: float) -> None:
    """Refuse what is no area under a ROC curve."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: an area under a ROC curve, 0 to 1")
