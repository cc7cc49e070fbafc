"""What methods share: the queries' gradients, and directions made of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.kronecker.inverse import MEAN_EIGENVALUE, Damping
from jaxunlearn.gradients.per_example import per_example_gradients
from jaxunlearn.influence.work import Work, mean_eigenvalue_damping
from jaxunlearn.types import Params


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which parts of the scores are asked for."""

    aggregate: str | None
    by_layer: bool
    by_token: bool
    directions: bool = False


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """What a method returns."""

    scores: np.ndarray
    curvature: str = "none"
    damping: Any = None
    notes: tuple[str, ...] = ()
    by_layer: dict[str, np.ndarray] | None = None
    by_token: np.ndarray | None = None
    checkpoints: int = 1
    covered: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What its coverage is in place of that of gradients."""
    directions: dict[str, jax.Array] | None = None


def query_gradients(work: Work, params: Params, parts: Parts) -> Params:
    """Return the queries' gradients, leaves [Q, ...]; of all as one, [1, ...]."""
    gradients = per_example_gradients(
        work.query_loss, params, work.query, layers=work.layers
    )
    gradients = jax.tree.map(lambda x: x[jnp.asarray(work.real_queries)], gradients)
    if parts.aggregate is None:
        return gradients
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[parts.aggregate]
    return jax.tree.map(lambda x: reduce(x, axis=0, keepdims=True), gradients)


def whole(params: Params, queries: Params) -> Params:
    """Return the queries' gradients as trees like the parameters, 0 elsewhere."""
    given = dict(tree.named_leaves(queries))
    count = len(next(iter(given.values())))
    leaves = [
        given[name] if name in given else jnp.zeros((count, *jnp.shape(leaf)))
        for name, leaf in tree.named_leaves(params)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def aggregated(scores: np.ndarray, parts: Parts) -> np.ndarray:
    """Return scores of single queries as one row, where that is asked for."""
    if parts.aggregate is None:
        return scores
    reduce = {"sum": np.sum, "mean": np.mean}[parts.aggregate]
    return reduce(scores, axis=0, keepdims=True)


def absolute_damping(work: Work) -> float:
    """Return the damping as a number, by the rule where it is one."""
    rule = MEAN_EIGENVALUE if work.damping is None else work.damping
    if isinstance(rule, Damping) and rule.rule == "mean_eigenvalue":
        return mean_eigenvalue_damping(work, rule.value)
    return float(rule.value if isinstance(rule, Damping) else rule)
