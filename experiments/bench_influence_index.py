"""The index rows of bench_influence.py: a projected index on disk, and its query."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from bench_influence_fixture import (
    BATCH,
    BLOCKS,
    Fixture,
    Found,
    batch_of,
    batches_of,
)

from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.gradients.projections.rows import (
    gradient_row_layout,
    projected_gradients,
)
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.fisher import damped_inverse, projected_fisher
from jaxunlearn.influence.index.query import all_scores

PROJECTION = Projection("kronecker", (16, 16))


def compiled_rows(fixture: Fixture) -> tuple[Callable, tuple[Block, ...]]:
    """Return the function from a batch to rows, and their layout."""

    @jax.jit
    def rows(params, batch):
        return projected_gradients(
            fixture.loss, params, batch, PROJECTION, layers=BLOCKS
        )

    layout = gradient_row_layout(
        fixture.loss, fixture.params, batch_of(fixture.query), PROJECTION, layers=BLOCKS
    )
    return functools.partial(rows, fixture.params), layout


def build(fixture: Fixture, directory: Path, row: Callable, layout: tuple, dtype: str):
    batches = [
        batch | {"index": jnp.arange(i * BATCH, (i + 1) * BATCH)}
        for i, batch in enumerate(batches_of(fixture.train))
    ]
    return build_index(
        directory,
        row,
        batches,
        model_hash="benchmark",
        data_hash="benchmark",
        projection=PROJECTION,
        layout=layout,
        dtype=dtype,
        chunk_rows=len(fixture.train),
        resume=False,
    )


def index_build(fixture: Fixture) -> Callable[[], Found]:
    """An index on disk of the 64 training sequences, int8."""
    row, layout = compiled_rows(fixture)

    def run() -> Found:
        with tempfile.TemporaryDirectory() as folder:
            build(fixture, Path(folder) / "index", row, layout, "int8")
        return {}

    return run


def index_query(fixture: Fixture) -> Callable[[], Found]:
    """The index, and the scores of 16 queries with a damped Fisher between.

    Also finds what the row of one byte a number costs in quality: the rank correlation
    of its scores with those of float32 rows, and the bytes of each.
    """
    row, layout = compiled_rows(fixture)
    query = batch_of(fixture.query)

    def scores(dtype: str) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory() as folder:
            index = build(fixture, Path(folder) / "index", row, layout, dtype)
            stored = sum(
                f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()
            )
            inverse = damped_inverse(projected_fisher(index), share=0.1)
            queries = np.asarray(row(query))
            found = all_scores(index, queries, preconditioner=inverse)
        return found, stored

    def run() -> Found:
        return {"scores": scores("int8")[0]}

    run.quality = lambda: row_quality(scores)
    return run


def row_quality(scores: Callable) -> dict[str, float]:
    """Return bytes a row and the rank correlation with float32 rows."""
    from scipy.stats import spearmanr

    exact, large = scores("float32")
    found, small = scores("int8")
    each = [spearmanr(a, b).statistic for a, b in zip(exact, found, strict=True)]
    return {
        "bytes a row, int8": small / exact.shape[1],
        "bytes a row, float32": large / exact.shape[1],
        "rank correlation, mean over queries": float(np.mean(each)),
    }
