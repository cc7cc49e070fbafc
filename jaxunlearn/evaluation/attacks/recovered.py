"""How much more an attack brings back from a model than from one that never knew.

Every attack gives a recovered value, higher = more recovered, for each forgotten
example at each strength. A value alone says little: answers can be guessed, and
relearning teaches them anew. What counts is the difference from a reference retrained
without the examples, attacked in the same way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.intervals import Interval, bootstrap


class Recovered(NamedTuple):
    """What one attack brought back from one model.

    Attributes:
      strengths: K numbers or names: steps, samples, layers, as the attack says.
      values: float64[K, n], of each example at each strength; higher = more recovered.
    """

    strengths: tuple[float | str, ...]
    values: np.ndarray


class Point(NamedTuple):
    """One strength of a curve: the mean over the examples and its interval."""

    x: float | str
    value: float
    low: float
    high: float


class Recovery(NamedTuple):
    """A model against the reference, under one attack.

    Attributes:
      excess: The largest mean difference over the strengths: the most that the attack
        has over what it gets from the reference.
      unattacked: The difference at the first strength, where that is no attack; else
        None. What is there for everyone to see.
      added: The largest growth of the difference beyond ``unattacked``; else None. What
        the attack itself brings back.
      recovers: ``excess.low > least``.
    """

    excess: Interval
    unattacked: Interval | None
    added: Interval | None
    recovers: bool


def curve(
    found: Recovered, *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> list[Point]:
    """Return the mean of each strength with its percentile bootstrap interval."""
    settings = {"seed": seed, "resamples": resamples, "level": level}
    intervals = [bootstrap(np.mean, row, **settings) for row in checked(found)]
    return [
        Point(x, *interval[:3])
        for x, interval in zip(found.strengths, intervals, strict=True)
    ]


def recovery(
    model: Recovered,
    reference: Recovered,
    *,
    starts_unattacked: bool = True,
    least: float = 0.0,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Recovery:
    """Compare what an attack gets from a model with what it gets from the reference.

    With ``d_ki`` the difference of example i at strength k, ``excess = max_k mean_i
    d_ki`` (strength 0 included), and ``added = max_{k>0} mean_i (d_ki - d_0i)``. Of a
    model compared with itself all are exactly 0.

    Args:
      model: Of the model in question.
      reference: Of the retrained model, at the same strengths and examples.
      starts_unattacked: Whether the first strength is no attack.
      least: The excess that counts. Two models always differ a little, and with many
        examples a millionth is surely there and means nothing.
      seed: Of the bootstrap.
      resamples: Of the bootstrap.
      level: Of the intervals, which hold for all strengths at once; see
        :func:`largest_mean`.

    Raises:
      ValueError: Strengths or shapes differ, there is a NaN, or fewer than 2 examples.
    """
    if model.strengths != reference.strengths:
        raise ValueError(
            f"strengths {model.strengths} of the model and {reference.strengths} of "
            f"the reference: attack both alike"
        )
    ours, theirs = checked(model), checked(reference)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"values {ours.shape} of the model and {theirs.shape} of the reference: "
            f"attack both on the same examples"
        )
    settings = {"seed": seed, "resamples": resamples, "level": level}
    differences = ours - theirs
    excess = largest_mean(differences, **settings)
    unattacked = added = None
    if starts_unattacked:
        unattacked = largest_mean(differences[:1], **settings)
        if len(differences) > 1:
            added = largest_mean(differences[1:] - differences[:1], **settings)
    return Recovery(excess, unattacked, added, excess.low > least)


def largest_mean(
    values: np.ndarray, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Return the largest row mean, with an interval that allows for the choice.

    The largest of K estimates is too large by luck alone, more so the larger K. So the
    rows get a simultaneous band, ``mean_k +- c s_k``, with s_k the standard error and c
    the quantile of ``max_k |mean*_k - mean_k| / s_k`` over resamples of the examples;
    the interval is (largest lower end, largest upper end). Rows may depend on each
    other in any way: an example's are drawn together. c is widened by the ratio of
    Student's to the normal quantile, since s_k is estimated.

    Args:
      values: float64[K, n], rows of paired examples.
      seed: Of the bootstrap.
      resamples: Of the bootstrap.
      level: How often all K means lie within their bands.

    Raises:
      ValueError: There are fewer than 2 examples, which have no standard error.

    Source: the max-t band; Romano and Wolf 2005, Exact and approximate stepdown methods
    for multiple hypothesis testing, section 4.

    >>> largest_mean(np.zeros((3, 5)))
    Interval(value=0.0, low=0.0, high=0.0, level=0.95)
    """
    from scipy.stats import norm, t

    values = np.asarray(values, np.float64)
    size = values.shape[1]
    if size < 2:
        raise ValueError(f"values has {size} examples: an interval needs 2 or more")
    means = values.mean(axis=1)
    errors = values.std(axis=1, ddof=1) / np.sqrt(size)
    # A row without spread has no error to scale by, and needs none.
    scale = np.where(errors > 0, errors, 1.0)
    rows = np.random.default_rng(seed).integers(size, size=(resamples, size))
    counts = np.stack([np.bincount(row, minlength=size) for row in rows])
    deviations = np.abs(counts @ values.T / size - means) / scale
    tail = (1 + level) / 2
    widening = t.ppf(tail, size - 1) / norm.ppf(tail) * np.sqrt(size / (size - 1))
    reach = widening * np.quantile(deviations.max(axis=1), level) * errors
    return Interval(
        float(means.max()),
        float((means - reach).max()),
        float((means + reach).max()),
        level,
    )


def checked(found: Recovered) -> np.ndarray:
    """Return the values as float64[K, n]; refuse what has no mean."""
    values = np.asarray(found.values, np.float64)
    if values.ndim != 2 or len(values) != len(found.strengths) or not values.size:
        raise ValueError(
            f"values {values.shape} for {len(found.strengths)} strengths: "
            f"[strengths, examples] needed, at least one of each"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "values holds a number that is not finite: is the model sound?"
        )
    return values


def largest_so_far(values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return each example's best value over the first 1, 2, ... attempts, [K, n]."""
    return np.maximum.accumulate(np.asarray(values, np.float64), axis=0)
