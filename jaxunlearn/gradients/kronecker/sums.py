"""Sums over a data set that Kronecker factors are made of, layer by layer.

Each is a statistic of one backward pass (``taps/statistics.py``), so that the inputs
and output gradients of one layer alone are in memory.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.accumulation import accumulate
from jaxunlearn.gradients.arguments import as_argument, label_field, task_function
from jaxunlearn.gradients.batching import (
    chunks_of,
    example_count,
    mapped,
    sum_over_chunks,
    with_weight,
)
from jaxunlearn.gradients.curvature_products import Logits
from jaxunlearn.gradients.fisher import sampled_labels
from jaxunlearn.gradients.kronecker.eigendecomposition import (
    Basis,
    moments,
    rotated,
    squares,
    with_ones,
)
from jaxunlearn.gradients.kronecker.layout import Matrix, matrices_of
from jaxunlearn.gradients.taps.outer_products import Products
from jaxunlearn.gradients.taps.plans import Statistic, prepare
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.provenance import params_hash
from jaxunlearn.types import Batch, Params, PerExampleLoss


def setting() -> Any:
    """Return a field that compiled programs are remembered by."""
    return dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fit:
    """What a fit is of; the two functions are arguments, see ``arguments.py``."""

    loss: PerExampleLoss
    logits: Logits | None
    layers: str | None = setting()
    batch_size: int | None = setting()
    fisher: str = setting()
    largest_factor: int = setting()
    eigh: str = setting()
    method: str = setting()

    def __post_init__(self):
        """Refuse what cannot be."""
        for name, known in [
            ("fisher", ("empirical", "true")),
            ("eigh", ("float32", "float64")),
        ]:
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: must be one of {known}"
                )
        if self.largest_factor < 1:
            raise ValueError(
                f"largest_factor={self.largest_factor}: must be at least 1"
            )


def matrices_at(
    loss: PerExampleLoss, params: Params, batch: Batch, layers: str | None
) -> tuple[Matrix, ...]:
    """Return the matrices that the selected parameters of a loss form."""
    prepared = prepare(loss, params, batch, layers)
    pairs = {
        site.leaves["kernel"]: site.leaves["bias"]
        for site in prepared.survey.sites.values()
        if {"kernel", "bias"} <= set(site.leaves)
        and prepared.places[site.leaves["kernel"]] == 1
        and prepared.places[site.leaves["bias"]] == 1
    }
    return matrices_of(params, prepared.views, pairs, prepared.masks)


def moment_sums(fit: Fit, products: Products, weight, rows: int, extra: dict) -> Any:
    """Return the moments of a matrix, summed over the examples."""
    products, rows = with_bias(products, rows, extra)
    return skipping(
        extra, lambda: moments(products, weight, rows, largest=fit.largest_factor)
    )


def square_sums(fit: Fit, products: Products, weight, rows: int, extra: dict) -> Any:
    """Return the squared rotated gradients of a matrix, summed over the examples."""
    products, rows = with_bias(products, rows, extra)
    basis = extra.get("basis", Basis(None, None))
    return skipping(extra, lambda: squares(rotated(products, basis), weight, rows))


STAGES = {"moments": moment_sums, "eigenvalues": square_sums}


def with_bias(products: Products, rows: int, extra: dict) -> tuple[Products, int]:
    """Return a kernel's products and rows with its bias among them, if it has one."""
    return (with_ones(products), rows + 1) if "bias" in extra else (products, rows)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stage:
    """One of a fit's passes over the data."""

    fit: Fit
    matrices: tuple[Matrix, ...] = setting()
    name: str = setting()


class Given(NamedTuple):
    """The arrays that a pass needs."""

    params: Params
    bases: dict[str, Basis]
    key: jax.Array | None


def sums_of_part(stage: Stage, given: Given, batch: Batch) -> dict[str, Any]:
    """Return the examples' weights and each matrix's sums, in one backward pass."""
    fit, matrices, (params, bases, key) = stage.fit, stage.matrices, given
    if fit.fisher == "true":
        logits = fit.logits
        if logits is None:
            logits = task_function(fit.loss, "outputs")
        batch = sampled_labels(
            logits(params, batch), batch, key=key, labels=label_field(fit.loss)
        )
    extra = {leaf: {} for matrix in matrices for leaf in matrix.leaves}
    for matrix in matrices:
        # Keys, not values, say what to do: they are known when the pass is traced.
        own = extra[matrix.leaves[0]]
        if matrix.has_bias:
            own["bias"] = jnp.zeros(matrix.stack)
        if matrix.name in bases:
            own["basis"] = bases[matrix.name]
        if len(matrix.chosen) < math.prod(matrix.stack):
            flat = jnp.zeros(math.prod(matrix.stack))
            flat = flat.at[jnp.array(matrix.chosen)].set(1.0)
            own["selected"] = flat.reshape(matrix.stack)
    found, _ = layer_statistics(
        fit.loss,
        params,
        batch,
        Statistic(
            functools.partial(STAGES[stage.name], fit), linear=False, summed=True
        ),
        extra=lambda views: extra,
        layers=fit.layers,
    )
    return {
        "weight": jnp.sum(batch["weight"].astype(jnp.float32)),
        "matrices": {matrix.name: found[matrix.leaves[0]] for matrix in matrices},
    }


