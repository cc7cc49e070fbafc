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
from jaxunlearn.influence.work import Directions, Work
from jaxunlearn.journal import Journal, open_journal
from jaxunlearn.provenance import params_hash
from jaxunlearn.types import Batch

GROUP = 16
"""Batches in a file: a kill costs at most so many."""

DESCRIPTION = "run.json"
FORMAT = 1


def open_state(directory: Path, fingerprint: Mapping[str, Any]) -> None:
    """Make the directory, or check that what stands there is of the same run.

    Raises:
      ValueError: It is of another run, damaged, or no such directory at all.
    """
    open_journal(directory, fingerprint, description=DESCRIPTION, work="scoring run")


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
        kept = f"{name}-{start // GROUP:06d}"
        found = None if work.state is None else Journal(work.state).read(kept)
        if found is not None:
            leaves = [found[str(i)] for i in range(len(found) - 1)]
            names = json.loads(str(found["names"]))
            part = leaves[0] if names is None else dict(zip(names, leaves, strict=True))
        else:
            part = jax.tree.map(np.asarray, function(work.train[start : start + GROUP]))
            if work.state is not None:
                names = sorted(part) if isinstance(part, dict) else None
                leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(part))}
                Journal(work.state).write(kept, {"names": json.dumps(names), **leaves})
        parts.append(part)
        if work.progress is not None:
            done = min(start + GROUP, len(work.train))
            work.progress(done, len(work.train))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=axis), *parts)


def kept_directions(work: Work, invert: Callable[[], Directions]) -> Directions:
    """Return the directions that ``invert`` gives, or gave before a kill."""
    if work.state is None:
        return invert()
    journal = Journal(work.state)
    arrays = journal.read("directions")
    if arrays is not None:
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
    journal.write("directions", {"told": json.dumps(told), **leaves})
    return found
