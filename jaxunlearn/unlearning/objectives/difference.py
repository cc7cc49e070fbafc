"""Gradient difference: up on what is to be forgotten, down on what is kept."""

from typing import Any

from jaxunlearn.unlearning.forms import Objective
from jaxunlearn.unlearning.objectives.terms import RetainTerm, Term, compose, nll


def grad_diff(
    task: Any,
    *,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    retain_term: RetainTerm = "nll",
) -> Objective:
    """Return gradient difference, ``-gamma CE_forget + alpha L_retain``.

    Each is a mean over the tokens of a batch.

    With ``retain_term="none"`` it is gradient ascent, with ``"kl"`` KL minimisation.

    Args:
      task: The task.
      forget_weight: gamma, of the forget term.
      retain_weight: alpha, of the retain term.
      retain_term: nll, kl (to the starting parameters) or none.

    Source: Liu et al. 2022, arXiv 2203.12817; defaults of open-unlearning
    (``grad_diff.py``). Unbounded below: stop it by a target or a limit.
    """
    loss = nll(task)
    ascent = Term(lambda *given: -loss.values(*given), by_target=True)
    return compose(
        task,
        ascent,
        forget_weight=forget_weight,
        retain_weight=retain_weight,
        retain_term=retain_term,
    )
