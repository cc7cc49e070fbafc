"""Where parameters moved, what lies on the line between two models, and mixing them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.models.parts import part_of, place_of
from jaxunlearn.types import Params

Measure = Callable[[Params], float]


class LinearPath(NamedTuple):
    """Losses along the line from one model to another.

    Attributes:
      t: float64[p], ascending from 0 to 1.
      losses: By name, float64[p].
      barrier: By name, the greatest rise above the line through the two ends; NaN or
        infinite where a loss on the way is.
    """

    t: np.ndarray
    losses: dict[str, np.ndarray]
    barrier: dict[str, float]


class MixTrial(NamedTuple):
    """One mixture that was measured."""

    rho: float  # share of the original
    score: float  # retain score there


class Mix(NamedTuple):
    """A mixture of the unlearned model and the original.

    Status: ``unneeded`` (the unlearned model holds the bar as it is); ``reached``;
    ``not_monotone`` (``params`` hold the bar, but a larger rho that was tried does not:
    what the least rho is, is not certain; do not compare methods at it).
    """

    params: Params
    rho: float
    status: str
    bar: float  # the score to hold, tau times the original's
    trials: tuple[MixTrial, ...]  # by rho


def parameter_distance(
    before: Params, after: Params, *, stacked: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    """Return how far each layer moved, relative to its own size.

    ``|after - before|_F / |before|_F`` over all parameters of a layer.

    Args:
      before: Parameters to measure from.
      after: Parameters of the same shapes.
      stacked: Folders of stacked layers, as for :func:`jaxunlearn.tree.select`.

    Returns:
      Rows ``{"layer", "parameter_distance"}``: ``wte``, ``wpe``, ``h/0`` ...,
      ``ln_f``. 0 = untouched, no upper end; None for a layer of zeros that moved, which
      has no relative distance. How far is right is what the retrained model says.

    Raises:
      ValueError: The two are not of one shape; the message names the leaf.

    Cost: one reading of both; sums in float32.
    """
    check_same_shapes(before, after, dtypes=False)
    sums: dict[str, np.ndarray] = {}
    folders = tree.stacked_folders(before) if stacked is None else stacked
    for (name, a), (_, b) in zip(
        tree.named_leaves(before), tree.named_leaves(after), strict=True
    ):
        names = tree.layer_names(name, a, folders)
        a, b = (jnp.asarray(x, jnp.float32).reshape(len(names), -1) for x in (a, b))
        squares = [jnp.sum(jnp.square(x), axis=1) for x in (b - a, a)]
        for one, moved, size in zip(names, *map(np.asarray, squares), strict=True):
            pair = np.array([moved, size], np.float64)
            sums[part_of(one)] = sums.get(part_of(one), 0) + pair
    layers = sorted(sums, key=place_of)
    return [
        {"layer": layer, "parameter_distance": relative(*sums[layer])}
        for layer in layers
    ]


def relative(moved: float, size: float) -> float | None:
    """Return the root of the quotient; 0 for nothing moved, None for moved from 0."""
    if size == 0:
        return 0.0 if moved == 0 else None
    return math.sqrt(moved / size)


def interpolate(start: Params, end: Params, t: float) -> Params:
    """Return ``start + t (end - start)``, in the dtypes of ``start``.

    The ends are exact: t = 0 gives ``start`` and t = 1 ``end``, bit for bit. In between
    it is ``(1 - t) start + t end`` in float32, so that what is equal stays equal (to
    rounding).

    Raises:
      ValueError: The two are not of one shape and dtype, or t is not finite.
    """
    check_same_shapes(start, end)
    if not math.isfinite(t):
        raise ValueError(f"t={t} is not a number")
    if t in (0, 1):
        return end if t else start

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        a32, b32 = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        return ((1 - t) * a32 + t * b32).astype(a.dtype)

    return jax.tree.map(between, start, end)


def linear_path(
    losses: Mapping[str, Measure],
    start: Params,
    end: Params,
    *,
    points: int | Sequence[float] = 11,
) -> LinearPath:
    """Return losses along ``theta(t) = start + t (end - start)``, and their barriers.

    ``barrier = max_t [L(t) - (1 - t) L(0) - t L(1)]``, at least 0. No barrier in the
    retain loss between the unlearned and the retrained model: both lie in one basin.

    Args:
      losses: Functions of parameters by name, such as the forget and the retain loss.
      start: theta at t = 0.
      end: theta at t = 1, of the same shapes.
      points: How many values of t, evenly from 0 to 1, at least 2; or the values
        themselves, ascending from 0 to 1.

    Raises:
      ValueError: There is no loss, the points do not run from 0 to 1, or the two are
        not of one shape and dtype.

    Cost: one evaluation of each loss a point.

    Source: Frankle et al. 2020, Linear mode connectivity (arXiv 1912.05671), with the
    height above the chord as in Entezari et al. 2022 (arXiv 2110.06296).
    """
    if not losses:
        raise ValueError("losses is empty: there is nothing to measure")
    if isinstance(points, int):
        t = np.linspace(0.0, 1.0, points) if points >= 2 else np.empty(0)
    else:
        t = np.asarray(points, np.float64)
    runs = t.ndim == 1 and len(t) >= 2 and t[0] == 0 and t[-1] == 1
    if not (runs and (np.diff(t) > 0).all()):
        raise ValueError(
            f"points={points!r}: a number of at least 2, or values that ascend from 0 "
            f"to 1"
        )
    check_same_shapes(start, end)
    values: dict[str, list[float]] = {name: [] for name in losses}
    for place in t:
        params = interpolate(start, end, float(place))
        for name, loss in losses.items():
            values[name].append(float(loss(params)))
    found = {name: np.array(column, np.float64) for name, column in values.items()}
    barriers = {
        # The ends are 0 by definition, whatever the rounding of the chord.
        name: float(np.max((y - (1 - t) * y[0] - t * y[-1])[1:-1], initial=0.0))
        for name, y in found.items()
    }
    return LinearPath(t, found, barriers)


def calibrated_mix(
    original: Params,
    unlearned: Params,
    *,
    retain_score: Measure,
    tau: float = 0.95,
    tolerance: float = 1e-3,
    intervals: int = 4,
) -> Mix:
    """Return the mixture with least of the original that still keeps utility.

    ``theta(rho) = rho original + (1 - rho) unlearned``; the least rho in [0, 1] with
    ``retain_score(theta(rho)) >= tau retain_score(original)``. Methods that are mixed
    so can be compared by the forget score alone: all cost the same utility.

    Finds the first of ``intervals`` even steps where the bar is held, then halves the
    step before it.

    Args:
      original: theta_0, before unlearning.
      unlearned: theta_u, of the same shapes.
      retain_score: Higher = better kept, above 0 for the original; UWC takes the
        extraction strength on retain data.
      tau: Share of the original's score to hold, above 0 and at most 1.
      tolerance: How near rho comes to the least, from above.
      intervals: Steps of the first look, which is what can see that the score is not
        monotone in rho; a dip inside a step stays unseen.

    Returns:
      The mixture; its ``params`` hold the bar, and are the unlearned ones bit for bit
      where that is unneeded.

    Raises:
      ValueError: The two are not of one shape and dtype, the original's score is not
        above 0, or an option is out of range.

    Cost: ``intervals + 1`` evaluations and ``log2(1 / (intervals tolerance))`` more.

    Source: UWC, arXiv 2406.09179; its code leaves rho to the user and in one place
    takes the bar from the unlearned model's score. Ours is the original's. The search
    and tau are our choice.
    """
    check_same_shapes(original, unlearned)
    if not 0 < tau <= 1:
        raise ValueError(f"tau={tau}: above 0 and at most 1")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance}: between 0 and 1")
    if intervals < 1:
        raise ValueError(f"intervals={intervals}: at least 1")
    best = float(retain_score(original))
    if not (math.isfinite(best) and best > 0):
        raise ValueError(
            f"retain_score(original)={best}: must be above 0, else there is nothing to "
            f"hold; choose a score that the original model has"
        )
    bar = tau * best
    scores = {1.0: best}

    def holds(rho: float) -> bool:
        if rho not in scores:
            mixed = interpolate(unlearned, original, rho)
            scores[rho] = float(retain_score(mixed))
        return scores[rho] >= bar  # not so for NaN

    grid = [i / intervals for i in range(intervals + 1)]
    held = [holds(rho) for rho in grid]
    first = held.index(True)
    high = grid[first]
    low = grid[max(first - 1, 0)]
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    trials = tuple(MixTrial(rho, scores[rho]) for rho in sorted(scores))
    if not all(held[first:]):
        status = "not_monotone"
    else:
        status = "reached" if high > 0 else "unneeded"
    return Mix(interpolate(unlearned, original, high), high, status, bar, trials)


def check_same_shapes(a: Params, b: Params, *, dtypes: bool = True) -> None:
    """Refuse two trees that do not have the same leaves, shapes and (or not) dtypes."""
    one, other = (
        {
            name: f"{x.dtype if dtypes else ''}{list(x.shape)}"
            for name, x in tree.named_leaves(params)
        }
        for params in (a, b)
    )
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            raise ValueError(
                f"{name} is {one.get(name, 'absent')} in one model and "
                f"{other.get(name, 'absent')} in the other: only models of one shape "
                f"can be compared"
            )
