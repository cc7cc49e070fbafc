"""The terms that objectives are composed of, ``L = gamma L_forget + alpha L_retain``.

A term gives each example a number, float32[B], and says how examples are averaged: by
their targets (tokens), so that every token of the batch counts the same, or one by one.
What a term needs of the starting parameters is computed once: columns of the batch, or
the starting parameters themselves, which the objective's state keeps.

Losses are taken without dropout, as the model is used. Padding counts for nothing,
where open-unlearning's KL and UNDIAL average over it too.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.batching import example_weights
from jaxunlearn.types import IGNORED_LABEL, Batch, Params
from jaxunlearn.unlearning.forms import Objective, Sets

RetainTerm = Literal["nll", "kl", "none"]


class Term(NamedTuple):
    """One term of an objective.

    Attributes:
      values: ``(params, start, batch) -> float32[B]``, lower is better; ``start`` are
        the starting parameters where ``keeps_start``, else None.
      by_target: Whether an example counts once for each of its targets.
      keeps_start: Whether the starting parameters are needed at every step.
      reference: ``(params, batch) -> {name: array[B]}``, computed once at the start.
    """

    values: Callable[[Params, Params | None, Batch], jax.Array]
    by_target: bool = False
    keeps_start: bool = False
    reference: Callable[[Params, Batch], Mapping[str, jax.Array]] | None = None


def nll(task: Any) -> Term:
    """Return the task's loss: cross-entropy, averaged over the batch's targets."""
    return Term(lambda params, start, batch: task(params, batch), by_target=True)


def kl(task: Any) -> Term:
    """Return ``KL(start || theta)`` of the outputs' distribution, a mean over targets.

    Zero, with zero gradient, at the starting parameters. Costs one more forward pass.
    """

    def values(params: Params, start: Params | None, batch: Batch) -> jax.Array:
        divergence = kl_divergence(
            jax.lax.stop_gradient(task.outputs(start, batch)),
            task.outputs(params, batch),
        )
        used = task.targets(batch) != IGNORED_LABEL
        axes = tuple(range(1, used.ndim))
        total = jnp.sum(jnp.where(used, divergence, 0.0), axes)
        return total / jnp.maximum(jnp.sum(used, axes), 1)

    return Term(values, by_target=True, keeps_start=True)


def kl_divergence(reference: jax.Array, logits: jax.Array) -> jax.Array:
    """Return ``sum_v p_v (log p_v - log q_v)``, [...] of logits [...,V], float32."""
    log_p = jax.nn.log_softmax(reference.astype(jnp.float32))
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def none(task: Any) -> Term:
    """Return a term that is 0."""
    return Term(lambda params, start, batch: jnp.zeros(len(example_weights(batch))))


RETAIN_TERMS = {"nll": nll, "kl": kl, "none": none}


def target_counts(task: Any, batch: Batch) -> jax.Array:
    """Return how many targets each example has, float32[B]; 1 where a task has none."""
    if not hasattr(task, "targets"):
        return jnp.ones_like(example_weights(batch))
    used = task.targets(batch) != IGNORED_LABEL
    return jnp.sum(used, tuple(range(1, used.ndim))).astype(jnp.float32)


def batch_mean(task: Any, term: Term, values: jax.Array, batch: Batch) -> jax.Array:
    """Return the mean of a term over a batch, float32[]."""
    shares = example_weights(batch)
    if term.by_target:
        shares = shares * target_counts(task, batch)
    # A padding row may hold anything; 0 times an infinity would be a NaN.
    total = jnp.sum(jnp.where(shares > 0, shares * values, 0.0))
    return total / jnp.maximum(jnp.sum(shares), 1.0)


def compose(
    task: Any,
    forget: Term,
    *,
    forget_weight: float,
    retain_weight: float,
    retain_term: RetainTerm,
) -> Objective:
    """Return the objective ``forget_weight L_F + retain_weight L_R``.

    Args:
      task: The task.
      forget: The term of the examples to forget.
      forget_weight: gamma.
      retain_weight: alpha.
      retain_term: L_R, one of ``RETAIN_TERMS``.

    Raises:
      ValueError: An unknown retain term, or a weight below 0.
    """
    if retain_term not in RETAIN_TERMS:
        raise ValueError(f"retain_term={retain_term!r}: one of {[*RETAIN_TERMS]}")
    for name, value in (
        ("forget_weight", forget_weight),
        ("retain_weight", retain_weight),
    ):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}: must be finite and at least 0")
    retain = RETAIN_TERMS[retain_term](task)
    parts = [(forget_weight, forget, "forget")]
    if retain_term != "none":
        parts.append((retain_weight, retain, "retain"))

    def init(params: Params, key: jax.Array) -> Params | None:
        return params if any(term.keeps_start for _, term, _ in parts) else None

    def loss(
        params: Params, state: Params | None, sets: Sets, key: jax.Array
    ) -> tuple[jax.Array, Params | None]:
        total = jnp.float32(0)
        for weight, term, name in parts:
            batch = getattr(sets, name)
            values = term.values(params, state, batch)
            total = total + weight * batch_mean(task, term, values, batch)
        return total, state

    return Objective(init, loss, forget.reference)
