"""How sure a number is: bootstrap intervals over examples, t intervals over seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """A value and the interval around it.

    Attributes:
      value: The statistic of the samples as they are.
      low: Lower end; NaN where there is none (a single seed).
      high: Upper end.
      level: How often such an interval holds the truth, 0.95 say.
    """

    value: float
    low: float
    high: float
    level: float


def bootstrap(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Interval:
    """Return a percentile bootstrap interval; each sample is resampled on its own.

    Args:
      statistic: ``(*samples) -> float``.
      *samples: Arrays whose leading axis counts examples. Their sizes may differ: the
        forget set and the holdout of a membership score, say.
      seed: Of the draws.
      resamples: Draws; the interval's ends are their quantiles.
      level: Of the interval.

    Raises:
      ValueError: A sample is empty or holds a NaN, or an option is out of range.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    arrays = checked(samples, resamples, level)
    draws = np.random.default_rng(seed)
    values = [
        statistic(*(a[draws.integers(len(a), size=len(a))] for a in arrays))
        for _ in range(resamples)
    ]
    return interval_of(statistic(*arrays), values, level)


def paired_bootstrap(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Interval:
    """Return the interval for samples of the same examples, which are drawn together.

    For differences between two models on one set of examples: what makes an example
    easy for both then cancels. Arguments as in :func:`bootstrap`.

    Raises:
      ValueError: As there, or the samples differ in size.
    """
    arrays = checked(samples, resamples, level)
    sizes = {len(a) for a in arrays}
    if len(sizes) > 1:
        raise ValueError(
            f"samples have {sorted(sizes)} examples: pairs need the same of each"
        )
    (size,) = sizes
    draws = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        rows = draws.integers(size, size=size)
        values.append(statistic(*(a[rows] for a in arrays)))
    return interval_of(statistic(*arrays), values, level)


def mean_interval(values: Any, *, level: float = LEVEL) -> Interval:
    """Return the mean over seeds with its Student-t interval.

    ``mean +- t_{(1+level)/2, n-1} s / sqrt(n)``, with s the standard deviation (n - 1).

    Args:
      values: float[n], one value a seed. One alone has no interval: its ends are NaN.
      level: Of the interval.

    Raises:
      ValueError: There is no value, or one is NaN.
    """
    from scipy.stats import t

    (array,) = checked((values,), 1, level)
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean, float("nan"), float("nan"), level)
    half = t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1)
    half = float(half / np.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half, level)


def interval_of(value: Any, values: list, level: float) -> Interval:
    """Return the interval between the quantiles of resampled values."""
    low, high = np.quantile(
        np.asarray(values, np.float64), [(1 - level) / 2, (1 + level) / 2]
    )
    return Interval(float(value), float(low), float(high), level)


def checked(samples: tuple, resamples: int, level: float) -> list[np.ndarray]:
    """Return the samples as float64 arrays; refuse what has no interval."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: at least 1")
    if not samples:
        raise ValueError("samples: at least one is needed")
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    for number, array in enumerate(arrays):
        if array.ndim == 0 or len(array) == 0:
            raise ValueError(f"samples[{number}] is empty: there is no example in it")
        if np.isnan(array).any():
            raise ValueError(
                f"samples[{number}] holds NaN: leave such examples out and say so"
            )
    return arrays
