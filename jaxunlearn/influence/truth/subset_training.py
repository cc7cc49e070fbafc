"""Many small models trained at once, each on its own part of the data."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.files import read_arrays
from jaxunlearn.journal import read_state, write_state

WeightedRun = Callable[[jax.Array, jax.Array], jax.Array]
"""``train(weights float32[N], seed int32[]) -> outcomes float32[Q]``, pure."""


def random_subsets(
    count: int, examples: int, *, fraction: float, seed: int = 0
) -> np.ndarray:
    """Return ``count`` random subsets of one size, bool[count, examples].

    Args:
      count: M.
      examples: N.
      fraction: Share of the examples in each subset, rounded to a whole number.
      seed: Of the draw.

    Raises:
      ValueError: A subset would hold none or all of the examples.
    """
    size = round(fraction * examples)
    if not 0 < size < examples:
        raise ValueError(
            f"fraction={fraction} of examples={examples} is {size}: a subset needs at "
            f"least 1 and less than all"
        )
    draws = np.random.default_rng(seed).random((count, examples))
    return np.argsort(draws, axis=1) < size


def train_subsets(
    train: WeightedRun,
    weights: np.ndarray,
    *,
    seeds: Sequence[int] = (0,),
    group: int = 8,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Train a model for each row of ``weights`` and each seed; return their outcomes.

    Args:
      train: A training run, such as :func:`make_weighted_run` returns.
      weights: [M, N], one row a model: 1 trains on an example, 0 leaves it out.
      seeds: R seeds, each for all rows.
      group: Models trained together by ``vmap``. It bounds memory; outcomes do not
        depend on it beyond rounding.
      path: An ``.npz`` file, replaced after every group; found there, finished models
        are not trained again. None keeps nothing.
      progress: Called with (models done, models in all).

    Returns:
      float32[M, R, Q].

    Raises:
      ValueError: Weights, seeds or group are out of range; ``path`` is of another
        program, data or weights; or an outcome is not finite.

    Cost: M R runs.
    """
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 2 or weights.shape[0] == 0 or not np.isfinite(weights).all():
        raise ValueError(
            f"weights of shape {weights.shape}: finite [models, examples] needed"
        )
    if len(seeds) == 0 or group < 1:
        raise ValueError(f"seeds={seeds!r}, group={group}: at least one of each")
    jobs = [(m, r) for m in range(len(weights)) for r in range(len(seeds))]
    group = min(group, len(jobs))
    digest = "" if path is None else run_digest(train, weights, seeds)
    flat = [] if path is None else finished_outcomes(Path(path), digest)
    together = jax.jit(jax.vmap(train))
    if progress is not None and len(flat):
        progress(len(flat), len(jobs))
    for first in range(len(flat), len(jobs), group):
        part = jobs[first : first + group]
        # The last group is filled up with its last model: one shape compiles once.
        padded = part + part[-1:] * (group - len(part))
        rows = jnp.asarray(weights[[m for m, _ in padded]])
        outcomes = np.asarray(
            together(rows, jnp.asarray([seeds[r] for _, r in padded], jnp.int32))
        )
        check_finite(outcomes[: len(part)], part, seeds)
        flat.extend(outcomes[: len(part)])
        if path is not None:
            write_outcomes(Path(path), digest, np.stack(flat))
        if progress is not None:
            progress(len(flat), len(jobs))
    return np.stack(flat).reshape(len(weights), len(seeds), -1)


def check_finite(
    outcomes: np.ndarray, jobs: Sequence[tuple[int, int]], seeds: Sequence[int]
) -> None:
    """Refuse a model that diverged, by its number and seed."""
    for (m, r), values in zip(jobs, outcomes, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(
                f"the model of weights[{m}] with seed {seeds[r]} has outcomes that are "
                f"not finite: its training diverged; lower the learning rate, warm up "
                f"longer or clip gradients"
            )


def run_digest(train: WeightedRun, weights: np.ndarray, seeds: Sequence[int]) -> str:
    """Return a hash of the training program, the arrays in it, weights and seeds."""
    traced: Any = jax.make_jaxpr(train)(weights[0], jnp.int32(0))
    # Addresses of functions differ from process to process.
    program = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))
    digest = hashlib.sha256(program.encode())
    for array in [*traced.consts, weights, np.asarray(seeds, np.int64)]:
        array = np.asarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def finished_outcomes(path: Path, digest: str) -> list[np.ndarray]:
    """Return the outcomes in the file, of the first so many models; [] without file."""
    remedy = "it holds another program, data, weights or seeds: name another, or delete"
    found = earlier_outcomes(path, digest)
    if found is None:
        found = read_state(
            path, {"digest": digest}, state="file of outcomes", remedy=remedy
        )
    return [] if found is None else list(found["outcomes"])


def earlier_outcomes(path: Path, digest: str) -> dict[str, np.ndarray] | None:
    """Return what an earlier version wrote, which kept the digest by itself."""
    if not path.exists():
        return None
    found = read_arrays(path, remedy="name another file, or delete it")
    return found if "digest" in found and str(found["digest"]) == digest else None


def write_outcomes(path: Path, digest: str, outcomes: np.ndarray) -> None:
    """Replace the file: ``digest``, and ``outcomes`` [models done, Q]."""
    write_state(path, {"outcomes": outcomes}, {"digest": digest})
