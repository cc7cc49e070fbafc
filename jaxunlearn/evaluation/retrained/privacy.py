"""How well the best threshold tells unlearned from retrained: epsilon of privacy.

An unlearning method is (epsilon, delta)-indistinguishable from retraining if every rule
that tells their models apart has ``TPR <= exp(epsilon) FPR + delta``, whichever of the
two is called positive. The rules tried here are thresholds on a score, so what comes
out bounds epsilon from below; the finite number of models bounds what can be seen.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.evaluation.retrained.ensembles import checked_ensembles

DELTA = 1e-5
BUCKET = 0.5
INTERVALS_AT_A_TIME = 2**21
LEAST_RATE = 1e-10


class Epsilon(NamedTuple):
    """Epsilon of each example, and the forgetting score that they make up.

    Attributes:
      per_example: float64[n], 0 to ``cap``; lower = closer to retraining.
      mean: Over the examples.
      score: 0 to 1, higher = closer to retraining.
      largest: The most that so many models can show short of perfect separation.
    """

    per_example: np.ndarray
    mean: float
    score: float
    largest: float


def epsilon(
    unlearned: np.ndarray,
    retrained: np.ndarray,
    *,
    delta: float = DELTA,
    buffer: float = 2.0,
    peaked: float = 0.01,
    cap: float = 50.0,
) -> Epsilon:
    """Return the epsilon of each example, and the NeurIPS 2023 forgetting score.

    Of each example, rules call a model positive by its margin x, and the best counts:
    ``epsilon = max over rules of max(log((1 - delta - FPR) / FNR),
    log((1 - delta - FNR) / FPR), 0)``. Two families of rules: ``x >= t``, where
    positive is the ensemble with the larger median; and ``l <= x <= r``, where positive
    is the ensemble with the narrower range, of width w and maximum m, with
    ``|r - m| <= buffer`` and ``|r - l - w| <= buffer``. A rule without any error gives
    ``cap``; one with errors of one kind only is passed over, as a sign of too few
    models. An ensemble whose range is below ``peaked`` times the other's gives ``cap``.

    The score is the mean over the examples of ``2^-floor(epsilon / 0.5)``, and 0 for an
    example with ``epsilon >= ceil(log(models - 1))``.

    Args:
      unlearned: [N, n] margins, N >= 3.
      retrained: [M, n] margins, M >= 3.
      delta: Of the definition.
      buffer: Of the second family, in units of the margin.
      peaked: A ratio of ranges; 0 switches that off.
      cap: The largest epsilon.

    Returns:
      Equal ensembles give epsilon 0 and score 1. Different draws from one distribution
      give more than 0 (see ``noise_floor``), since the best of many rules is taken.

    Raises:
      ValueError: Shapes do not fit, there are fewer than 3 models, a margin is not
        finite, or an option is out of range.

    Cost: (N + M)^2 n rules; memory for some millions.

    Source: Triantafillou et al. 2024, Are we making progress in unlearning?, arXiv
    2406.09073; ``metric.py`` of google-deepmind/unlearning_evaluation. There,
    thresholds lie on a grid of 100 a unit, so rules between two of its points are
    missed, and the outcome depends on where the grid begins; here every cut that the
    margins allow is tried. There N = M; here ``models`` is the smaller of both.
    """
    unlearned, retrained = checked_ensembles(unlearned, retrained, least=3)
    if not 0 <= delta < 0.5 or buffer < 0 or peaked < 0 or not cap > 0:
        raise ValueError(
            f"delta={delta}, buffer={buffer}, peaked={peaked}, cap={cap}: from 0 to "
            f"below 0.5; 0 or more; 0 or more; more than 0"
        )
    counts = len(unlearned), len(retrained)
    size = max(1, INTERVALS_AT_A_TIME // (sum(counts) + 1) ** 2)
    found = []
    for first in range(0, unlearned.shape[1], size):
        u, r = (x[:, first : first + size].T for x in (unlearned, retrained))
        sides = sorted_sides(u, r)
        best = np.maximum(
            one_sided(sides, delta, cap), two_sided(sides, delta, cap, buffer)
        )
        ranges = np.sort([np.ptp(u, axis=1), np.ptp(r, axis=1)], axis=0)
        found.append(np.where(ranges[0] < peaked * ranges[1], cap, best))
    per_example = np.concatenate(found)
    fewest = min(counts)
    buckets = np.ceil(np.log(fewest - 1)) / BUCKET
    bucket = np.floor(per_example / BUCKET)
    score = np.where(bucket < buckets, 0.5**bucket, 0.0).mean()
    # One error of each kind, the least of them there can be.
    largest = max(np.log(a * (1 - delta - 1 / b)) for a, b in (counts, counts[::-1]))
    return Epsilon(
        per_example, float(per_example.mean()), float(score), float(min(largest, cap))
    )


def forgetting_quality(
    unlearned: np.ndarray,
    retrained: np.ndarray,
    *,
    thresholds: np.ndarray | None = None,
    delta: float = DELTA,
) -> float:
    """Return ``2^-epsilon`` of the best threshold between two models.

    One unlearned and one retrained model, over examples: where :func:`epsilon` compares
    many models on each example, this compares two on many. At a threshold t one model
    is called positive where its score is >= t; ``epsilon = max(0, min(log((1 - delta -
    FPR) / FNR), log((1 - delta - FNR) / FPR)))``, so a threshold must be good at both
    errors, each taken to be at least 1e-10. Both models play the positive one.

    Args:
      unlearned: [n] scores of the forgotten examples in the unlearned model, such as
        margins or entropies.
      retrained: [m] the same of the retrained model.
      thresholds: To try; None is every value that occurs.
      delta: Of the definition.

    Returns:
      0 to 1, higher = closer to retraining: 1 nothing tells them apart, 0 a threshold
      without error. The attack's score is 1 minus this.

    Raises:
      ValueError: Scores are no vectors, empty or not finite; or delta out of range.

    Source: Unlearning Comparator, arXiv 2508.12730, whose code has 51 thresholds from
    -2.5 to 10 for margins and from 0 to 2.5 for entropies at temperature 2, and clips
    scores to that range: ``thresholds=np.linspace(-2.5, 10, 51)[1:]`` gives its number
    (at the first of them everything is positive, which says nothing). Its privacy score
    is the least of this over margins and entropies.

    >>> forgetting_quality([0.0, 1.0], [0.0, 1.0]), forgetting_quality([0.0], [1.0])
    (1.0, 0.0)
    """
    if not 0 <= delta < 0.5:
        raise ValueError(f"delta={delta}: from 0 to below 0.5")
    models = {"unlearned": unlearned, "retrained": retrained}
    models = {name: np.asarray(x, np.float64) for name, x in models.items()}
    for name, scores in models.items():
        if scores.ndim != 1:
            raise ValueError(f"{name} {scores.shape}: one score an example needed")
        if scores.size == 0 or not np.isfinite(scores).all():
            raise ValueError(f"{name} is empty or holds a number that is not finite")
    if thresholds is None:
        thresholds = np.concatenate(list(models.values()))
    elif len(thresholds) == 0:
        raise ValueError("thresholds is empty: None tries every score that occurs")
    below_u, below_r = (
        np.searchsorted(np.sort(x), thresholds) / len(x) for x in models.values()
    )
    fnr, fpr = np.array([[below_u, below_r], [1 - below_r, 1 - below_u]])
    tells = (fpr < 1 - delta) & (fnr < 1 - delta)
    a, b = (np.clip(x, LEAST_RATE, 1 - delta - LEAST_RATE) for x in (fpr, fnr))
    least = np.minimum(np.log((1 - delta - a) / b), np.log((1 - delta - b) / a))
    quality = np.where(tells, 2.0 ** -np.maximum(least, 0), 1.0)
    return float(np.where((fpr == 0) & (fnr == 0), 0.0, quality).min())


class Sides(NamedTuple):
    """Sorted margins of each example, and whose lie below each cut between them.

    Cut k, from 0 to K = N + M, has the k least margins below it. ``higher`` is the
    ensemble with the larger median, ``lower`` the other.
    """

    values: np.ndarray  # float64[c, K]
    possible: np.ndarray  # bool[c, K+1]: no two equal margins are parted
    higher: np.ndarray  # float64[c, K+1]: share of the ensemble below the cut
    lower: np.ndarray
    higher_ends: np.ndarray  # float64[2, c]: least and largest margin
    lower_ends: np.ndarray


def sorted_sides(u: np.ndarray, r: np.ndarray) -> Sides:
    """Sort the margins of both ensembles, [c, N] and [c, M]."""
    values = np.concatenate([u, r], axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    values = np.take_along_axis(values, order, axis=1)
    of_u = np.pad(np.cumsum(order < u.shape[1], axis=1), ((0, 0), (1, 0)))
    of_r = np.arange(values.shape[1] + 1) - of_u
    apart = np.diff(values, axis=1) > 0
    swap = np.median(r, axis=1) > np.median(u, axis=1)
    below_u, below_r = of_u / u.shape[1], of_r / r.shape[1]
    return Sides(
        values,
        np.pad(apart, ((0, 0), (1, 1)), constant_values=True),
        np.where(swap[:, None], below_r, below_u),
        np.where(swap[:, None], below_u, below_r),
        np.where(swap, ends(r), ends(u)),
        np.where(swap, ends(u), ends(r)),
    )


def ends(margins: np.ndarray) -> np.ndarray:
    """Return the least and the largest of each row, [2, c]."""
    return np.stack([margins.min(axis=1), margins.max(axis=1)])


def one_sided(sides: Sides, delta: float, cap: float) -> np.ndarray:
    """Return the best epsilon of ``x >= t``, positive the higher ensemble."""
    return best(1 - sides.lower, sides.higher, sides.possible, delta, cap)


def two_sided(sides: Sides, delta: float, cap: float, buffer: float) -> np.ndarray:
    """Return the best epsilon of ``l <= x <= r``, positive the narrower ensemble."""
    width_of_higher = sides.higher_ends[1] - sides.higher_ends[0]
    width_of_lower = sides.lower_ends[1] - sides.lower_ends[0]
    swap = width_of_higher >= width_of_lower
    narrow = np.where(swap[:, None], sides.lower, sides.higher)
    wide = np.where(swap[:, None], sides.higher, sides.lower)
    width = np.minimum(width_of_higher, width_of_lower)[:, None, None]
    top = np.where(swap, sides.lower_ends[1], sides.higher_ends[1])[:, None, None]
    # The margins between cuts i < j are called positive by some l in (before, first]
    # and r in [last, after). Which are within the buffers?
    padded = np.pad(sides.values, ((0, 0), (1, 1)), constant_values=(-np.inf, np.inf))
    before, first = padded[:, :-1, None], padded[:, 1:, None]
    last, after = padded[:, None, :-1], padded[:, None, 1:]
    cuts = np.arange(padded.shape[1] - 1)
    tried = sides.possible[:, :, None] & sides.possible[:, None, :]
    tried &= cuts[:, None] < cuts[None, :]
    tried &= (last <= top + buffer) & (after > top - buffer)
    shortest = np.maximum(last, top - buffer) - first
    longest = np.minimum(after, top + buffer) - before
    tried &= (shortest <= width + buffer) & (longest > width - buffer)

    def inside(below: np.ndarray) -> np.ndarray:
        return below[:, None, :] - below[:, :, None]

    return best(inside(wide), 1 - inside(narrow), tried, delta, cap)


def best(
    fpr: np.ndarray, fnr: np.ndarray, tried: np.ndarray, delta: float, cap: float
) -> np.ndarray:
    """Return the largest epsilon over the rules that were tried, all axes but one."""
    rules = tuple(range(1, fpr.ndim))
    usable = tried & (fpr > 0) & (fnr > 0)
    ratios = np.ones_like(fpr)
    for one, other in ((fpr, fnr), (fnr, fpr)):
        ratio = np.divide(1 - delta - one, other, where=usable, out=np.ones_like(fpr))
        ratios = np.maximum(ratios, ratio)
    perfect = (tried & (fpr == 0) & (fnr == 0)).any(axis=rules)
    return np.where(perfect, cap, np.minimum(np.log(ratios.max(axis=rules)), cap))
