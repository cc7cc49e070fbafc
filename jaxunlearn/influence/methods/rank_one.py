"""Inverses made of the gradients of all training examples: exact, and DataInf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.batching import Static, example_count, mapped
from jaxunlearn.gradients.kronecker.inverse import MEAN_EIGENVALUE, Damping
from jaxunlearn.gradients.per_example import per_example_gradients
from jaxunlearn.gradients.solvers.result import require_damping
from jaxunlearn.influence.methods.directions import absolute_damping
from jaxunlearn.influence.work import Directions, Work
from jaxunlearn.types import Params

GRADIENT_BYTES = 2**32
"""Most memory for the gradients of all training examples at once."""


def by_woodbury(work: Work, queries: Params) -> Directions:
    """The exact inverse of the damped Fisher, through its n gradients."""
    damping = absolute_damping(work)
    gradients, weight = all_gradients(work)
    # Static, so that a damping of 0 is refused.
    given = (gradients, weight, Static(damping))
    found = mapped(Partial(woodbury_direction, *given), queries)
    return Directions(found, "fisher", damping)


def by_datainf(work: Work, queries: Params) -> Directions:
    """DataInf: the mean of the inverses of each example's damped Fisher."""
    gradients, weight = all_gradients(work)
    rule = MEAN_EIGENVALUE if work.damping is None else work.damping
    shared: Any = {"weights": weight, "stacked": work.stacked}
    if isinstance(rule, Damping) and rule.rule == "mean_eigenvalue":
        damping = solvers.datainf_damping(gradients, share=rule.value, **shared)
    else:
        damping = rule.value if isinstance(rule, Damping) else rule
    for leaf in jax.tree.leaves(damping):
        require_damping(leaf, positive=True)
    given = (gradients, weight, damping, Static(work.stacked))
    found = mapped(Partial(datainf_direction, *given), queries)
    told = (
        {
            name: np.ravel(np.asarray(x)).tolist()
            for name, x in tree.named_leaves(damping)
        }
        if isinstance(damping, dict)
        else float(damping)
    )
    return Directions(found, "fisher, DataInf", told)


def woodbury_direction(
    gradients: Params, weight: jax.Array, damping: Static, vector: Params
) -> Params:
    """Return one query's direction by :func:`by_woodbury`."""
    return solvers.woodbury_dual(
        gradients, vector, damping=damping.value, weights=weight
    ).value


def datainf_direction(
    gradients: Params, weight: jax.Array, damping: Any, stacked: Static, vector: Params
) -> Params:
    """Return one query's direction by :func:`by_datainf`."""
    return solvers.datainf(
        gradients, vector, damping=damping, weights=weight, stacked=stacked.value
    ).value


def all_gradients(work: Work) -> tuple[Params, jax.Array]:
    """Return the gradients of all training examples and their weights.

    Raises:
      ValueError: They would take more than ``GRADIENT_BYTES``.
    """
    count = sum(example_count(batch) for batch in work.train)
    needed = 4 * count * work.selected
    if needed > GRADIENT_BYTES:
        raise ValueError(
            f"the gradients of {count} examples on {work.selected} parameters are "
            f"{needed / 1e9:.1f} GB, more than {GRADIENT_BYTES / 1e9:.1f}: choose "
            f"fewer parameters by layers=, or another method (ekfac, cg, logra)"
        )
    gradients = per_example_gradients(
        work.loss, work.params, work.train, layers=work.layers
    )
    weight = np.concatenate([batch["weight"] for batch in work.train])
    return gradients, jnp.asarray(weight)
