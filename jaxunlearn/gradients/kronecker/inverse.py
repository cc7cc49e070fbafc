"""Products with Kronecker-factored curvature and its damped inverse.

The coordinates of the eigenbasis are a tree of their own: matrix name ->
float32[...,*stack,L,R]. Curvature is diagonal there, and inner products are the same as
outside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients.kronecker.eigendecomposition import (
    rotate_matrix,
    rotate_matrix_back,
)
from jaxunlearn.gradients.kronecker.fit import KroneckerFactors
from jaxunlearn.gradients.kronecker.layout import (
    check_vectors,
    joined,
    selected,
    split,
)
from jaxunlearn.types import Params

Coordinates = dict[str, jax.Array]


class Damping(NamedTuple):
    """How much is added to every eigenvalue before it is inverted.

    Attributes:
      rule: ``"mean_eigenvalue"``, ``value`` times the mean eigenvalue of each layer; or
        ``"absolute"``, ``value`` itself.
      value: The share, or the number.
    """

    rule: str
    value: float


MEAN_EIGENVALUE = Damping("mean_eigenvalue", 0.1)
"""A tenth of each layer's mean eigenvalue (Grosse et al., Studying large language model
generalization with influence functions, https://arxiv.org/abs/2308.03296)."""


def damping_of(
    factors: KroneckerFactors, damping: float | jax.Array | Damping
) -> Coordinates:
    """Return what is added in each layer, float32[*stack,1,1] by matrix name.

    Raises:
      ValueError: The rule is unknown.
    """
    return {name: added_to(x, damping) for name, x in factors.eigenvalues.items()}


def added_to(eigenvalues: jax.Array, damping: float | jax.Array | Damping) -> jax.Array:
    """Return what is added to eigenvalues [...,L,R] of a layer, float32[...,1,1]."""
    rule, value = as_rule(damping)
    mean = eigenvalues.mean(axis=(-2, -1), keepdims=True)
    return value * mean if rule == "mean_eigenvalue" else 0 * mean + value


def as_rule(damping: float | jax.Array | Damping) -> Damping:
    """Return a number as a rule; refuse a rule that is unknown."""
    if not isinstance(damping, Damping):
        return Damping("absolute", damping)
    if damping.rule not in ("absolute", "mean_eigenvalue"):
        raise ValueError(
            f"damping rule {damping.rule!r}: must be 'absolute' or 'mean_eigenvalue'"
        )
    return damping


def rotate(factors: KroneckerFactors, vectors: Params) -> Coordinates:
    """Return the coordinates ``Q_L^T M Q_R`` of each matrix in the eigenbasis.

    Args:
      factors: From ``fit_kfac`` or ``fit_ekfac``.
      vectors: A tree like the parameters; or several, a leading axis Q on every leaf.

    Returns:
      Matrix name -> float32[*stack,L,R], after the leading axis Q if there is one;
      zeros for layers that are not covered.

    Raises:
      ValueError: ``vectors`` is not of the parameters' form.
    """
    check_vectors(factors.matrices, vectors)
    return {
        matrix.name: jnp.where(
            selected(matrix),
            rotate_matrix(joined(matrix, vectors), factors.bases[matrix.name]),
            0.0,
        )
        for matrix in factors.matrices
    }


def rotate_back(
    factors: KroneckerFactors, coordinates: Coordinates, like: Params
) -> Params:
    """Return the vectors of these coordinates: ``Q_L M Q_R^T`` of each matrix.

    Args:
      factors: Those that :func:`rotate` was given.
      coordinates: Of one vector, or of several.
      like: A tree of the result's form, the parameters say.

    Returns:
      A float32 tree; zeros where the factors do not cover the parameters.
    """
    lead = ()
    found: dict[str, jax.Array] = {}
    for matrix in factors.matrices:
        value = coordinates[matrix.name]
        lead = value.shape[: value.ndim - 2 - len(matrix.stack)]
        back = rotate_matrix_back(value, factors.bases[matrix.name])
        found |= split(matrix, back)
    leaves = [
        found[name] if name in found else jnp.zeros((*lead, *jnp.shape(leaf)))
        for name, leaf in tree.named_leaves(like)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def kronecker_vp(factors: KroneckerFactors, vectors: Params) -> Params:
    """Return ``F v``, F as the factors approximate it.

    Args and errors are those of :func:`kronecker_inverse_vp`.
    """
    coordinates = rotate(factors, vectors)
    scaled = {name: x * factors.eigenvalues[name] for name, x in coordinates.items()}
    return rotate_back(factors, scaled, without_lead(factors, vectors))


def kronecker_inverse_vp(
    factors: KroneckerFactors,
    vectors: Params,
    *,
    damping: float | jax.Array | Damping = MEAN_EIGENVALUE,
) -> Params:
    """Return ``(F + damping I)^-1 v``, F as the factors approximate it.

    Symmetric and, on the parameters that are covered, positive definite: also a
    preconditioner for conjugate gradients.

    Args:
      factors: From ``fit_kfac`` or ``fit_ekfac``.
      vectors: A tree like the parameters; or several, a leading axis Q on every leaf.
      damping: A number, or a rule.

    Returns:
      A float32 tree like ``vectors``; zeros for parameters that the factors do not
      cover, and for directions whose damped eigenvalue is 0.

    Raises:
      ValueError: ``vectors`` is not of the parameters' form, or the rule is unknown.

    Cost: ``4LR(L + R)`` flops a layer and vector.
    """
    coordinates = inverse_coordinates(factors, rotate(factors, vectors), damping)
    return rotate_back(factors, coordinates, without_lead(factors, vectors))


def inverse_coordinates(
    factors: KroneckerFactors,
    coordinates: Coordinates,
    damping: float | jax.Array | Damping = MEAN_EIGENVALUE,
) -> Coordinates:
    """Return coordinates divided by the damped eigenvalues; 0 where these are 0."""
    added = damping_of(factors, damping)
    return {
        name: divide(x, factors.eigenvalues[name] + added[name])
        for name, x in coordinates.items()
    }


def divide(x: jax.Array, eigenvalues: jax.Array) -> jax.Array:
    """Return ``x / eigenvalues``, and 0 where they are 0."""
    known = eigenvalues > 0
    return jnp.where(known, x / jnp.where(known, eigenvalues, 1.0), 0.0)


def without_lead(factors: KroneckerFactors, vectors: Params) -> Params:
    """Return shapes of a single vector."""
    lead = len(check_vectors(factors.matrices, vectors))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[lead:], jnp.float32), vectors
    )
