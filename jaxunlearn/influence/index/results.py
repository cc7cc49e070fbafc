"""An index of a model's gradients: built, held to fit the model, and its scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.gradients.projections.rows import (
    gradient_row_layout,
    projected_gradients,
)
from jaxunlearn.influence.coverage import coverage_of
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import Index, open_index
from jaxunlearn.influence.index.query import Precondition, all_scores
from jaxunlearn.influence.index.reading import stored_ids
from jaxunlearn.influence.result import InfluenceScores
from jaxunlearn.provenance import data_hash, params_hash
from jaxunlearn.types import Batch, Params, PerExampleLoss


def check_records(index: Index, records: list[dict]) -> None:
    """Refuse records that are not those whose gradients an index holds.

    Raises:
      ValueError: It holds several data sets, or that of other records; or its ids are
        damaged.
    """
    if len(index.parts) > 1:
        raise ValueError(
            f"{index.directory} holds {len(index.parts)} data sets, and this reads "
            f"one: query it by jaxunlearn.influence.top_k"
        )
    if data_hash(records) != index.parts[0].data_hash:
        raise ValueError(
            f"the training records are not the data that {index.directory} was built "
            f"from (the hash differs): its texts would be those of other records"
        )
    if set(stored_ids(index)) != set(range(len(records))):
        raise ValueError(
            f"{index.directory / 'ids'} is damaged: it does not name the training "
            f"records one by one; restore it, or build the index again"
        )


def build_gradient_index(
    directory: Path,
    loss: PerExampleLoss,
    params: Params,
    batches: Sequence[Batch],
    projection: Projection,
    *,
    layers: str | None = None,
    **options: Any,
) -> Index:
    """Build an index of projected gradients, or finish one.

    Args:
      directory: Of the index.
      loss: The per-example loss.
      params: Where gradients are taken.
      batches: The training data.
      projection: How a gradient becomes a row.
      layers: Regular expression of the parameters that count; None is all.
      **options: Of :func:`~.build.build_index`.
    """
    layout = gradient_row_layout(loss, params, batches[0], projection, layers=layers)

    @jax.jit
    def rows(params: Params, batch: Batch) -> jax.Array:
        return projected_gradients(loss, params, batch, projection, layers=layers)

    return build_index(
        directory,
        lambda batch: rows(params, dict(batch)),
        batches,
        model_hash=params_hash(params),
        projection=projection,
        layout=layout,
        **options,
    )


def query_rows(
    index: Index,
    loss: PerExampleLoss,
    params: Params,
    query: Sequence[Batch],
    count: int,
) -> tuple[Index, np.ndarray]:
    """Return the index, held to fit the model, and the rows of queries.

    Args:
      index: An opened index.
      loss: The per-example loss.
      params: The parameters that it was built with.
      query: Batches of queries.
      count: How many queries those are, without the padding.

    Raises:
      ValueError: It was built with other parameters, or its rows are laid out
        otherwise.
    """
    how = {"layers": index.about.get("layers")}
    layout = gradient_row_layout(loss, params, query[0], index.projection, **how)
    index = open_index(index.directory, model_hash=params_hash(params), layout=layout)
    rows = projected_gradients(loss, params, query, index.projection, **how)
    return index, np.asarray(rows)[:count]


def index_scores(
    index: Index,
    rows: np.ndarray,
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    *,
    cosine: bool,
    damping_share: float | None,
    preconditioner: Precondition | None,
) -> InfluenceScores:
    """Return the scores of queries with all rows, and what is to be known of them.

    Args:
      index: An opened index.
      rows: Of the queries.
      loss: The per-example loss.
      params: The parameters that it was built with.
      batch: Of training data, to see which parameters are covered.
      cosine: Divide by the lengths of both rows.
      damping_share: Of the preconditioner, as a share of each layer's mean eigenvalue;
        None without one.
      preconditioner: See :func:`~.query.top_k`.
    """
    coverage = coverage_of(loss, params, batch, index.about.get("layers"))
    return InfluenceScores(
        scores=all_scores(index, rows, cosine=cosine, preconditioner=preconditioner),
        method="index_cosine" if cosine else "index",
        coverage=coverage | {"checkpoints": 1},
        curvature="none" if damping_share is None else "projected fisher",
        damping=None
        if damping_share is None
        else f"{damping_share:g} of each layer's mean eigenvalue",
        notes=(),
        index=stored_ids(index).astype(np.int64),
    )
