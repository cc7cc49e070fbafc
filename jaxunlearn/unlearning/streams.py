"""Forget and retain batches of an unlearning run: pure functions of (seed, step)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxunlearn.data import step_indices
from jaxunlearn.gradients.batching import real_rows
from jaxunlearn.types import Batch
from jaxunlearn.unlearning.forms import Sets

RETAIN_SEEDS = 2**33
"""Added to the seed for the order of the retain set: recipes' seeds are below it."""


def stacked_rows(
    batches: Iterable[Batch],
    columns: Callable[[Batch], Mapping[str, jax.Array]] | None = None,
) -> dict[str, np.ndarray]:
    """Return the examples of batches as rows on the host, padding left out.

    Args:
      batches: Batches of one shape.
      columns: From a batch to more columns, [B,...] each.
    """
    parts = []
    for batch in batches:
        more = {} if columns is None else columns(batch)
        real = real_rows(batch)
        parts.append({k: np.asarray(v)[real] for k, v in {**batch, **more}.items()})
    if not parts:
        raise ValueError("batches is empty: give at least one batch")
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    size = len(next(iter(rows.values())))
    if not size:
        raise ValueError("batches hold padding alone: give at least one example")
    rows.setdefault("index", np.arange(size, dtype=np.int32))
    rows.setdefault("weight", np.ones(size, np.float32))
    return rows


def batch_of_step(
    rows: Mapping[str, np.ndarray], *, seed: int, step: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Return the batch of a step; a short one is filled with rows of weight 0.

    Epochs are permutations of the rows, by the hash of seed and epoch by which training
    orders its examples.
    """
    size = len(rows["index"])
    chosen = step_indices(seed, step, n=size, batch_size=batch_size)
    empty = batch_size - len(chosen)
    batch = {k: v[np.pad(chosen, (0, empty), "edge")] for k, v in rows.items()}
    if empty:
        batch["index"][-empty:] = -1
        batch["weight"][-empty:] = 0
    return batch


def sets_of_step(rows: Sets, *, seed: int, step: int, batch_size: int) -> Sets:
    """Return a batch of each set for a step, each set in an order of its own."""

    def batch(part: Any, offset: int) -> dict[str, np.ndarray] | None:
        if part is None:
            return None
        return batch_of_step(part, seed=seed + offset, step=step, batch_size=batch_size)

    return Sets(
        batch(rows.forget, 0),
        batch(rows.retain, RETAIN_SEEDS),
        batch(rows.unseen, 2 * RETAIN_SEEDS),
    )
