"""An unlearned model, or several, beside models that were really retrained.

Retraining is random, so the truth is a distribution: what N retrained models say of an
example. Each measure here asks whether the unlearned models could be drawn from it. A
finite number of models gives any of them a value above its ideal even when nothing is
wrong; :func:`noise_floor` says which, and a value means little without it.

Arrays of ensembles are [models, examples], of a margin that tells members apart: see
``margins.py``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxunlearn.evaluation.retrained.margins import MARGIN_LIMIT

PAIRS_AT_A_TIME = 2**21


class Klom(NamedTuple):
    """KL divergence of margins: of each example, and over the examples.

    Attributes:
      per_example: float64[n].
      mean: Over the examples.
      median: Over the examples.
      p95: 95th percentile, the number that is quoted.
      p99: 99th percentile.
    """

    per_example: np.ndarray
    mean: float
    median: float
    p95: float
    p99: float


class LikelihoodRatioAttack(NamedTuple):
    """How well an attacker tells unlearned from retrained models; 0.5 is chance.

    Attributes:
      accuracy: Share of models that are told right, the mean over the examples.
      auc: Area under the ROC curve, the mean over the examples.
      accuracy_per_example: float64[n].
      auc_per_example: float64[n].
    """

    accuracy: float
    auc: float
    accuracy_per_example: np.ndarray
    auc_per_example: np.ndarray


def klom(
    unlearned: np.ndarray,
    oracle: np.ndarray,
    *,
    bins: int = 20,
    clip: float = MARGIN_LIMIT,
    floor: float = 1e-5,
    compat: str | None = None,
) -> Klom:
    """Return ``KL(p || q)`` of each example's margins in unlearned and oracle models.

    p and q are histograms of the margins, clipped to +-``clip``, in equal bins over
    their joint range; ``KL = sum_{p > 0} p log(p / max(q, floor))`` in nats.

    Args:
      unlearned: [N, n] margins in the unlearned models.
      oracle: [M, n] margins in the retrained models.
      bins: Of the histograms.
      clip: Margins beyond +-clip count as that.
      floor: Least probability of a bin under the oracle.
      compat: ``"official"`` drops every margin on the top edge, the largest of an
        example, as the reference code does (``np.digitize`` puts it into a bin of its
        own, which is not counted). None counts it into the last bin, which is right:
        else the surest models, those that leak, are the ones not seen.

    Returns:
      Lower = closer to retraining; 0 for equal histograms, ``log(1 / floor)`` where
      all unlearned models share a bin that no oracle is in. With few models equal
      distributions give far more than 0 (see :func:`noise_floor`): 100 are usual.

    Raises:
      ValueError: Shapes do not fit, a margin is not finite, or an option out of range.

    Source: Georgiev et al. 2024, Attribute-to-Delete, arXiv 2410.23232;
    ``easydub/eval.py`` of EasyDUB.
    """
    unlearned, oracle = checked_ensembles(unlearned, oracle, least=1)
    if bins < 1 or not clip > 0 or not 0 < floor < 1:
        raise ValueError(
            f"bins={bins}, clip={clip}, floor={floor}: at least 1, more than 0, and "
            f"between 0 and 1"
        )
    if compat not in (None, "official"):
        raise ValueError(f'compat={compat!r}: "official" or None')
    unlearned, oracle = (np.clip(x, -clip, clip) for x in (unlearned, oracle))
    low = np.minimum(unlearned.min(axis=0), oracle.min(axis=0))
    high = np.maximum(unlearned.max(axis=0), oracle.max(axis=0))
    edges = np.linspace(low, np.where(low < high, high, low + 1.0), bins + 1)

    def histogram(margins: np.ndarray) -> np.ndarray:
        reached = np.stack([(margins >= edge).sum(axis=0) for edge in edges])
        if compat is None:
            reached[-1] = 0
        counts = reached[:-1] - reached[1:]
        return counts / np.maximum(counts.sum(axis=0), 1)

    p, q = histogram(unlearned), np.maximum(histogram(oracle), floor)
    divergence = (p * np.log(np.where(p > 0, p, q) / q)).sum(axis=0)
    percentiles = np.percentile(divergence, [50, 95, 99]).tolist()
    return Klom(divergence, float(divergence.mean()), *percentiles)


def u_lira(
    unlearned: np.ndarray,
    retrained: np.ndarray,
    *,
    shared_variance: bool = False,
    least_deviation: float = 1e-6,
) -> LikelihoodRatioAttack:
    """Return how well likelihood ratios tell unlearned from retrained models.

    Of each example, Gaussians are fitted to the margins of both ensembles, and a model
    with margin x is called unlearned if ``log N(x; unlearned) > log N(x; retrained)``.
    For each pair of an unlearned and a retrained model, both are left out of the fit
    and then judged. So the two are treated alike, and where the ensembles have one
    distribution the expected accuracy and AUC are 0.5 whatever the number of models.

    Args:
      unlearned: [N, n] margins, N >= 3.
      retrained: [M, n] margins, M >= 3.
      shared_variance: One variance an ensemble, the mean over the examples, as Carlini
        et al. advise for few models (below 64 or so); else each example has its own.
      least_deviation: The Gaussians' standard deviation is at least this.

    Returns:
      Lower = closer to retraining; 0.5 is chance, 1 told apart always.

    Raises:
      ValueError: Shapes do not fit, there are fewer than 3 models, or a margin is not
        finite.

    Cost: N M n densities, twice; memory for some millions.

    Source: Hayes et al. 2024, Inexact unlearning needs more careful evaluations,
    arXiv 2403.01218 (U-LiRA, which judges models that took no part in the
    fit; leaving out pairs does so with the fewest models).
    """
    unlearned, retrained = checked_ensembles(unlearned, retrained, least=3)
    if not least_deviation > 0:
        raise ValueError(f"least_deviation={least_deviation}: more than 0")

    def fits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(values)
        apart = values - values.mean(axis=0)
        squares = (apart**2).sum(axis=0) - apart**2 * count / (count - 1)
        variance = np.maximum(squares, 0) / (count - 2)
        if shared_variance:
            variance = variance.mean(axis=1, keepdims=True) + 0 * apart
        mean = values.mean(axis=0) - apart / (count - 1)
        return mean, np.sqrt(np.maximum(variance, least_deviation**2))

    def log_density(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray):
        return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)

    def share(difference: np.ndarray) -> np.ndarray:
        return ((np.sign(difference) + 1) / 2).mean(axis=(0, 1))

    mean_u, deviation_u = (x[:, None] for x in fits(unlearned))
    mean_r, deviation_r = (x[None] for x in fits(retrained))
    u, r = unlearned[:, None], retrained[None]
    size = max(1, PAIRS_AT_A_TIME // (len(unlearned) * len(retrained)))
    accuracy, auc = [], []
    for first in range(0, unlearned.shape[1], size):
        k = np.s_[:, :, first : first + size]
        gaussians = (mean_u[k], deviation_u[k]), (mean_r[k], deviation_r[k])
        of_u, of_r = (
            log_density(x[k], *gaussians[0]) - log_density(x[k], *gaussians[1])
            for x in (u, r)
        )
        accuracy.append((share(of_u) + share(-of_r)) / 2)
        auc.append(share(of_u - of_r))
    accuracy, auc = np.concatenate(accuracy), np.concatenate(auc)
    return LikelihoodRatioAttack(
        float(accuracy.mean()), float(auc.mean()), accuracy, auc
    )


def noise_floor(
    measure: Callable[[np.ndarray, np.ndarray], float],
    retrained: np.ndarray,
    *,
    splits: int = 20,
    seed: int = 0,
) -> np.ndarray:
    """Return what a measure gives where there is nothing to find.

    Args:
      measure: ``(ensemble, ensemble) -> float``, such as
        ``lambda u, r: klom(u, r).p95``.
      retrained: [M, n], M >= 2.
      splits: Times the retrained models are cut in two random halves, one of which
        plays the unlearned models.
      seed: Of the cuts.

    Returns:
      float64[splits]. The halves are smaller than the ensembles, so for the measures
      here this is rather more than the floor of the whole.

    Raises:
      ValueError: Fewer than 2 models or 1 split.
    """
    retrained = np.asarray(retrained)
    if len(retrained) < 2 or splits < 1:
        raise ValueError(
            f"{len(retrained)} models, splits={splits}: at least 2 and 1 needed"
        )
    draw, half = np.random.default_rng(seed), len(retrained) // 2
    orders = [draw.permutation(len(retrained)) for _ in range(splits)]
    return np.array(
        [float(measure(retrained[o[:half]], retrained[o[half:]])) for o in orders]
    )


def checked_ensembles(
    unlearned: np.ndarray, retrained: np.ndarray, *, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 [models, examples]; refuse what cannot be compared."""
    unlearned = np.asarray(unlearned, np.float64)
    retrained = np.asarray(retrained, np.float64)
    shapes = unlearned.shape, retrained.shape
    if any(len(s) != 2 for s in shapes) or shapes[0][1:] != shapes[1][1:]:
        raise ValueError(
            f"ensembles of shape {shapes[0]} and {shapes[1]}: [models, examples] of "
            f"the same examples needed"
        )
    if unlearned.shape[1] == 0 or min(len(unlearned), len(retrained)) < least:
        raise ValueError(
            f"ensembles of shape {shapes[0]} and {shapes[1]}: at least {least} models "
            f"each and 1 example needed"
        )
    if not (np.isfinite(unlearned).all() and np.isfinite(retrained).all()):
        raise ValueError("an ensemble holds a number that is not finite")
    return unlearned, retrained
