"""What is to be tracked, checked before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn.influence.methods.table import method_name
from jaxunlearn.influence.options import DIRECTED, NAMES, goes_with, resolved, used_by
from jaxunlearn.influence.tracking.point import Tracking
from jaxunlearn.influence.work import in_batches, joined
from jaxunlearn.types import Batch, PerExampleLoss

TRACKED = (*DIRECTED, "act_act", "act_grad", "hvp")
"""Methods whose score is one of a single set of parameters, and of nothing else."""

OPTIONS = {"damping", "curvature", "rank", "tolerance", "max_steps", "key"}


def checked_tracking(
    loss: PerExampleLoss,
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch],
    *,
    methods: Sequence[str] = ("gradient_dot",),
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
    curvature_data: Batch | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tracking:
    """Return what is tracked; the arguments are those of :func:`track`."""
    if isinstance(methods, str) or not methods:
        raise ValueError(f"methods={methods!r}: give a sequence of at least one name")
    names = tuple("hvp" if m == "hvp" else method_name(m) for m in methods)
    for given, name in zip(methods, names, strict=True):
        if name not in TRACKED:
            raise ValueError(
                f"methods: {given!r} is no score of a single checkpoint; one of "
                f"{', '.join(TRACKED)}"
            )
        if names.count(name) > 1:
            raise ValueError(f"methods={tuple(methods)}: {name} is there twice")
    unknown = set(options or {}) - OPTIONS
    if unknown:
        raise ValueError(
            f"options: {', '.join(sorted(unknown))} unknown; of "
            f"{', '.join(sorted(OPTIONS))}"
        )
    given = {k: v for k, v in (options or {}).items() if v is not None}
    for option in given:
        if not any(goes_with(option, name) for name in names if name in NAMES):
            raise ValueError(
                f"options: {option} does not go with methods={tuple(methods)}, where "
                f"it changes nothing: leave it out"
            )
    for name in names:
        if name in NAMES:
            resolved(name, used_by(name, given))
    batches, real = marked("train", train, batch_size)
    queries, real_queries = marked("query", query, batch_size)
    data = batches
    if curvature_data is not None:
        data, _ = marked("curvature_data", curvature_data, batch_size)
    return Tracking(
        loss=loss,
        query_loss=query_loss or loss,
        train=batches,
        query=queries,
        real=real,
        real_queries=real_queries,
        curvature_data=joined(data),
        methods=names,
        layers=layers,
        options=given,
    )


def marked(name: str, data: Any, batch_size: int | None) -> tuple[list, np.ndarray]:
    """Return batches of one shape in which ``index`` and ``weight`` tell padding."""
    batches, real = in_batches(name, data, batch_size)
    if not real.any():
        raise ValueError(f"{name} holds padding only: give at least one example")
    parts = np.split(real, np.cumsum([len(b["weight"]) for b in batches])[:-1])
    places = np.split(np.cumsum(real) - 1, np.cumsum([len(p) for p in parts])[:-1])
    found = []
    for batch, own, place in zip(batches, parts, places, strict=True):
        index = np.where(own, batch.get("index", place), -1).astype(np.int32)
        weight = np.where(own, batch["weight"], 0.0).astype(np.float32)
        found.append({**batch, "index": index, "weight": weight})
    return found, real
