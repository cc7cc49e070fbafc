"""What a scoring run works on: the data in batches of one shape, and the options."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import selection, stacked_folders
from jaxunlearn.gradients.batching import example_count, example_weights
from jaxunlearn.gradients.curvature_products import gauss_newton_vp, hvp
from jaxunlearn.gradients.fisher import fisher_vp
from jaxunlearn.gradients.hutchinson import hutchinson_trace
from jaxunlearn.gradients.per_example import per_example_norms
from jaxunlearn.gradients.solvers import damping_from_mean_eigenvalue
from jaxunlearn.randomness import random_key
from jaxunlearn.types import Batch, LinearMap, Params, PerExampleLoss

CURVATURES = ("fisher", "gauss_newton", "hessian")


class Checkpoint(NamedTuple):
    """A point of a training run.

    Attributes:
      params: Parameters there.
      learning_rate: The weight of its gradients (TracIn), or its rate (SOURCE).
      steps: How many steps it stands for (SOURCE).
    """

    params: Params
    learning_rate: float = 1.0
    steps: int = 1


class TrainingRun(NamedTuple):
    """A training run that can be gone through again, for ``method="unrolled"``.

    Attributes:
      step: ``(state, batch, weights) -> state``, as ``make_weighted_step`` returns; its
        states have ``.params``.
      state: Before the first step.
      batches: Of the run in order, with ``index``.
    """

    step: Callable
    state: Any
    batches: Sequence[Batch]


class Directions(NamedTuple):
    """What scores are products with: a vector a query, and what it was made with."""

    vectors: Params  # [Q, ...]
    curvature: str
    damping: Any
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Work:
    """A scoring run, checked. The options are those of ``influence.scores``."""

    loss: PerExampleLoss
    query_loss: PerExampleLoss
    params: Params
    train: list[Batch]
    query: list[Batch]
    real: np.ndarray  # bool: which rows of all training batches are examples
    real_queries: np.ndarray
    layers: str | None
    damping: Any
    curvature: str
    inverse: str
    checkpoints: Sequence[Checkpoint]
    run: TrainingRun | None
    projection: Any
    rank: int
    tolerance: float
    max_steps: int
    key: jax.Array | None
    progress: Callable[[int, int], None] | None
    state: Path | None = None  # where finished parts are kept

    @property
    def selected(self) -> int:
        """How many parameters the scores see."""
        mask = selection(self.loss, self.params, self.layers)
        if mask is None:
            mask = jax.tree.map(lambda _: np.True_, self.params)
        return tree.selected_size(self.params, mask)

    @property
    def stacked(self) -> tuple[str, ...]:
        """The folders of parameters that are stacked over layers."""
        return stacked_folders(self.loss, self.params)


def in_batches(
    name: str, data: Batch | Iterable[Batch], batch_size: int | None
) -> tuple[list[Batch], np.ndarray]:
    """Return batches of one shape that have weights, and which rows are examples.

    A row is padding where its ``index`` is negative, or its ``weight`` is 0 and there
    is no index. A single batch is cut into batches of ``batch_size``; the last one is
    filled up with its last example, at weight 0.

    Raises:
      ValueError: There is no example, or batches have different shapes.
    """
    batches = [data] if isinstance(data, Mapping) else list(data)
    if not batches or not any(example_count(batch) for batch in batches):
        raise ValueError(f"{name} is empty: give at least one example")
    shapes = {str(jax.tree.map(np.shape, dict(batch))) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(
            f"{name}: batches must have one shape, or every other one compiles again: "
            f"{' and '.join(sorted(shapes)[:2])}"
        )
    real, found = [], []
    for batch in batches:
        arrays = {k: np.asarray(v) for k, v in batch.items()}
        size = example_count(batch)
        weight = np.asarray(example_weights(batch))
        own = arrays["index"] >= 0 if "index" in arrays else weight > 0
        step = size if batch_size is None else min(batch_size, size)
        if step < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1, or None")
        for start in range(0, size, step):
            rows = np.arange(start, start + step)
            within, inside = rows < size, np.minimum(rows, size - 1)
            part = {k: v[inside] for k, v in arrays.items()}
            part["weight"] = np.where(within, weight[inside], 0.0).astype(np.float32)
            found.append(part)
            real.append(own[inside] & within)
    return found, np.concatenate(real)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return all batches as one."""
    return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def curvature_product(work: Work, params: Params, train: Batch, size: int) -> LinearMap:
    """Return ``v -> A v`` of the training data's mean loss, ``size`` at a time."""
    product = {"fisher": fisher_vp, "gauss_newton": gauss_newton_vp, "hessian": hvp}[
        work.curvature
    ]
    return lambda vector: product(
        work.loss, params, train, vector, layers=work.layers, batch_size=size
    )


def mean_eigenvalue_damping(work: Work, share: float) -> float:
    """Return ``share`` of the mean eigenvalue of the chosen curvature.

    The Fisher's trace is the mean squared norm of the gradients, exact; that of the
    others is estimated from 8 random vectors.
    """
    if work.curvature == "fisher":
        norms = per_example_norms(
            work.loss, work.params, work.train, layers=work.layers
        )
        weight = np.concatenate([b["weight"] for b in work.train])
        trace = float(np.sum(weight * np.asarray(norms) ** 2) / weight.sum())
    else:
        size = example_count(work.train[0])

        def of_data(params: Params, train: Batch) -> jax.Array:
            product = curvature_product(work, params, train, size)
            key = random_key(0) if work.key is None else work.key
            return hutchinson_trace(product, params, key=key, probes=8).value

        trace = float(jax.jit(of_data)(work.params, joined(work.train)))
    return damping_from_mean_eigenvalue(trace, work.selected, share=share)
