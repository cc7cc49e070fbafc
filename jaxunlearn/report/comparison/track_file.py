"""What a training run's directory holds of influence followed through training."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from jaxunlearn.influence.tracking.files import InfluenceTrack, load_track
from jaxunlearn.sealed import read_sealed, typed

TRACK = "influence_track.npz"
"""In the directory of a training run; beside it, as .json, each record's own places."""


class Tracked(NamedTuple):
    """What a run's directory holds of influence through training.

    Attributes:
      track: Scores, losses and gradient norms.
      same: For each of the Q records the positions, in the training data, of the
        examples that say the same; None where that is not known.
    """

    track: InfluenceTrack
    same: tuple[tuple[int, ...], ...] | None = None


@dataclasses.dataclass(frozen=True)
class Places:
    """What lies beside a track: where each of its records stands in the data."""

    same: tuple[tuple[int, ...], ...]


def read_track(path: Path) -> Tracked:
    """Read a track, and the file of the same name that says which texts are the same.

    Raises:
      ValueError: A file is damaged, or the two are not of the same records.
    """
    track = load_track(path)
    beside = path.with_suffix(".json")
    if not beside.exists():
        return Tracked(track)
    same = read_sealed(
        beside,
        lambda found: typed(found, Places),
        remedy="delete it, or run the same `jaxunlearn train` command again",
        unsealed=lambda found: True,  # as earlier versions wrote it
        warn=False,
    ).same
    records = track.query_losses.shape[1]
    unknown = {place for places in same for place in places} - set(track.index.tolist())
    if len(same) != records or unknown:
        raise ValueError(
            f"{beside} is of other records or training data than {path}: delete it, or "
            f"run the same `jaxunlearn train` command again"
        )
    return Tracked(track, same)
