"""Influence functions: by each inverse, relative to the change, and of themselves."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.gradients.batching import Static, compiled
from jaxunlearn.gradients.kronecker.cache import fits_in_memory
from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import (
    MEAN_EIGENVALUE,
    kronecker_inverse_vp,
)
from jaxunlearn.gradients.kronecker.query_scores import ekfac_scores
from jaxunlearn.gradients.per_example import per_example_gradients
from jaxunlearn.influence.methods.directions import (
    MethodResult,
    Parts,
    query_gradients,
    whole,
)
from jaxunlearn.influence.methods.inverses import (
    INVERSES,
    kronecker_factors,
    told_damping,
)
from jaxunlearn.influence.methods.products import by_directions, example_norms
from jaxunlearn.influence.resume import kept_directions, swept
from jaxunlearn.influence.work import Directions, Work
from jaxunlearn.types import Batch, Params, PerExampleLoss


def by_inverse(name: str) -> Callable[[Work, Parts], MethodResult]:
    """Return influence functions with one of the inverses."""

    def score(work: Work, parts: Parts) -> MethodResult:
        def invert() -> Directions:
            gradients = query_gradients(work, work.params, parts)
            return INVERSES[name](work, gradients)

        return by_directions(work, kept_directions(work, invert), parts)

    return score


def ekfac(work: Work, parts: Parts) -> MethodResult:
    """EK-FAC; in one pass over the data where only the scores are asked for."""
    only_scores = parts == Parts(None, False, False)
    if not only_scores or (work.state is not None and has_parts(work)):
        return by_inverse("ekfac")(work, parts)
    found = ekfac_scores(
        work.loss,
        work.params,
        work.train,
        work.query,
        query_loss=work.query_loss,
        layers=work.layers,
        damping=MEAN_EIGENVALUE if work.damping is None else work.damping,
        progress=work.progress,
    )
    kept = found.scores[np.ix_(work.real_queries, work.real)]
    return MethodResult(kept, "fisher, ekfac", found.damping)


def has_parts(work: Work) -> bool:
    """Return whether EK-FAC keeps finished parts: there are some, or it takes long."""
    assert work.state is not None  # asked by the caller
    if any(work.state.glob("*.npz")):
        return True
    return not fits_in_memory(
        work.loss, work.params, work.train, work.query, layers=work.layers
    )


def moved_norms(work: Work) -> tuple[np.ndarray, np.ndarray, Any, str, Any]:
    """Return ``|A^-1 g_i|`` and ``g_i . A^-1 g_i`` of every training example."""
    if work.inverse == "identity":
        norms = example_norms(work)
        return norms, norms**2, None, "none", None
    factors = kronecker_factors(work, fit_ekfac)
    rule = MEAN_EIGENVALUE if work.damping is None else work.damping

    static = Static((work.layers, rule))
    function = Partial(
        moved_by_batch, as_argument(work.loss), work.params, factors, static
    )

    def of_batches(batches: list[Batch]) -> dict[str, np.ndarray]:
        parts = [jax.device_get(compiled(function, dict(b))) for b in batches]
        norms, selves = (np.concatenate(x) for x in zip(*parts, strict=True))
        return {"norms": norms, "selves": selves}

    found = swept(work, of_batches, "moved")
    norms, selves = found["norms"][work.real], found["selves"][work.real]
    damping = told_damping(factors, rule)
    return norms, selves, factors, "fisher, ekfac", damping


def moved_by_batch(
    loss: PerExampleLoss, params: Params, factors: Any, static: Static, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Return both of :func:`moved_norms` for the examples of a batch."""
    layers, rule = static.value
    own = whole(params, per_example_gradients(loss, params, batch, layers=layers))
    moved = kronecker_inverse_vp(factors, own, damping=rule)
    return jax.vmap(tree.norm)(moved), jax.vmap(tree.vdot)(own, moved)


def relatif(work: Work, parts: Parts) -> MethodResult:
    """Theta-RelatIF (Barshan et al., 2020): influence over the parameters' change."""
    norms, _, factors, curvature, damping = moved_norms(work)
    gradients = query_gradients(work, work.params, parts)
    if factors is not None:
        rule = MEAN_EIGENVALUE if work.damping is None else work.damping
        gradients = kronecker_inverse_vp(
            factors, whole(work.params, gradients), damping=rule
        )
    found = by_directions(work, Directions(gradients, curvature, damping), parts)
    safe = np.where(norms > 0, norms, 1.0)
    return dataclasses.replace(found, scores=found.scores / safe)


def self_influence(work: Work, parts: Parts) -> MethodResult:
    """Each example's influence on itself, [1,n]."""
    _, selves, _, curvature, damping = moved_norms(work)
    return MethodResult(selves[None], curvature, damping)
