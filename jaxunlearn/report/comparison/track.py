"""Influence through training: what `jaxunlearn train --track` followed, epoch by epoch.

A record's influence is followed against every training example. Those that say the same
as the record are its own; if training stored them, their scores stand apart from all
others, and the figures show since when.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxunlearn.sealed import read_sealed, typed

if TYPE_CHECKING:
    from jaxunlearn.influence import InfluenceTrack
    from jaxunlearn.intervals import Interval
    from jaxunlearn.report.comparison.runs import ComparedRun

TRACK = "influence_track.npz"
"""In the directory of a training run; beside it, as .json, each record's own places."""

_AGREEMENT = (
    "positive: the activations agree, whether or not the record's loss falls by it"
)
_LABELS = {
    "gradient_dot": "Product of gradients",
    "act_act": "Product of activations",
    "act_grad": "Activations on gradients",
    "hvp": "Curvature along the gradient",
}
_SHARE = 0.1  # of the training examples, that stand for a record's own where none are


class Tracked(NamedTuple):
    """What a run's directory holds of influence through training.

    Attributes:
        track: Scores, losses and gradient norms.
        same: For each of the Q records the positions, in the training data, of the
            examples that say the same; None where that is not known.
    """

    track: "InfluenceTrack"
    same: tuple[tuple[int, ...], ...] | None = None


class Course(NamedTuple):
    """A method's scores through training.

    Attributes:
        own: For each epoch the mean over records of the mean score with their own
            training examples, with its 95 % interval over records.
        rest: The same with all other training examples.
        apart: The same of the difference, own less rest, which each record has: its
            interval leaves out what scores differ by from record to record.
        own_name: What `own` is: the same text, or the highest scores of the end.
        records: How many of the records are counted.
    """

    own: "list[Interval]"
    rest: "list[Interval]"
    apart: "list[Interval]"
    own_name: str
    records: int


@dataclasses.dataclass(frozen=True)
class Places:
    """What lies beside a track: where each of its records stands in the data."""

    same: tuple[tuple[int, ...], ...]


def read_track(path: Path) -> Tracked:
    """Reads a track, and the file of the same name that says which texts are the same.

    Raises:
        ValueError: A file is damaged, or the two are not of the same records.
    """
    from jaxunlearn.influence.tracking.files import load_track

    track = load_track(path)
    beside = path.with_suffix(".json")
    if not beside.exists():
        return Tracked(track)
    same = read_sealed(
        beside,
        lambda found: typed(found, Places),
        remedy="delete it, or run the same `jaxunlearn train --track` again",
        unsealed=lambda found: True,  # as earlier versions wrote it
        warn=False,
    ).same
    records = track.query_losses.shape[1]
    unknown = {place for places in same for place in places} - set(track.index.tolist())
    if len(same) != records or unknown:
        raise ValueError(
            f"{beside} is of other records or training data than {path}: delete it, or "
            f"run the same `jaxunlearn train --track` again"
        )
    return Tracked(track, same)


def method_names(runs: "Sequence[ComparedRun]") -> list[str]:
    """The methods that any run was tracked by."""
    found = [run.track.track.scores for run in runs if run.track is not None]
    return list(dict.fromkeys(name for scores in found for name in scores))


def method_label(method: str) -> str:
    """A method's name for readers."""
    return _LABELS.get(method, method.replace("_", " ").capitalize())


def method_sign(runs: "Sequence[ComparedRun]", method: str) -> str:
    """How to read the sign of a method's scores."""
    if method == "act_act":
        return _AGREEMENT
    tracks = [run.track.track for run in runs if run.track is not None]
    return next(t.signs[method] for t in tracks if method in t.scores)


def course(tracked: Tracked, method: str) -> Course:
    """A method's scores of the records' own training examples and of all others.

    A record's own examples are those that say the same. Where no record has one (or it
    is not known), they are the tenth of the training examples that score highest at
    the end: these lie above the others at the end by choice, and the course says only
    since when. Records without an example of their own, or with scores that are not
    finite, are not counted.
    """
    from jaxunlearn.intervals import LEVEL, Interval, mean_interval

    values = np.asarray(tracked.track.scores[method], np.float64)
    known = tracked.same is not None and any(tracked.same)
    if known and tracked.same is not None:
        own = np.array([np.isin(tracked.track.index, x) for x in tracked.same])
        # A method that asks no query has one row, the same for all of them.
        values = np.broadcast_to(values, (len(values), *own.shape))
    else:
        size = values.shape[-1]
        order = np.argsort(-values[-1], axis=-1, kind="stable")
        own = np.zeros(values.shape[1:], bool)
        np.put_along_axis(own, order[:, : max(1, round(_SHARE * size))], True, axis=1)
    counted = own.any(1) & ~own.all(1) & np.isfinite(values).all((0, 2))
    values, own = values[:, counted], own[counted]

    def over_records(means: np.ndarray) -> list[Interval]:
        if not means.shape[1]:
            return [Interval(np.nan, np.nan, np.nan, LEVEL)] * len(means)
        return [mean_interval(row) for row in means]

    name = "the same text" if known else "highest tenth at the end"
    inside, outside = ((values * of).sum(2) / of.sum(1) for of in (own, ~own))
    lines = [over_records(means) for means in (inside, outside, inside - outside)]
    return Course(*lines, name, int(counted.sum()))


def track_rows(runs: "Sequence[ComparedRun]") -> list[dict]:
    """The scores' courses as plain rows."""
    rows = []
    for run in runs:
        for method in [] if run.track is None else run.track.track.scores:
            found = course(run.track, method)
            lines = {found.own_name: found.own, "all others": found.rest}
            for name, line in (lines | {"difference": found.apart}).items():
                rows += [
                    {
                        "run": run.name,
                        "method": method,
                        "epoch": epoch,
                        "training_examples": name,
                        "score": _known(point.value),
                        "low": _known(point.low),
                        "high": _known(point.high),
                        "records": found.records,
                    }
                    for epoch, point in enumerate(line)
                ]
    return rows


def norm_rows(runs: "Sequence[ComparedRun]") -> list[dict]:
    """The mean gradient norms as plain rows."""
    return [
        {"run": run.name, "epoch": epoch, "part": part, "gradient_norm": _known(value)}
        for run in runs
        if run.track is not None
        for epoch, means in enumerate(run.track.track.gradient_norms.mean(-1))
        for part, value in zip(run.track.track.groups, means, strict=True)
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
