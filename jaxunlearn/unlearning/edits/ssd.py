"""Selective synaptic dampening: shrink what matters to the forgotten above all else.

Foster et al., "Fast machine unlearning without retraining through selective synaptic
dampening", AAAI 2024, arXiv 2308.07707, equations 8 to 10.
"""

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients import fisher_diagonal
from jaxunlearn.gradients.batching import with_weight
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Sets


def ssd(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    layers: str,
    alpha: float = 10.0,
    lambda_: float = 1.0,
    exponent: float = 1.0,
) -> Params:
    """Dampen the parameters that matter far more to the forgotten than to all data.

    Importance is the diagonal of the empirical Fisher matrix, ``F`` of the examples to
    forget and ``D`` of all data, that is of forget and retain together, each example
    counting the same; then :func:`dampen`. Since D holds F's examples, ``F / D`` is at
    most ``n / n_F``: with ``alpha`` above that nothing is selected.

    The official code squares the gradient of a mini-batch's mean loss, which is about
    ``1 / batch size`` of this for D and, of examples alike, not for F: what it selects
    depends on the batch size. This one squares example by example, as the paper's
    equation does, and depends on no batch.

    Args:
      task: The per-example loss.
      params: Trained parameters.
      sets: Examples to forget, and to retain.
      layers: What to change.
      alpha: How much more a parameter must matter to the forgotten to be selected.
      lambda_: Strength: a selected one is multiplied by lambda D / F.
      exponent: Of that factor.
    """
    check("alpha", alpha)
    check("lambda_", lambda_)
    check("exponent", exponent)
    forget, retain = list(sets.forget), list(sets.retain or ())
    importances = [
        fisher_diagonal(task, params, batches, layers=layers)
        for batches in (forget, retain)
    ]
    counts = [
        sum(float(jnp.sum(with_weight(batch)["weight"])) for batch in batches)
        for batches in (forget, retain)
    ]
    shares = [count / sum(counts) for count in counts]
    everything = tree.add_scaled(
        tree.scaled(shares[0], importances[0]), shares[1], importances[1]
    )
    return dampen(
        params,
        importances[0],
        everything,
        alpha=alpha,
        lambda_=lambda_,
        exponent=exponent,
    )


def dampen(
    params: Params,
    forget_importance: Params,
    data_importance: Params,
    *,
    alpha: float = 10.0,
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
    >>> dampen(jnp.ones(4), F, D).round(4).tolist()
    [1.0, 0.05000000074505806, 1.0, 0.004999999888241291]
    """

    def dampened(x: jax.Array, f: jax.Array, d: jax.Array) -> jax.Array:
        # Infinity times 0 is a NaN, which is larger than nothing.
        selected = f > alpha * d
        factor = (lambda_ * d / jnp.where(selected, f, 1.0)) ** exponent
        shrunk = x.astype(jnp.float32) * jnp.minimum(factor, 1.0)
        return jnp.where(selected, shrunk, x.astype(jnp.float32))

    new = jax.tree.map(dampened, params, forget_importance, data_importance)
    return tree.rounded(new, params)


def check(name: str, value: float) -> None:
    """Refuse a negative number, and NaN."""
    if not value >= 0:
        raise ValueError(f"{name}={value}: must be at least 0")
