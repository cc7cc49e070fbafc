"""Several scores in one number, and how far a score itself can be trusted.

Means are harmonic, so a model is as good as its worst side: a single 0 makes 0. All
numbers lie between 0 and 1 and higher = better unlearned, unless said otherwise.
Sources: Dorna et al. 2025 (OpenUnlearning); UDS is gnueaj/unlearning-depth-score.
"""

import numpy as np

from jaxunlearn.evaluation.membership import roc
from jaxunlearn.evaluation.text.utility import harmonic_mean


def memorization_score(
    *,
    extraction_strength: float,
    exact_memorization: float,
    paraphrase_probability: float,
    truth_ratio: float,
) -> float:
    """Return ``Mem = HM(1 - ES, 1 - EM, 1 - P(a~), 1 - TR)`` of the forget set.

    Args:
      extraction_strength: Mean over the forget set.
      exact_memorization: Mean over the forget set.
      paraphrase_probability: Mean probability of the paraphrased answers.
      truth_ratio: Mean of ``c / (c + w)``
        (:func:`~jaxunlearn.evaluation.text.utility.share_of_truth`).

    Returns:
      0 to 1, higher = remembers less.

    Raises:
      ValueError: A number is not in 0..1.
    """
    parts = {
        "extraction_strength": extraction_strength,
        "exact_memorization": exact_memorization,
        "paraphrase_probability": paraphrase_probability,
        "truth_ratio": truth_ratio,
    }
    check_shares(**parts)
    return harmonic_mean([1 - x for x in parts.values()])


def privacy_score(*, loss: float, zlib: float, min_k: float, min_k_pp: float) -> float:
    """Return the harmonic mean of :func:`~.roc.s_mia` of four attacks.

    UDS's own aggregate puts its depth score beside it: ``harmonic_mean([privacy,
    uds])``.

    Returns:
      0 to 1, higher = nearer to the retrained model in what the attacks see.

    Raises:
      ValueError: A number is not in 0..1.
    """
    parts = {"loss": loss, "zlib": zlib, "min_k": min_k, "min_k_pp": min_k_pp}
    check_shares(**parts)
    return harmonic_mean(list(parts.values()))


def relative_utility(utility: float, full_utility: float) -> float:
    """Return ``min(1, utility / full_utility)``: what is left of the full model's.

    Args:
      utility: Of the unlearned model, 0 or more: the harmonic mean of model utility
        and fluency in OpenUnlearning; model utility alone where fluency, which needs
        a classifier, is not measured. Say which.
      full_utility: The same of the model before unlearning; required.

    Raises:
      ValueError: One is negative or not finite, or the full model has none.
    """
    check_finite(utility=utility, full_utility=full_utility)
    if utility < 0 or full_utility <= 0:
        raise ValueError(
            f"utility={utility}, full_utility={full_utility}: 0 or more, and above 0"
        )
    return min(1.0, utility / full_utility)


def aggregate(*, memorization: float, privacy: float, utility: float) -> float:
    """Return ``Agg = HM(Mem, Privacy, Utility)``, by which methods are ranked.

    Args:
      memorization: :func:`memorization_score`.
      privacy: :func:`privacy_score`; or the harmonic mean of it and the depth score,
        which is UDS's variant.
      utility: :func:`relative_utility`.

    Returns:
      0 to 1, higher = better unlearned; 0 where one of them is 0.

    Raises:
      ValueError: A number is not in 0..1.

    >>> round(aggregate(memorization=0.589, privacy=0.952, utility=0.926), 3)
    0.784
    """
    check_shares(memorization=memorization, privacy=privacy, utility=utility)
    return harmonic_mean([memorization, privacy, utility])


def relearning_robustness(
    *,
    before: float,
    after: float,
    reference_before: float,
    reference_after: float,
    symmetric: bool = False,
) -> float:
    """Return how little of a metric's verdict relearning undoes.

    ``R = min(D_ref / D, 1)`` with ``D = after - before``: both models are trained on
    the forget set for a while, and knowledge that was hidden, not removed, comes back
    faster than it is learned anew. Defined by the authors for the metric (does it see
    what is left?), it is as much a number about the model.

    Args:
      before: The metric of the unlearned model.
      after: The same after relearning.
      reference_before: Of the retrained model; required.
      reference_after: The same after the same relearning.
      symmetric: ``1 - |D - D_ref| / (|D| + |D_ref|)``, UDS's, which also holds it
        against a metric if the unlearned model relearns more slowly.

    Returns:
      0 to 1, higher = more robust. The sign of the metric does not matter as long as
      relearning moves the reference at all. Where the reference does not move, or the
      two move apart, 0; 1 where neither moves, or only the reference does. (The ratio
      is undefined, or negative, there.)

    Raises:
      ValueError: A number is not finite.
    """
    check_finite(
        before=before,
        after=after,
        reference_before=reference_before,
        reference_after=reference_after,
    )
    own, other = after - before, reference_after - reference_before
    if symmetric:
        return agreement(own, other)
    if own == 0:
        return 1.0
    return float(np.clip(other / own, 0.0, 1.0))


def quantization_robustness(
    *,
    before: float,
    after: float,
    higher_is_recovered: bool = True,
    symmetric: bool = False,
) -> float:
    """Return how little of what was forgotten quantising the weights brings back.

    ``Q = min(before / after, 1)`` of a metric that is higher where more is known; of
    one that is higher where more is forgotten ``min(after / before, 1)``.

    Args:
      before: The metric of the unlearned model, 0 or more.
      after: The same of the quantised model.
      higher_is_recovered: Whether higher means that more is known (extraction
        strength) or forgotten (one minus it). UDS's last script has ``after /
        before`` for metrics of both kinds, so that recovering costs nothing: False
        gives its number.
      symmetric: ``1 - |after - before| / (|after| + |before|)``, UDS's, which
        counts a change in either direction.

    Returns:
      0 to 1, higher = more robust; 1 where both are 0.

    Raises:
      ValueError: A number is negative or not finite.
    """
    check_finite(before=before, after=after)
    if before < 0 or after < 0:
        raise ValueError(f"before={before}, after={after}: must be 0 or more")
    if symmetric:
        return agreement(before, after)
    known, recovered = (before, after) if higher_is_recovered else (after, before)
    return 1.0 if recovered <= known else known / recovered


def faithfulness(present: np.ndarray, absent: np.ndarray) -> float:
    """Return how well a metric tells models that know from models that do not.

    The probability that the metric of a model trained on the forget set is above that
    of one never trained on it, ties cut in half.

    Args:
      present: Metric of models with the knowledge; OpenUnlearning has 30 of each.
      absent: Of models without it.

    Returns:
      0 to 1; 1 = always higher with the knowledge, 0.5 = blind, 0 = always lower (a
      metric of forgetting: take one minus it).

    Raises:
      ValueError: A set is empty or holds a NaN.
    """
    return roc.auc(absent, present)


def agreement(a: float, b: float) -> float:
    """Return ``1 - |a - b| / (|a| + |b|)``: 1 where equal, 0 where one is 0."""
    size = abs(a) + abs(b)
    return 1.0 if size == 0 else 1 - abs(a - b) / size


def check_shares(**values: float) -> None:
    """Refuse what does not lie between 0 and 1, NaN included."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: must lie between 0 and 1")


def check_finite(**values: float) -> None:
    """Refuse NaN and infinity."""
    for name, value in values.items():
        if not np.isfinite(value):
            raise ValueError(f"{name}={value} is not a finite number")
