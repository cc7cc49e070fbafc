"""How far a model's scores lie from those of models that were really retrained."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Distance(NamedTuple):
    """Where a score of one model stands among those of N retrained models.

    Attributes:
      value: The model's score.
      mean: Of the retrained models' scores.
      z: (value - mean) / their standard deviation; infinite if they all agree on
        another value.
      low: Lower end of the interval in which one more retrained model would fall.
      high: Upper end.
      p_value: Share of retrained models that stand at least as far out, the model
        itself counted as one; at least 1 / (N + 1).
      models: N.
    """

    value: float
    mean: float
    z: float
    low: float
    high: float
    p_value: float
    models: int


def retrained_distance(
    values_of_model: Mapping[str, float],
    values_of_retrained: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
) -> dict[str, Distance]:
    """Return where each score of a model stands among those of N retrained models.

    With mean m and standard deviation s (n - 1) of the retrained models' scores,
    ``z = (v - m) / s``; one more retrained model falls within
    ``m +- t_{(1+level)/2, N-1} s sqrt(1 + 1/N)``, if scores are Gaussian. The p-value
    asks for no such thing: with c the mean of all N + 1 scores it is
    ``(1 + #{i: |r_i - c| >= |v - c|}) / (N + 1)``, and if the model is as good as
    retrained, p <= a happens with probability at most a. Fewer than 19 models cannot
    reach 0.05.

    Args:
      values_of_model: Scores by name.
      values_of_retrained: Of the same names, one value a model, N >= 2.
      level: Of the interval.

    Returns:
      A distance a score, in the order of ``values_of_model``.

    Raises:
      ValueError: A name stands in one of the two only, has fewer than two retrained
        values, or a value is not finite.

    Source: Vovk et al. 2005, Algorithmic learning in a random world (the
    p-value); Whitmore 1986, Prediction limits for a univariate normal observation.

    >>> found = retrained_distance({"loss": 5.0}, {"loss": [1.0, 2.0, 3.0]})["loss"]
    >>> found.z, found.p_value
    (3.0, 0.25)
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level={level}: between 0 and 1")
    alone = sorted(set(values_of_model) ^ set(values_of_retrained))
    if alone:
        raise ValueError(
            f"{', '.join(alone)}: in only one of values_of_model and "
            f"values_of_retrained; a distance needs the score of both"
        )
    found = {}
    for name, given in values_of_model.items():
        value, others = float(given), np.asarray(values_of_retrained[name], np.float64)
        if others.ndim != 1 or len(others) < 2:
            raise ValueError(f"{name}: the values of at least two retrained models")
        if not (np.isfinite(value) and np.isfinite(others).all()):
            raise ValueError(f"{name}: a value is not finite")
        count, mean, deviation = len(others), others.mean(), others.std(ddof=1)
        if others.min() == others.max():  # else rounding of the mean would count
            mean, deviation = others[0], 0.0
        half = t.ppf((1 + level) / 2, count - 1) * deviation * np.sqrt(1 + 1 / count)
        everyone = np.append(others, value)
        out = np.abs(everyone - everyone.mean())
        z = float(value - mean)
        if z != 0:
            z = z / deviation if deviation > 0 else math.copysign(math.inf, z)
        found[name] = Distance(
            value,
            float(mean),
            float(z),
            float(mean - half),
            float(mean + half),
            float((out >= out[-1]).mean()),
            count,
        )
    return found
