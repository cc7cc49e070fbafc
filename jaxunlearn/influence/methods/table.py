"""The table of methods: name -> ``(work, parts) -> result``."""

import re
from collections.abc import Callable

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.influence.methods.directions import MethodResult, Parts, aggregated
from jaxunlearn.influence.methods.influence_functions import (
    by_inverse,
    ekfac,
    relatif,
    self_influence,
)
from jaxunlearn.influence.methods.inverses import INVERSES
from jaxunlearn.influence.methods.products import cosine, gradient_dot, tracin
from jaxunlearn.influence.methods.projected import projected_scores
from jaxunlearn.influence.methods.training_runs import source_scores, unrolled_scores
from jaxunlearn.influence.work import Work, joined


def by_projection(kind: str) -> Callable[[Work, Parts], MethodResult]:
    """Return TRAK or LoGra."""

    def score(work: Work, parts: Parts) -> MethodResult:
        found, damping, runs = projected_scores(work, kind)
        return MethodResult(
            aggregated(found, parts), "projected fisher", damping, checkpoints=runs
        )

    return score


def by_activations(kind: str) -> Callable[[Work, Parts], MethodResult]:
    """Return ``act_act`` or ``act_grad``."""

    def score(work: Work, parts: Parts) -> MethodResult:
        query = jax.tree.map(lambda x: x[work.real_queries], dict(joined(work.query)))
        found, layers = activation_scores(
            work.loss, work.params, work.train, query, kind=kind, layers=work.layers
        )
        found = np.asarray(found)[:, work.real]
        seen = f"^(?:{'|'.join(map(re.escape, layers))})$"
        mask = tree.select(work.params, seen, stacked=work.stacked)
        count = tree.selected_size(work.params, mask)
        covered = {"parameters": None, "tapped": count}
        return MethodResult(aggregated(found, parts), covered=covered)

    return score


METHODS: dict[str, Callable[[Work, Parts], MethodResult]] = {
    "gradient_dot": gradient_dot,
    "cosine": cosine,
    "tracin": tracin,
    **{name: by_inverse(name) for name in INVERSES if name != "identity"},
    "ekfac": ekfac,
    "relatif": relatif,
    "self_influence": self_influence,
    "trak": by_projection("trak"),
    "logra": by_projection("logra"),
    "source": source_scores,
    "unrolled": unrolled_scores,
    "act_act": by_activations("act_act"),
    "act_grad": by_activations("act_grad"),
}
"""The named table of methods."""


def method_name(method: str) -> str:
    """Return a method's name in ``METHODS``.

    Raises:
      ValueError: There is no such method.

    >>> method_name("influence_ekfac"), method_name("magic")
    ('ekfac', 'unrolled')
    """
    name = method.removeprefix("influence_")
    name = {"arnoldi": "lanczos", "magic": "unrolled", "identity": "gradient_dot"}.get(
        name, name
    )
    if name not in METHODS:
        raise ValueError(f"method={method!r}: one of {', '.join(METHODS)}")
    return name