def skipping(extra: dict, function: Callable[[], Any]) -> Any:
    """Return ``function()``, or zeros for a layer of a stack that is not selected."""
    if "selected" not in extra:
        return function()
    shapes = jax.eval_shape(function)
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    return jax.lax.cond(extra["selected"] > 0, function, lambda: zeros(shapes))


def over_stack(matrix: Matrix, function: Callable, *arrays: Any) -> Any:
    """Return ``function`` of the selected layers of a stack, one at a time, else 0."""
    if not matrix.stack:
        return function(*arrays)
    axes, size = len(matrix.stack), math.prod(matrix.stack)
    chosen = jnp.array(matrix.chosen)
    flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[axes:])[chosen], arrays)
    found = mapped(Partial(of_arrays, as_argument(function)), flat)

    def back(x: jax.Array) -> jax.Array:
        whole = jnp.zeros((size, *x.shape[1:]), x.dtype).at[chosen].set(x)
        return whole.reshape(*matrix.stack, *x.shape[1:])

    return jax.tree.map(back, found)


def of_arrays(function: Callable, arrays: tuple) -> Any:
    """Return ``function(*arrays)``."""
    return function(*arrays)


def first_batch(batch: Batch | Iterable[Any]) -> Batch:
    """Return the first batch.

    Raises:
      ValueError: There is none, or the batches can be iterated only once.
    """
    if isinstance(batch, Iterator):
        raise ValueError(
            "batches are read several times, but were given as an iterator that ends: "
            "give a list, or an object whose __iter__ starts anew"
        )
    if isinstance(batch, Mapping):
        return batch
    for first in batch:
        return first
    raise ValueError("batches holds no batch: there is nothing to fit to")


def sum_over_data(
    stage: Stage,
    given: Given,
    batch: Batch | Iterable[Batch],
    state_path: Path | str | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Return the sums over a data set.

    A single batch is summed in one pure function, unless its progress is to be told or
    saved; batches are a loop in Python.
    """
    if isinstance(batch, Mapping) and state_path is None and progress is None:
        return sums_of_batch(stage, given, batch)
    fingerprint = None
    if state_path is not None:
        state_path = Path(f"{state_path}.{stage.name}.npz")
        fingerprint = fingerprint_of(stage, given, batch)
    return accumulate(
        Partial(sums_of_batch, stage, given),
        parts_of(batch, stage.fit.batch_size),
        state_path=state_path,
        fingerprint=fingerprint,
        progress=progress,
    )


def sums_of_batch(stage: Stage, given: Given, batch: Batch) -> dict[str, Any]:
    """Return the sums over one batch, in microbatches."""
    batch = with_weight(jax.tree.map(jnp.asarray, dict(batch)))
    size, batch_size = example_count(batch), stage.fit.batch_size
    of_part = functools.partial(sums_of_part, stage, given)
    if batch_size is None or batch_size >= size:
        return of_part(batch)
    return sum_over_chunks(of_part, chunks_of(batch, size, batch_size))


def parts_of(batch: Batch | Iterable[Batch], batch_size: int | None) -> Iterable[Batch]:
    """Return batches of one shape; of a single one, its microbatches in order."""
    if not isinstance(batch, Mapping):
        return batch
    size = example_count(batch)
    arrays = jax.tree.map(np.asarray, with_weight(batch))
    step = size if batch_size is None else batch_size
    if step < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, or None")
    parts = []
    for start in range(0, size, step):
        rows = np.arange(start, start + step)
        part = jax.tree.map(lambda x, rows=rows: x[np.minimum(rows, size - 1)], arrays)
        # Filled up with the last example, which then weighs nothing.
        part["weight"] = np.where(rows < size, part["weight"], 0.0).astype(np.float32)
        parts.append(part)
    return parts


def fingerprint_of(
    stage: Stage, given: Given, batch: Batch | Iterable[Batch]
) -> dict[str, Any]:
    """Return what a saved sum depends on: parameters, data and options, hashed."""
    digest = hashlib.sha256()
    for part in [batch] if isinstance(batch, Mapping) else batch:
        for name in sorted(part):
            array = np.asarray(part[name])
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    fit, key = stage.fit, given.key
    return {
        "stage": stage.name,
        "params": params_hash(given.params),
        "data": digest.hexdigest(),
        "layers": fit.layers,
        "batch_size": fit.batch_size,
        "fisher": fit.fisher,
        "key": None if key is None else jax.random.key_data(key).tolist(),
        "largest_factor": fit.largest_factor,
        "eigh": fit.eigh,
    }
