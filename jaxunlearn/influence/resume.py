"""What a scoring run has finished, on disk: one that was killed goes on from there.

A directory of ``run.json`` (what the run depends on), ``directions.npz`` (the queries'
gradients times an inverse curvature), ``factors.*.npz`` (the sums of EK-FAC's fit) and
the sweeps over the training data, ``<name>-<number>.npz`` for every few batches.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.files import WRITING, finite, read_arrays, write_arrays
from jaxunlearn.influence.work import Directions, Work
from jaxunlearn.locks import LOCK
from jaxunlearn.provenance import params_hash
from jaxunlearn.sealed import read_sealed, write_sealed
from jaxunlearn.types import Batch

GROUP = 16
"""Batches in a file: a kill costs at most so many."""

DESCRIPTION = "run.json"
FORMAT = 1

REMEDY = "delete it, and it is computed again"


def open_state(directory: Path, fingerprint: Mapping[str, Any]) -> None:
    """Make the directory, or check that what stands there is of the same run.

    Raises:
      ValueError: It is of another run, damaged, or no such directory at all.
    """
    path = directory / DESCRIPTION
    ours = finite(json.loads(json.dumps(dict(fingerprint), default=float)))
    if not path.is_file():
        if directory.exists() and (not directory.is_dir() or any(held(directory))):
            raise ValueError(
                f"state={directory} is there and holds no scoring run ({DESCRIPTION} "
                f"is missing): delete it, or give another directory"
            )
        write_sealed(path, ours)
        return
    theirs = read_sealed(
        path,
        remedy="delete that folder and score again",
        unsealed=lambda found: True,  # as earlier versions wrote it
    )
    differing = sorted(
        name
        for name in theirs.keys() | ours.keys()
        if theirs.get(name) != ours.get(name)
    )
    if differing:
        raise ValueError(
            f"{directory} holds finished parts of another run (its "
            f"{', '.join(differing)} differ): delete that folder, or score into "
            f"another place"
        )


def held(directory: Path) -> list[Path]:
    """Return what stands in a folder, without locks and what killed writers left."""
    return [
        path
        for path in directory.iterdir()
        if path.name != LOCK and not path.name.startswith(WRITING)
    ]


def fingerprint_of(work: Work, **asked: Any) -> dict[str, Any]:
    """Return what scores depend on: parameters, data and options.

    The losses are functions, which have no hash: they are the caller's to keep.
    """
    hashes = [params_hash(point.params) for point in work.checkpoints]
    return {
        "format": FORMAT,
        "params": params_hash(work.params),
        "train": batches_hash(work.train),
        "query": batches_hash(work.query),
        "layers": work.layers,
        "damping": work.damping,
        "curvature": work.curvature,
        "inverse": work.inverse,
        "checkpoints": hashes,
        "rates": [float(point.learning_rate) for point in work.checkpoints],
        "rank": work.rank,
        "tolerance": work.tolerance,
        "max_steps": work.max_steps,
        "key": None if work.key is None else jax.random.key_data(work.key).tolist(),
        **asked,
    }


def batches_hash(batches: Sequence[Batch]) -> str:
    """Return the SHA-256 of all arrays of all batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            array = np.asarray(batch[name])
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def swept(
    work: Work,
    function: Callable[[list[Batch]], Any],
    name: str,
    *,
    axis: int = 0,
) -> Any:
    """Return ``function`` of the training batches, the examples along ``axis``.

    A group of batches at a time, so that progress can be told and finished groups can
    be kept in ``work.state``; the function must not care how batches are grouped.

    Args:
      work: The scoring run.
      function: From batches to a tree of arrays.
      name: Of the sweep, in the files' names.
      axis: Along which the arrays of different groups are joined.
    """
    if work.state is None and work.progress is None:
        return jax.tree.map(np.asarray, function(work.train))
    parts = []
    for start in range(0, len(work.train), GROUP):
        path = None
        if work.state is not None:
            path = work.state / f"{name}-{start // GROUP:06d}.npz"
        if path is not None and path.is_file():
            found = read_arrays(path, remedy=REMEDY)
            leaves = [found[str(i)] for i in range(len(found) - 1)]
            names = json.loads(str(found["names"]))
            part = leaves[0] if names is None else dict(zip(names, leaves, strict=True))
        else:
            part = jax.tree.map(np.asarray, function(work.train[start : start + GROUP]))
            if path is not None:
                names = sorted(part) if isinstance(part, dict) else None
                leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(part))}
                write_arrays(path, {"names": json.dumps(names), **leaves})
        parts.append(part)
        if work.progress is not None:
            done = min(start + GROUP, len(work.train))
            work.progress(done, len(work.train))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=axis), *parts)


def kept_directions(work: Work, invert: Callable[[], Directions]) -> Directions:
    """Return the directions that ``invert`` gives, or gave before a kill."""
    if work.state is None:
        return invert()
    path = work.state / "directions.npz"
    if path.is_file():
        arrays = read_arrays(path, remedy=REMEDY)
        told = json.loads(str(arrays.pop("told")))
        return Directions(
            {name: jnp.asarray(value) for name, value in arrays.items()},
            told["curvature"],
            told["damping"],
            tuple(told["notes"]),
        )
    found = invert()
    told = {
        "curvature": found.curvature,
        "damping": found.damping,
        "notes": list(found.notes),
    }
    leaves = {name: np.asarray(x) for name, x in tree.named_leaves(found.vectors)}
    write_arrays(path, {"told": json.dumps(told), **leaves})
    return found
