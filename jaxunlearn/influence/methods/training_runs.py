"""Influence through a training run: SOURCE by segments, and exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.influence.methods.directions import (
    MethodResult,
    Parts,
    query_gradients,
    whole,
)
from jaxunlearn.influence.methods.source import (
    Segment,
    kronecker_eigenbasis,
    source_influence,
)
from jaxunlearn.influence.methods.unrolled import unrolled_influence
from jaxunlearn.influence.work import Work, joined


def source_scores(work: Work, parts: Parts) -> MethodResult:
    """SOURCE, a segment a checkpoint, with EK-FAC."""
    if not work.checkpoints:
        raise ValueError("checkpoints is empty: source needs those of the training run")
    segments = []
    for done, point in enumerate(work.checkpoints):
        params = tree.cast(point.params, jnp.float32)
        factors = fit_ekfac(work.loss, params, work.train, layers=work.layers)
        basis = kronecker_eigenbasis(factors, params)
        segments.append(Segment([params], basis, point.learning_rate, point.steps))
        if work.progress is not None:
            work.progress(done + 1, len(work.checkpoints))
    last = segments[-1].checkpoints[0]
    gradients = whole(work.params, query_gradients(work, last, parts))
    places = np.cumsum(work.real) - 1
    places = np.where(work.real, places, -1).astype(np.int32)
    sizes = [example_count(batch) for batch in work.train]
    train = [
        {**batch, "index": part}
        for batch, part in zip(
            work.train, np.split(places, np.cumsum(sizes)[:-1]), strict=True
        )
    ]
    count = int(work.real.sum())
    found = source_influence(work.loss, segments, train, gradients, examples=count)
    return MethodResult(found, "fisher, ekfac", None, checkpoints=len(segments))


def unrolled_scores(work: Work, parts: Parts) -> MethodResult:
    """The exact derivative through the training run."""
    if work.run is None:
        raise ValueError(
            "run=None: unrolled goes through the training run again; give "
            "TrainingRun(step, state, batches), with a step of make_weighted_step"
        )
    query = jax.tree.map(lambda x: x[work.real_queries], dict(joined(work.query)))

    def losses(state: Any) -> jax.Array:
        found = work.query_loss(state.params, query)
        if parts.aggregate is None:
            return found
        return {"sum": jnp.sum, "mean": jnp.mean}[parts.aggregate](found)[None]

    count = int(work.real.sum())
    found = unrolled_influence(
        work.run.step,
        work.run.state,
        work.run.batches,
        losses,
        examples=count,
        progress=work.progress,
    )
    return MethodResult(
        found.scores,
        "the run's own",
        checkpoints=len(work.run.batches),
        covered={"tapped": 0},
    )
