"""The scores that are said to quantify unlearning, as programs over all seeds at once.

Each is ``S(z, F)``: what the group F to forget is to an example z, at one model. The
score of a model is the mean over z in F, the group on itself. With g the gradient of
the group's mean loss, g_z that of z, g_1 what was recorded of the group in the first
epoch, H the Hessian and A the Fisher matrix (EK-FAC) of the mean training loss, m the
mean activation at a layer::

    gradient_dot  <g_z, g>                   group on itself: |g|^2
    stored_dot    <g_z, g_1>
    hvp           <g_z, H g> / |g|^2         group on itself: g^T H g / |g|^2
    inverse_hvp   <g_z, (A + damping I)^-1 g>
    act_act        sum_l <m_z[l], m_F[l]>
    act_grad      -sum_l <m_F[l], sum_t d loss_z / d a_z[l,t]>
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper.laboratory import Lab
from experiments.paper.matched import Key
from jaxunlearn import tree
from jaxunlearn.gradients import directional_scores, hvp
from jaxunlearn.gradients.kronecker import fit_ekfac
from jaxunlearn.gradients.kronecker_inverse import kronecker_inverse_vp
from jaxunlearn.influence import activation_scores
from jaxunlearn.influence.weighted_training import take_batch
from jaxunlearn.types import Batch, Params

CURVATURE_EXAMPLES = 64  # kept ones, besides all those to forget


def group_gradient(lab: Lab, params: Params, group: Batch) -> Params:
    """Return the gradient of the group's mean loss."""
    return jax.grad(lambda p: jnp.mean(lab.model.per_example_loss(p, group)))(params)


def along(lab: Lab, params: Params, queries: Batch, vector: Params) -> jax.Array:
    """Return ``<g_z, v>`` of each query, one forward-mode sweep."""
    return directional_scores(lab.model.per_example_loss, params, queries, vector)


def gradient_dot(lab, params, group, queries, curvature, stored):
    return along(lab, params, queries, group_gradient(lab, params, group))


def stored_dot(lab, params, group, queries, curvature, stored):
    return along(lab, params, queries, stored)


def hvp_score(lab, params, group, queries, curvature, stored):
    own = group_gradient(lab, params, group)
    # Along the unit gradient: the product with a small one would lose its bits.
    length = tree.norm(own)
    safe = jnp.where(length > 0, length, 1.0)
    unit = tree.scaled(1 / safe, own)
    moved = hvp(lab.model.per_example_loss, params, curvature, unit)
    return along(lab, params, queries, moved) / safe


def inverse_hvp(lab, params, group, queries, curvature, stored):
    factors = fit_ekfac(lab.model.per_example_loss, params, curvature)
    own = group_gradient(lab, params, group)
    return along(lab, params, queries, kronecker_inverse_vp(factors, own))


def activations(kind, lab, params, group, queries, curvature, stored):
    found = activation_scores(
        lab.model.per_example_loss, params, group, queries, kind=kind
    )
    return found.scores.mean(axis=1)


def loss(lab, params, group, queries, curvature, stored):
    """Minus the loss: high for what is known, as the scores are."""
    return -lab.model.per_example_loss(params, queries)


PROGRAMS: dict[str, Callable] = {
    "gradient_dot": gradient_dot,
    "stored_dot": stored_dot,
    "hvp": hvp_score,
    "inverse_hvp": inverse_hvp,
    "act_act": functools.partial(activations, "act_act"),
    "act_grad": functools.partial(activations, "act_grad"),
    "loss": loss,
}
"""Name -> ``(lab, params, group, queries, curvature, stored) -> float32[queries]``."""


@functools.lru_cache(maxsize=64)
def program(key: Key, name: str) -> Callable:
    """Return a jitted score over seeds: ``(params, queries, stored) -> [seeds, n]``."""
    lab = key.lab
    rows, weights = curvature_rows(lab)

    def one(params, queries, stored, forget, rows):
        group = take_batch(lab.sets.train, forget)
        curvature = take_batch(lab.sets.train, rows) | {"weight": jnp.asarray(weights)}
        return PROGRAMS[name](lab, params, group, queries, curvature, stored)

    mapped = jax.jit(jax.vmap(one))
    return lambda params, queries, stored: mapped(
        params, queries, stored, lab.sets.forget, rows
    )


def curvature_rows(lab: Lab) -> tuple[np.ndarray, np.ndarray]:
    """Return rows [seeds, n], the forgotten first, and weights [n] as in training."""
    kept, forget = lab.sets.kept, lab.sets.forget
    count = min(CURVATURE_EXAMPLES, kept.shape[1])
    chosen = np.linspace(0, kept.shape[1] - 1, count).astype(int)
    weights = [1.0] * forget.shape[1] + [kept.shape[1] / count] * count
    return (
        np.concatenate([forget, kept[:, chosen]], axis=1),
        np.asarray(weights, np.float32),
    )
