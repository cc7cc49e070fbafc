"""Which parameters an edit changed, and by how much."""

from collections.abc import Iterator

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.types import Params


def changed_leaves(
    before: Params, after: Params, *, stacked: tuple[str, ...] | None = None
) -> list[dict]:
    """Return the leaves that differ, with ``|after - before| / |before|``.

    Args:
      before: Parameters.
      after: Parameters of the same shapes.
      stacked: Folders of stacked layers, as for :func:`jaxunlearn.tree.select`.

    Returns:
      One dict a changed leaf, stacked leaves layer by layer: ``leaf``, its name, and
      ``relative_change``.

    >>> before = {"wte": np.ones(4), "h": {"bias": np.ones((2, 4))}}
    >>> after = {"wte": np.ones(4), "h": {"bias": np.array([[1.0] * 4, [1.5] * 4])}}
    >>> changed_leaves(before, after, stacked=("h",))
    [{'leaf': 'h/1/bias', 'relative_change': 0.5}]
    """
    folders = tree.stacked_folders(before) if stacked is None else stacked
    everything = tree.select(before, ".", stacked=folders)

    def slices(params: Params) -> Iterator:
        arrays = jax.tree.map(np.asarray, params)
        return tree.selected_slices(arrays, everything, stacked=folders)

    changed = []
    for (name, old), (_, new) in zip(
        slices(before),
        slices(after),
        strict=True,
    ):
        old = np.asarray(old, np.float64)
        difference = float(np.linalg.norm(np.asarray(new, np.float64) - old))
        if difference > 0:
            scale = max(float(np.linalg.norm(old)), np.finfo(np.float64).tiny)
            changed.append({"leaf": name, "relative_change": difference / scale})
    return changed
