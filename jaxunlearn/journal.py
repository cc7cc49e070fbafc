"""What long work has finished, on disk: killed and begun again, it goes on from there.

Two forms, both bound to a fingerprint of what the work depends on, which other work is
refused by. A :class:`Journal` is a folder with a file for each finished part. A state
is one file, replaced again and again by what is known so far. Files have their name
once they are whole; what a killed writer left is swept when a journal is opened.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.files import (
    WRITING,
    finite,
    json_text,
    parse_json,
    read_arrays,
    write_arrays,
)
from jaxunlearn.folders import sweep
from jaxunlearn.locks import LOCK
from jaxunlearn.sealed import read_sealed, write_sealed

FINGERPRINT = "fingerprint"
"""The key of a state's fingerprint, among its arrays."""


def fingerprint(depends_on: Mapping[str, Any]) -> dict[str, Any]:
    """Return what work depends on as JSON reads it back, to compare it with a file's.

    >>> fingerprint({"shape": (2, 3), "rate": float("nan")})
    {'shape': [2, 3], 'rate': None}
    """
    return finite(json.loads(json.dumps(dict(depends_on), default=float)))


def differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return the names of what is not the same in two fingerprints, in order."""
    return sorted(
        name
        for name in theirs.keys() | ours.keys()
        if theirs.get(name) != ours.get(name)
    )


def foreign(directory: Path) -> list[str]:
    """Return the names in a folder, but for locks and what killed writers left."""
    if not directory.is_dir():
        return []
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.name != LOCK and not path.name.startswith(WRITING)
    )


class Journal(NamedTuple):
    """A folder of finished parts, each an ``.npz`` whose arrays have checksums."""

    directory: Path

    def read(self, part: str) -> dict[str, np.ndarray] | None:
        """Return a part's arrays; None if it is not finished.

        Raises:
          ValueError: The file is damaged.
        """
        path = self.directory / f"{part}.npz"
        if not path.is_file():
            return None
        return read_arrays(path, remedy="delete it, and it is computed again")

    def write(self, part: str, arrays: Mapping[str, Any]) -> None:
        """Keep a finished part."""
        write_arrays(self.directory / f"{part}.npz", arrays)


def open_journal(
    directory: Path, depends_on: Mapping[str, Any], *, description: str, work: str
) -> Journal:
    """Make a journal, or go on with the one that is there; one process at a time.

    Args:
      directory: Made if it is not there.
      depends_on: What all parts depend on: hashes of parameters and data, options.
      description: The file of the folder that says so.
      work: What the work is called, for messages.

    Raises:
      ValueError: The folder is of other work (the message names what differs), its
        description is damaged, or it is no journal and not empty.
    """
    path = directory / description
    ours = fingerprint(depends_on)
    if not path.is_file():
        if foreign(directory) or (directory.exists() and not directory.is_dir()):
            raise ValueError(
                f"state={directory} is there and holds no {work} ({description} is "
                f"missing): delete it, or give another directory"
            )
        write_sealed(path, ours)
        return Journal(directory)
    theirs = read_sealed(
        path,
        remedy="delete that folder and begin again",
        unsealed=lambda found: True,  # as earlier versions wrote it
    )
    if names := differing(theirs, ours):
        raise ValueError(
            f"{directory} holds finished parts of another run (its {', '.join(names)} "
            f"differ): delete that folder, or give another place"
        )
    sweep(directory)
    return Journal(directory)


def write_state(
    path: Path | str, arrays: Mapping[str, Any], depends_on: Mapping[str, Any]
) -> None:
    """Replace a state file by what is known so far."""
    text = json_text(fingerprint(depends_on), sort_keys=True)
    write_arrays(path, {FINGERPRINT: text, **arrays})


def read_state(
    path: Path | str, depends_on: Mapping[str, Any], *, state: str, remedy: str
) -> dict[str, np.ndarray] | None:
    """Return the arrays of a state file; None if there is no file.

    Args:
      path: The file.
      depends_on: What the work depends on.
      state: What the file's content is called, for messages.
      remedy: What to do where it is of other work or damaged; ends the messages.

    Raises:
      ValueError: It is damaged, no such file, or of other work: names what differs.
    """
    if not Path(path).exists():
        return None
    arrays = read_arrays(path, remedy=remedy)
    try:
        theirs = dict(parse_json(str(arrays.pop(FINGERPRINT))))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no {state} ({error}): {remedy}") from error
    ours = fingerprint(depends_on)
    if names := differing(theirs, ours):
        raise ValueError(
            f"{path} was written for other work; these differ: {', '.join(names)} "
            f"(file: {[theirs.get(name) for name in names]}, now: "
            f"{[ours.get(name) for name in names]}); {remedy}"
        )
    return arrays
