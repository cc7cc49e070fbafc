"""Negative preference optimisation: ascent that fades as an example is forgotten."""

import math
from typing import Any

import jax

from jaxunlearn.types import Batch, Params
from jaxunlearn.unlearning.forms import Objective
from jaxunlearn.unlearning.objectives.terms import (
    RetainTerm,
    Term,
    compose,
    target_counts,
)

REFERENCE = "reference_nll"
"""The column of a batch with each example's summed loss at the start."""


def npo(
    task: Any,
    *,
    beta: float = 0.1,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    retain_term: RetainTerm = "nll",
) -> Objective:
    """Return negative preference optimisation: ascent that fades where it succeeded.

    ``L_F = mean_x -(2 / beta) log sigmoid(beta (NLL_theta(x) - NLL_start(x)))`` with
    NLL the sum over an example's tokens. Its gradient is ascent's, each example
    weighted by ``2 sigmoid(-beta (NLL_theta - NLL_start))``: 1 at the start, whatever
    beta; as beta goes to 0 it is ascent everywhere.

    Args:
      task: The task.
      beta: How soon an example that is forgotten counts less.
      forget_weight: gamma, of the forget term.
      retain_weight: alpha, of the retain term.
      retain_term: nll, kl (to the starting parameters) or none.

    Source: Zhang et al. 2024, arXiv 2404.05868, eq. 3; defaults of open-unlearning
    (``npo.py``). MUSE's code takes differences of logits in place of sequence
    log-probabilities, and Unlearn-Smooth's of batch means: theirs have another beta.
    """
    check_beta(beta)

    def total(params: Params, batch: Batch) -> jax.Array:
        return task(params, batch) * target_counts(task, batch)

    def values(params: Params, start: Params | None, batch: Batch) -> jax.Array:
        return preference(beta, total(params, batch) - batch[REFERENCE])

    return compose(
        task,
        Term(values, reference=lambda params, batch: {REFERENCE: total(params, batch)}),
        forget_weight=forget_weight,
        retain_weight=retain_weight,
        retain_term=retain_term,
    )


def simnpo(
    task: Any,
    *,
    beta: float = 4.5,
    delta: float = 0.0,
    forget_weight: float = 0.125,
    retain_weight: float = 1.0,
    retain_term: RetainTerm = "nll",
) -> Objective:
    """Return SimNPO: NPO without a reference, by the mean loss of a token.

    ``L_F = mean_x -(2 / beta) log sigmoid(beta (NLL_theta(x) / |x| - delta))``.

    Args:
      task: The task.
      beta: How soon an example that is forgotten counts less.
      delta: Mean token loss from which an example counts as forgotten.
      forget_weight: gamma, of the forget term.
      retain_weight: alpha, of the retain term.
      retain_term: nll, kl (to the starting parameters) or none.

    Source: Fan et al. 2024, arXiv 2410.07163; defaults of open-unlearning
    (``simnpo.yaml``).
    """
    check_beta(beta)

    def values(params: Params, start: Params | None, batch: Batch) -> jax.Array:
        return preference(beta, task(params, batch) - delta)

    return compose(
        task,
        Term(values),
        forget_weight=forget_weight,
        retain_weight=retain_weight,
        retain_term=retain_term,
    )


def preference(beta: float, gap: jax.Array) -> jax.Array:
    """Return ``-(2 / beta) log sigmoid(beta gap)``, float32[B]."""
    return -(2.0 / beta) * jax.nn.log_sigmoid(beta * gap)


def check_beta(beta: float) -> None:
    """Refuse a beta that is not above 0, or no finite number."""
    if not 0 < beta < math.inf:
        raise ValueError(
            f"beta={beta}: must be finite and above 0 (ascent is grad_diff)"
        )
