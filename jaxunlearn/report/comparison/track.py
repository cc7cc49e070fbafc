"""Influence through training: what was followed of it, epoch by epoch.

A record's influence is followed against every training example. Those that say the same
as the record are its own; if training stored them, their scores stand apart from all
others, and the figures show since when.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.intervals import LEVEL, Interval, mean_interval
from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.comparison.track_file import Tracked

AGREEMENT = (
    "positive: the activations agree, whether or not the record's loss falls by it"
)
LABELS = {
    "gradient_dot": "Product of gradients",
    "act_act": "Product of activations",
    "act_grad": "Activations on gradients",
    "hvp": "Curvature along the gradient",
}
SHARE = 0.1  # of the training examples, that stand for a record's own where none are


class Course(NamedTuple):
    """A method's scores through training.

    Attributes:
      own: For each epoch the mean over records of the mean score with their own
        training examples, with its 95 % interval over records.
      rest: The same with all other training examples.
      apart: The same of the difference, own less rest, which each record has: its
        interval leaves out what scores differ by from record to record.
      own_name: What ``own`` is: the same text, or the highest scores of the end.
      records: How many of the records are counted.
    """

    own: list[Interval]
    rest: list[Interval]
    apart: list[Interval]
    own_name: str
    records: int


def method_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the methods that any run was tracked by."""
    found = [run.track.track.scores for run in runs if run.track is not None]
    return list(dict.fromkeys(name for scores in found for name in scores))


def method_label(method: str) -> str:
    """Return a method's name for readers."""
    return LABELS.get(method, method.replace("_", " ").capitalize())


def method_sign(runs: Sequence[ComparedRun], method: str) -> str:
    """Return how to read the sign of a method's scores."""
    if method == "act_act":
        return AGREEMENT
    tracks = [run.track.track for run in runs if run.track is not None]
    return next(t.signs[method] for t in tracks if method in t.scores)


def course(tracked: Tracked, method: str) -> Course:
    """Return a method's scores of the records' own training examples and of all others.

    A record's own examples are those that say the same. Where no record has one (or it
    is not known), they are the tenth of the training examples that score highest at
    the end: these lie above the others at the end by choice, and the course says only
    since when. Records without an example of their own, or with scores that are not
    finite, are not counted.
    """
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
        np.put_along_axis(own, order[:, : max(1, round(SHARE * size))], True, axis=1)
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


def track_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return the scores' courses as plain rows."""
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
                        "score": finite_or_none(point.value),
                        "low": finite_or_none(point.low),
                        "high": finite_or_none(point.high),
                        "records": found.records,
                    }
                    for epoch, point in enumerate(line)
                ]
    return rows


def norm_rows(runs: Sequence[ComparedRun]) -> list[dict]:
    """Return the mean gradient norms as plain rows."""
    return [
        {
            "run": run.name,
            "epoch": epoch,
            "part": part,
            "gradient_norm": finite_or_none(value),
        }
        for run in runs
        if run.track is not None
        for epoch, means in enumerate(run.track.track.gradient_norms.mean(-1))
        for part, value in zip(run.track.track.groups, means, strict=True)
    ]


def finite_or_none(value: float) -> float | None:
    """Return a finite number, else None."""
    return float(value) if np.isfinite(value) else None
