"""What an influence track is, its parts put together, and its file."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn.files import parse_json, read_arrays, write_arrays
from jaxunlearn.influence.result import SIGN
from jaxunlearn.sealed import typed

FORMAT = 1

CURVATURE_SIGN = (
    "a curvature, not an influence: positive where the mean loss is convex along the "
    "example's gradient"
)


@dataclasses.dataclass(frozen=True)
class InfluenceTrack:
    """Influence of N training examples on Q queries at E checkpoints.

    Attributes:
      scores: Method -> float32[E,Q,N]; of ``hvp``, which asks no query, [E,1,N].
      losses: float32[E,N], each training example's own loss.
      query_losses: float32[E,Q].
      gradient_norms: float32[E,L,Q], the norm of each query's gradient in each part of
        the model; their squares add up to the whole, squared.
      groups: The L parts on the way forward: ``wte``, ``wpe``, ``h/0``, ..., ``ln_f``;
        only those that ``layers`` selects, and of them what it selects.
      index: int64[N], the positions of the training examples in their data set.
      coverage: ``layers`` (the expression, None is all), ``parameters``, ``tapped``
        and ``of``: how many the scores see, how many of them by taps, of how many.
      solvers: Method -> one dict a checkpoint: ``curvature``, ``damping``, ``notes``.
      hashes: One a checkpoint, of its parameters.
    """

    scores: dict[str, np.ndarray]
    losses: np.ndarray
    query_losses: np.ndarray
    gradient_norms: np.ndarray
    groups: tuple[str, ...]
    index: np.ndarray
    coverage: dict[str, Any]
    solvers: dict[str, tuple[dict[str, Any], ...]]
    hashes: tuple[str, ...]

    @property
    def signs(self) -> dict[str, str]:
        """How to read the sign of each method's scores."""
        return {k: CURVATURE_SIGN if k == "hvp" else SIGN for k in self.scores}


@dataclasses.dataclass(frozen=True)
class Described:
    """What a track's file says beside its arrays."""

    format: int
    groups: tuple[str, ...]
    coverage: dict[str, Any]
    solvers: dict[str, tuple[dict[str, Any], ...]]
    signs: dict[str, str]
    hashes: tuple[str, ...]


SERIES = ("losses", "query_losses", "gradient_norms")
SHARED = ("groups", "coverage")


def joined_tracks(tracks: Sequence[InfluenceTrack]) -> InfluenceTrack:
    """Return tracks of the same examples, methods and layers as one, in that order.

    Raises:
      ValueError: There is none, or they are of different things.
    """
    if not tracks:
        raise ValueError("there is no checkpoint to track: give at least one")
    first = tracks[0]
    for number, other in enumerate(tracks):
        differing = [k for k in SHARED if getattr(other, k) != getattr(first, k)]
        if not np.array_equal(other.index, first.index):
            differing.append("index")
        if other.scores.keys() != first.scores.keys() or any(
            other.scores[k].shape[1:] != first.scores[k].shape[1:] for k in first.scores
        ):
            differing.append("scores")
        if differing:
            raise ValueError(
                f"track {number} is of something else than the first: its "
                f"{', '.join(differing)} differ"
            )
    return dataclasses.replace(
        first,
        scores={k: np.concatenate([t.scores[k] for t in tracks]) for k in first.scores},
        solvers={k: sum((t.solvers[k] for t in tracks), ()) for k in first.solvers},
        hashes=sum((t.hashes for t in tracks), ()),
        **{name: np.concatenate([getattr(t, name) for t in tracks]) for name in SERIES},
    )


def save_track(path: Path | str, track: InfluenceTrack) -> None:
    """Write a track to an ``.npz``, whole or not at all.

    Its arrays: ``losses``, ``query_losses``, ``gradient_norms``, ``index``,
    ``score:<method>``, and ``description``, a JSON text with ``format``, ``groups``,
    ``coverage``, ``solvers``, ``signs`` and ``hashes``.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path={path}: a track is an .npz file, end its name so")
    description = {
        "format": FORMAT,
        "groups": track.groups,
        "coverage": track.coverage,
        "solvers": track.solvers,
        "signs": track.signs,
        "hashes": track.hashes,
    }
    arrays = {name: getattr(track, name) for name in (*SERIES, "index")}
    arrays |= {f"score:{name}": values for name, values in track.scores.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {"description": json.dumps(description), **arrays})


def load_track(path: Path | str) -> InfluenceTrack:
    """Read what :func:`save_track` wrote.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is no track, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"track={path}: no such file")
    remedy = "follow the influence again"
    arrays = read_arrays(path, remedy=remedy)
    missing = {"description", "index", *SERIES} - arrays.keys()
    if missing:
        raise ValueError(
            f"{path} is no influence track: it has no {', '.join(sorted(missing))}"
        )
    try:
        told = typed(parse_json(str(arrays.pop("description"))), Described)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    if told.format > FORMAT:
        raise ValueError(
            f"{path} has format {told.format}; this version reads up to {FORMAT}: "
            f"update jaxunlearn"
        )
    return InfluenceTrack(
        scores={
            name.partition(":")[2]: values
            for name, values in arrays.items()
            if name.startswith("score:")
        },
        **{name: arrays[name] for name in (*SERIES, "index")},
        groups=told.groups,
        coverage=dict(told.coverage),
        solvers=dict(told.solvers),
        hashes=told.hashes,
    )
