"""SOURCE: unrolled influence from a few checkpoints, a segment of training at a time.

Within a segment the Hessian and each example's gradient are taken as constant, so that
its K steps of length eta are ``exp(-eta K H)`` in closed form. What a query asks of the
parameters is carried back through the segments, and met by the examples' gradients at
each segment's checkpoints.

Source: Bae et al., Training data attribution via approximate unrolled differentiation,
2024.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.gradient_inner_products import products_with
from jaxunlearn.gradients.kronecker.fit import KroneckerFactors
from jaxunlearn.gradients.kronecker.inverse import rotate, rotate_back
from jaxunlearn.types import Batch, Params, PerExampleLoss


class Eigenbasis(NamedTuple):
    """A symmetric matrix ``H = R^T diag(eigenvalues) R`` on parameter trees."""

    rotate: Callable[[Params], Any]  # R v: the coordinates of a tree
    rotate_back: Callable[[Any], Params]  # R^T
    eigenvalues: Any  # a tree like the coordinates


class Segment(NamedTuple):
    """A stretch of training that one constant Hessian stands for.

    Attributes:
      checkpoints: Parameters seen in it; the gradients are averaged over them.
      curvature: Hessian (or Gauss-Newton, Fisher) of the mean loss over it.
      learning_rate: Mean over it. For SGD with momentum m, divided by 1 - m.
      steps: How many.
    """

    checkpoints: Sequence[Params]
    curvature: Eigenbasis
    learning_rate: float
    steps: int


def source_influence(
    loss: PerExampleLoss,
    segments: Sequence[Segment],
    train: Iterable[Batch],
    query_gradients: Params,
    *,
    examples: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return SOURCE's approximation of the unrolled influence, float32[Q, examples].

    ``sum_l <query_l, mean over the segment's checkpoints of g_i> / N``, ``query_l``
    from :func:`segment_queries`: what :func:`unrolled_influence` returns, for SGD on
    batches drawn from all of the data. Adam's step is no multiple of the gradient, so
    for a run with Adam it is a heuristic.

    Args:
      loss: Per-example loss.
      segments: In the order of training.
      train: Batches of the training data with ``index``, re-iterable, of one shape.
      query_gradients: Of the query losses at the last parameters, leaves [Q, ...].
      examples: N.
      progress: Called with (checkpoints done, checkpoints in all).

    Raises:
      ValueError: There is no segment, or one without checkpoint, step or rate.

    Cost: a gradient pass over the data a checkpoint, and its products with the queries.
    """
    check_segments(segments)
    products = jax.jit(functools.partial(products_with, loss))
    queries = jax.tree.leaves(query_gradients)[0].shape[0]
    scores = np.zeros((queries, examples), np.float32)
    checkpoints = sum(len(segment.checkpoints) for segment in segments)
    done = 0
    directions = segment_queries(query_gradients, segments)
    for segment, direction in zip(segments, directions, strict=True):
        share = np.float32(1.0 / (examples * len(segment.checkpoints)))
        for params in segment.checkpoints:
            for batch in train:
                index = np.asarray(batch["index"])
                real = index >= 0
                part = np.asarray(products(params, batch, direction))
                scores[:, index[real]] += share * part[:, real]
            done += 1
            if progress is not None:
                progress(done, checkpoints)
    return scores


def segment_queries(
    query_gradients: Params, segments: Sequence[Segment]
) -> list[Params]:
    """Return what the queries ask of each segment's gradients, in the segments' order.

    ``query_l = H_l^-1 (I - exp(-t_l H_l)) exp(-t_{l+1} H_{l+1}) ... exp(-t_L H_L) g_q``
    with ``t = eta K``. An eigenvalue 0 is no trouble: ``(1 - exp(-t x)) / x -> t``. So
    no damping is needed: a short segment is t times the gradient (TracIn's term), a
    long one with positive eigenvalues the inverse Hessian (influence function).

    Args:
      query_gradients: At the last parameters, leaves [Q, ...].
      segments: In the order of training.
    """
    carried, asked = query_gradients, []
    for segment in reversed(segments):
        basis, time = segment.curvature, segment.learning_rate * segment.steps
        coordinates = jax.vmap(basis.rotate)(carried)
        taken = jax.tree.map(
            lambda c, x, t=time: c * taken_up(t, x), coordinates, basis.eigenvalues
        )
        left = jax.tree.map(
            lambda c, x, t=time: c * jnp.exp(-t * x), coordinates, basis.eigenvalues
        )
        asked.append(jax.vmap(basis.rotate_back)(taken))
        carried = jax.vmap(basis.rotate_back)(left)
    return asked[::-1]


def taken_up(time: float, eigenvalue: jax.Array) -> jax.Array:
    """Return ``(1 - exp(-t x)) / x``, and t at x = 0."""
    exponent = time * eigenvalue
    safe = jnp.where(exponent == 0, 1.0, exponent)
    return time * jnp.where(exponent == 0, 1.0, -jnp.expm1(-safe) / safe)


def dense_eigenbasis(matrix: jax.Array, params: Params) -> Eigenbasis:
    """Return the eigenbasis of a symmetric matrix over the raveled parameters.

    Args:
      matrix: [P, P], for a model small enough to have one.
      params: A tree of P parameters, whose order ``ravel_pytree`` decides.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    if matrix.shape != (flat.size, flat.size):
        raise ValueError(
            f"matrix of shape {matrix.shape}: {(flat.size, flat.size)} needed, for "
            f"{flat.size} parameters"
        )
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    return Eigenbasis(
        lambda tree: jax.flatten_util.ravel_pytree(tree)[0] @ vectors,
        lambda coordinates: unravel(vectors @ coordinates),
        eigenvalues,
    )


def kronecker_eigenbasis(factors: KroneckerFactors, params: Params) -> Eigenbasis:
    """Return the eigenbasis of K-FAC or EK-FAC factors.

    Parameters that the factors leave out have no part in the scores.

    Args:
      factors: From ``fit_kfac`` or ``fit_ekfac``, the paper's choice.
      params: A tree of the parameters' form.
    """
    return Eigenbasis(
        functools.partial(rotate, factors),
        lambda coordinates: rotate_back(factors, coordinates, params),
        factors.eigenvalues,
    )


def check_segments(segments: Sequence[Segment]) -> None:
    """Refuse a run that has no length."""
    if len(segments) == 0:
        raise ValueError("segments is empty: give at least one")
    for number, segment in enumerate(segments):
        if not segment.checkpoints or segment.steps < 1 or segment.learning_rate < 0:
            raise ValueError(
                f"segments[{number}] has {len(segment.checkpoints)} checkpoints, "
                f"steps={segment.steps} and learning_rate={segment.learning_rate}: at "
                f"least 1, 1 and 0 needed"
            )
