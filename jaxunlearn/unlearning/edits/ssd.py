"""Selective synaptic dampening: shrink what matters to the forgotten above all else.

Foster et al., "Fast machine unlearning without retraining through selective synaptic
dampening", AAAI 2024, arXiv 2308.07707.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients import fisher_diagonal
from jaxunlearn.gradients.batching import with_weight
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Sets


def dampen_synapses(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    layers: str,
    alpha: float = 1.0,
    lambda_: float = 1.0,
    exponent: float = 1.0,
) -> Params:
    """Dampen the parameters that matter far more to the forgotten than to all data.

    Importance is the diagonal of the empirical Fisher matrix, ``F`` of the examples to
    forget and ``D`` of all data, that is of forget and retain together, each example
    counting the same; then :func:`dampen`. Since D holds F's examples, ``F / D`` is at
    most ``n / n_F``: with ``alpha`` above that nothing is selected.

    The official code squares the gradient of a mini-batch's mean loss. Of gradients
    that point apart that is smaller by up to the batch size, of alike ones it is not,
    so what it selects depends on the batch size, and its alpha of 10 goes with that.
    This squares example by example, and selects by default what matters more to the
    forgotten than to all data.

    Args:
      task: The per-example loss.
      params: Trained parameters.
      sets: Examples to forget, and to retain.
      layers: What to change.
      alpha: How much more a parameter must matter to the forgotten to be selected.
      lambda_: Strength: a selected one is multiplied by lambda D / F.
      exponent: Of that factor.

    Raises:
      ValueError: A number is negative, or no parameter is selected.

    Cost: a forward and a backward pass over both sets; three trees in memory.
    """
    check("alpha", alpha)
    check("lambda_", lambda_)
    check("exponent", exponent)
    parts = [
        [with_weight(b) for b in part] for part in (sets.forget, sets.retain or ())
    ]
    forget, retain = (
        fisher_diagonal(task, params, part, layers=layers) for part in parts
    )
    counts = [sum(float(np.sum(b["weight"])) for b in part) for part in parts]
    data = tree.add_scaled(
        tree.scaled(counts[0] / sum(counts), forget), counts[1] / sum(counts), retain
    )
    check_selection(forget, data, alpha)
    return dampen(
        params,
        forget,
        data,
        alpha=alpha,
        lambda_=lambda_,
        exponent=exponent,
    )


def dampen(
    params: Params,
    forget_importance: Params,
    data_importance: Params,
    *,
    alpha: float,
    lambda_: float = 1.0,
    exponent: float = 1.0,
) -> Params:
    """Return ``theta min((lambda D / F)^exponent, 1)`` where ``F > alpha D``.

    Elsewhere theta stays, bit for bit.

    Args:
      params: theta.
      forget_importance: F, a tree like ``params``, nowhere negative.
      data_importance: D, likewise.
      alpha: Selects; infinity selects nothing.
      lambda_: Strength; 0 sets what is selected to 0.
      exponent: Of the factor.

    >>> F, D = jnp.array([5.0, 20.0, 10.0, 200.0]), jnp.ones(4)
    >>> [round(float(x), 4) for x in dampen(jnp.ones(4), F, D, alpha=10.0)]
    [1.0, 0.05, 1.0, 0.005]
    """

    def dampened(x: jax.Array, f: jax.Array, d: jax.Array) -> jax.Array:
        # Infinity times 0 is a NaN, which is larger than nothing.
        selected = f > alpha * d
        factor = (lambda_ * d / jnp.where(selected, f, 1.0)) ** exponent
        shrunk = x.astype(jnp.float32) * jnp.minimum(factor, 1.0)
        return jnp.where(selected, shrunk, x.astype(jnp.float32))

    new = jax.tree.map(dampened, params, forget_importance, data_importance)
    return tree.rounded(new, params)


def check_selection(forget: Params, data: Params, alpha: float) -> None:
    """Refuse an ``alpha`` that selects no parameter."""
    ratios = jax.tree.map(
        lambda f, d: float(jnp.max(jnp.where(d > 0, f / jnp.where(d > 0, d, 1), 0))),
        forget,
        data,
    )
    largest = max(jax.tree.leaves(ratios))
    if not largest > alpha:
        raise ValueError(
            f"alpha={alpha}: no parameter matters that much more to the forgotten than "
            f"to all data, the most selective one {largest:.3g} times: lower alpha, or "
            f"choose other layers="
        )


def check(name: str, value: float) -> None:
    """Refuse a negative number, and NaN."""
    if not value >= 0:
        raise ValueError(f"{name}={value}: must be at least 0")
