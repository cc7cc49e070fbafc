"""A few eigenpairs of a matrix known by its products: by Lanczos, by a sketch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxunlearn.gradients.solvers.result import require_matching
from jaxunlearn.randomness import pinned
from jaxunlearn.tree import cast, masked, selected_size
from jaxunlearn.types import LinearMap, Params

EPSILON = float(jnp.finfo(jnp.float32).eps)


class LowRank(NamedTuple):
    """``A ~ sum_k l_k q_k q_k^T``, largest magnitude first.

    Attributes:
      eigenvalues: l, float32[K].
      eigenvectors: q, a tree like the parameters, leaves [K, ...]; orthonormal, or 0
        where the eigenvalue is 0.
      smallest: float32[], the smallest eigenvalue that was seen of A, if only from
        above: a negative one tells that A is not positive semi-definite.
    """

    eigenvalues: jax.Array
    eigenvectors: Params
    smallest: jax.Array


@pinned
def lanczos_eigenpairs(
    linear_map: LinearMap,
    params: Params,
    *,
    rank: int,
    key: jax.Array,
    steps: int | None = None,
    mask: Params | None = None,
) -> LowRank:
    """Return the ``rank`` eigenpairs of A of largest magnitude, by Lanczos.

    matfree's Arnoldi iteration with full reorthogonalisation from a random start
    (Schioppa et al., Scaling up influence functions, 2022), which for a symmetric A is
    Lanczos'. Negative eigenvalues are found like positive ones; of an eigenvalue with
    several eigenvectors, one.

    Args:
      linear_map: ``v -> A v``, A symmetric.
      params: Any tree of the parameters' shapes.
      rank: K, the eigenpairs returned.
      key: Draws the start.
      steps: Products with A, at least ``rank``; None takes ``2 rank + 10``, or as many
        as there are parameters. The more, the more exact the pairs.
      mask: Where False, parameters are left out; A must be zero there.

    Raises:
      ValueError: ``rank`` is below 1 or above ``steps``, or ``steps`` above the number
        of parameters.

    Cost: ``steps`` products, and as many vectors in memory.
    """
    from matfree import decomp

    start, product, unflatten, size = on_flat_vectors(linear_map, params, mask, key)
    if steps is None:
        steps = min(2 * rank + 10, size)
    if not 1 <= rank <= steps <= size:
        raise ValueError(
            f"rank={rank}, steps={steps}: needed is 1 <= rank <= steps <= {size}, the "
            "number of parameters"
        )
    decompose = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    basis, matrix, _, _ = decompose(product, start(key))
    # Where the start's part of A's range is used up, the next direction is rounding
    # divided by its length, or 0 / 0: it and those after it count for nothing.
    lengths = jnp.diagonal(matrix, -1)
    largest = jnp.nanmax(jnp.abs(matrix))
    going = jnp.cumprod(lengths > 100 * EPSILON * largest).astype(bool)
    found = jnp.concatenate([jnp.array([True]), going])
    basis = jnp.where(found[:, None], basis, 0.0)
    matrix = jnp.where(found[:, None] & found[None, :], matrix, 0.0)
    eigenvalues, rotation = jnp.linalg.eigh((matrix + matrix.T) / 2)
    order = jnp.argsort(-jnp.abs(eigenvalues))[:rank]
    vectors = rotation[:, order].T @ basis
    # LAPACK may give numbers for a matrix that holds a NaN of A's.
    lost = jnp.isnan(matrix).any()
    return LowRank(
        jnp.where(lost, jnp.nan, eigenvalues[order]),
        jax.vmap(unflatten)(vectors),
        smallest_of(eigenvalues),
    )


@pinned
def nystroem_eigenpairs(
    linear_map: LinearMap,
    params: Params,
    *,
    rank: int,
    key: jax.Array,
    mask: Params | None = None,
) -> LowRank:
    """Return Nystroem's approximation of A from its products with random vectors.

    ``A ~ (A W) (W^T A W)^+ (A W)^T``, W with ``rank`` random orthonormal columns, made
    of ``A + shift I`` and the shift taken off again, so that rounding leaves
    ``W^T A W`` positive (Frangella, Tropp and Udell, Randomized Nystroem
    preconditioning, 2021, algorithm 2.1). Never above A; exact if A's rank is at most
    ``rank``.

    Args:
      linear_map: ``v -> A v``, A symmetric positive semi-definite.
      params: Any tree of the parameters' shapes.
      rank: K, products with A.
      key: Draws W.
      mask: Where False, parameters are left out; A must be zero there.

    Raises:
      ValueError: ``rank`` is below 1 or above the number of parameters.

    Cost: ``rank`` products, one at a time; memory of about four times ``rank`` trees.
    """
    start, product, unflatten, size = on_flat_vectors(linear_map, params, mask, key)
    if not 1 <= rank <= size:
        raise ValueError(
            f"rank={rank}: needed is 1 <= rank <= {size}, the number of parameters"
        )
    columns = jax.lax.map(start, jax.random.split(key, rank)).T
    columns = jnp.linalg.qr(columns)[0]
    images = jax.lax.map(product, columns.T).T
    shift = size**0.5 * EPSILON * jnp.linalg.norm(images)
    images = images + shift * columns
    core = columns.T @ images
    # Eigenvalues in place of the algorithm's Cholesky: they tell a negative curvature.
    values, rotation = jnp.linalg.eigh((core + core.T) / 2)
    kept = values > rounding_of(values)
    roots = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1.0)), 0.0)
    vectors, singular_values, _ = jnp.linalg.svd(
        images @ (rotation * roots), full_matrices=False
    )
    eigenvalues = jnp.maximum(singular_values**2 - shift, 0.0)
    vectors = jnp.where(eigenvalues > 0, vectors, 0.0)
    return LowRank(eigenvalues, jax.vmap(unflatten)(vectors.T), smallest_of(values))


def on_flat_vectors(
    linear_map: LinearMap, params: Params, mask: Params | None, key: jax.Array
):
    """Return A on flat vectors: random start by key, product, way back, and size."""
    params = cast(params, jnp.float32)
    flat, unflatten = ravel_pytree(params)
    chosen, size = jnp.ones(flat.shape, bool), flat.size
    if mask is not None:
        ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
        chosen = ravel_pytree(masked(ones, mask))[0] > 0
        size = selected_size(params, mask)
    require_matching(linear_map, params)

    def start(key: jax.Array) -> jax.Array:
        return jnp.where(chosen, jax.random.normal(key, flat.shape, flat.dtype), 0.0)

    def product(vector: jax.Array) -> jax.Array:
        image = ravel_pytree(cast(linear_map(unflatten(vector)), jnp.float32))[0]
        return jnp.where(chosen, image, 0.0)

    return start, product, unflatten, size


def rounding_of(eigenvalues: jax.Array) -> jax.Array:
    """Return the size below which an eigenvalue of float32 products may be rounding."""
    return 10 * EPSILON * len(eigenvalues) * jnp.abs(eigenvalues).max()


def smallest_of(eigenvalues: jax.Array) -> jax.Array:
    """Return the smallest eigenvalue, 0 where it may be rounding."""
    smallest = eigenvalues.min()
    return jnp.where(jnp.abs(smallest) <= rounding_of(eigenvalues), 0.0, smallest)
