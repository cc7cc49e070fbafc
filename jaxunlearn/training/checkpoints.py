"""Orbax checkpoints of a training state: atomic, resumable, checked when read.

A checkpoint is a folder that gets its name when it is whole, with the hashes of its
files inside: an interrupted run never leaves half of one, or one without hashes.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxunlearn.folders import check_checksums, replaced_folder, write_checksums
from jaxunlearn.placement import unplaced
from jaxunlearn.sealed import unchecked
from jaxunlearn.training.recipe import TrainingState
from jaxunlearn.types import Params

KEEP = 2
"""How many checkpoints stay: the latest, and one should that be damaged."""

KEPT = "kept"
"""The file of a checkpoint that stays for good."""


def save(directory: Path, state: Any, *, keep: bool = False) -> None:
    """Write ``state`` as the checkpoint of its step, and delete all but the latest.

    The state is a ``TrainingState``, or another NamedTuple with a ``step``. Those that
    were written with ``keep`` stay, to replay a run from there.
    """
    folder = directory / str(int(state.step))
    save_params(folder, state._asdict(), files=(KEPT,) if keep else ())
    for step in steps(directory)[:-KEEP]:
        if not (directory / str(step) / KEPT).exists():
            shutil.rmtree(directory / str(step))


def steps(directory: Path) -> list[int]:
    """Return the steps of which there is a checkpoint, in order."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def latest_step(directory: Path) -> int | None:
    """Return the step of the latest checkpoint, None if there is none."""
    return max(steps(directory), default=None)


def restore(directory: Path, step: int, like: TrainingState) -> TrainingState:
    """Read the checkpoint of ``step``, bit for bit, in the shapes of ``like``.

    Raises:
      ValueError: The checkpoint is missing, damaged or of another model.
    """
    folder = directory / str(step)
    return TrainingState(
        **read(
            folder,
            like._asdict(),
            remedy=f"delete {folder} to resume from the checkpoint before, or train "
            f"into a new folder",
        )
    )


def save_params(
    directory: Path, params: Params, *, files: Collection[str] = ()
) -> None:
    """Write a parameter tree to ``directory``, in place of what stands there.

    ``files`` are the names of empty files to stand beside it.
    """
    with replaced_folder(directory) as fresh:
        with plainly_named(fresh.parent) as parent:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(parent / fresh.name, params, force=True)
        for name in files:
            (fresh / name).touch()
        write_checksums(fresh)


def restore_params(directory: Path, like: Params) -> Params:
    """Read a parameter tree that :func:`save_params` wrote.

    Raises:
      ValueError: It is missing, damaged or of another model.
    """
    return read(directory, like, remedy="train again into a new folder")


def read(directory: Path, like: Params, *, remedy: str) -> Params:
    """Read a tree, its files first compared with the hashes beside them."""
    directory = Path(directory)
    if directory.is_dir() and not check_checksums(directory, remedy=remedy):
        unchecked(directory)
        if (directory / "default").is_dir():  # as CheckpointManager writes them
            directory = directory / "default"
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with plainly_named(directory) as named, ocp.StandardCheckpointer() as reader:
            return unplaced(reader.restore(named, target))
    except Exception as error:  # orbax raises many kinds for a damaged checkpoint
        raise ValueError(
            f"{directory} cannot be read ({first_line(error)}). It is missing, damaged "
            f"or of another model: {remedy}"
        ) from error


@contextlib.contextmanager
def plainly_named(directory: Path) -> Iterator[Path]:
    """Give a path to a folder in which no character means anything to a library.

    Orbax looks for files by patterns, in which ``[x]`` stands for an x, and TensorStore
    takes a backslash for a slash.
    """
    with tempfile.TemporaryDirectory(prefix="jaxunlearn-") as place:
        link = Path(place) / "folder"
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link


def first_line(error: Exception) -> str:
    """Return what went wrong, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
