"""Sums of a statistic over a data set, batch by batch, that survive a kill."""

import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.journal import read_state, write_state
from jaxunlearn.tree import named_leaves, scaled
from jaxunlearn.types import Batch, Params

REMEDY = "delete it, or name another state_path"


class Saved(NamedTuple):
    """What a state file holds: how many batches, and the leaves of their sum."""

    done: int
    leaves: dict[str, np.ndarray]


def accumulate(
    statistic: Callable[[Batch], Params],
    batches: Iterable[Batch],
    *,
    state_path: Path | str | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    every: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> Params:
    """Return ``sum_b statistic(b)`` over ``batches``, in float32.

    A driver: it compiles ``statistic`` (once, if all batches have one shape) and loops
    in Python. Killed at any point and called again with the same arguments, it goes on
    after the last batch that it saved, and gives the same bits as a run left alone.

    Args:
      statistic: From a batch to a tree of sums over its examples, a pure function. Give
        large arrays that it needs by ``jax.tree_util.Partial(function, params)``: what
        a plain closure holds is compiled into the program as constants.
      batches: Batches in a fixed order, of one shape.
      state_path: An ``.npz`` file for the sum so far; None saves nothing. It stays when
        the work is done, so that a second call reads the answer from it.
      fingerprint: What the sum depends on, as JSON (hashes of parameters and of data,
        options): a file with another fingerprint is refused. Needed with
        ``state_path``.
      every: Batches between two saves; the last batch always saves.
      progress: Called with (batches done, batches in all; 0 if ``batches`` has no
        length) after each batch.

    Returns:
      A float32 tree of the form that ``statistic`` returns.

    Raises:
      ValueError: There is no batch; ``every`` is below 1; ``state_path`` comes without
        ``fingerprint``; or the file is damaged or belongs to other work.

    Cost: the statistic of each batch; memory of two sums.

    >>> halves = [{"x": jnp.array([1.0, 2.0])}, {"x": jnp.array([3.0, 4.0])}]
    >>> float(accumulate(lambda batch: batch["x"].sum(), halves))
    10.0
    """
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1 batch between saves")
    if state_path is not None and fingerprint is None:
        raise ValueError(
            f"state_path={str(state_path)!r} needs a fingerprint: name what the sum "
            "depends on (parameters, data, options), so that a resumed run is refused "
            "if one of them has changed"
        )
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    total, done, size = None, 0, operator.length_hint(batches)
    count = 0
    for count, batch in enumerate(batches, start=1):
        if total is None:
            total = zeros_of(statistic, batch)
            saved = read(state_path, fingerprint or {}) if state_path else None
            if saved is not None:
                done, total = saved.done, restored(saved, total, state_path)
        if count <= done:
            continue
        total = add_statistic(total, statistic, batch)
        if state_path is not None and count % every == 0:
            write(state_path, total, count, fingerprint or {})
        if progress is not None:
            progress(count, size)
    if total is None:
        raise ValueError("batches holds no batch: there is nothing to sum")
    if count < done:
        raise ValueError(
            f"{state_path} holds the sum of {done} batches, batches has only {count}: "
            f"it belongs to other data; {REMEDY}"
        )
    if state_path is not None and count > done and count % every:
        write(state_path, total, count, fingerprint or {})
    return total


def zeros_of(statistic: Callable[[Batch], Params], batch: Batch) -> Params:
    """Return float32 zeros in the form of the statistic."""
    shapes = jax.eval_shape(statistic, batch)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)


@jax.jit(donate_argnums=0)
def add_statistic(total: Params, statistic: jax.tree_util.Partial, batch: Batch):
    """Return ``total + statistic(batch)`` in float32."""
    return jax.tree.map(jnp.add, total, scaled(1.0, statistic(batch)))


def write(path: Path | str, total: Params, done: int, fingerprint: Mapping) -> None:
    """Write the sum so far."""
    arrays = {f"sum/{name}": np.asarray(leaf) for name, leaf in named_leaves(total)}
    write_state(path, {"done": done, **arrays}, fingerprint)


def read(path: Path | str, fingerprint: Mapping) -> Saved | None:
    """Return what a file holds of the same work; None if there is no file."""
    arrays = read_state(path, fingerprint, state="saved sum", remedy=REMEDY)
    if arrays is None:
        return None
    try:
        done = int(arrays.pop("done"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no saved sum ({error}): {REMEDY}") from error
    return Saved(done, {k.removeprefix("sum/"): v for k, v in arrays.items()})


def restored(saved: Saved, like: Params, path: Path | str) -> Params:
    """Return the saved leaves in the form of ``like``."""
    expected = {name: leaf.shape for name, leaf in named_leaves(like)}
    found = {name: leaf.shape for name, leaf in saved.leaves.items()}
    if found != expected:
        raise ValueError(
            f"{path} holds a sum of another form: {found} is not {expected}; {REMEDY}"
        )
    leaves = [jnp.asarray(saved.leaves[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
