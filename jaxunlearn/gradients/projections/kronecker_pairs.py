"""Two-sided projections of layers' gradients, from their factors (LoGra).

The gradient of a layer, ``G_b = sum_t left_bt right_bt^T``, becomes the small matrix
``P_L^T G_b P_R = sum_t (P_L^T left_bt)(P_R^T right_bt)^T``, which never needs G_b. Laid
out flat it is the projection of G_b by the Kronecker product of P_L and P_R.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.gradients.projections.random_matrices import (
    check_dimension,
    named_keys,
    random_rows,
)
from jaxunlearn.gradients.taps.outer_products import (
    OuterProducts,
    float32_einsum,
    projections,
)
from jaxunlearn.randomness import pinned
from jaxunlearn.tree import layer_names, stacked_prefix

Shapes = Mapping[str, tuple[int, ...]]
"""A matrix shape (L, R) for each parameter's name; (N, L, R) for a stacked one."""

Matrices = Mapping[str, tuple[jax.Array, jax.Array]]
"""P_L [L,k] and P_R [R,m] of each layer, stacked ones layer by layer."""


class Block(NamedTuple):
    """Where a layer's numbers stand in a row."""

    layer: str
    offset: int
    size: int


def kronecker_layout(
    shapes: Shapes, dimensions: tuple[int, int], *, stacked: tuple[str, ...] = ()
) -> tuple[Block, ...]:
    """Return each layer's place in a row: layers sorted by name, stacked ones in order.

    A layer takes min(L,k) x min(R,m) numbers.

    ``stacked`` names the folders of stacked layers, as for ``tree.select``.

    >>> shapes = {"head": (5, 64), "h/mlp/bias": (2, 1, 64)}
    >>> kronecker_layout(shapes, (16, 16), stacked=("h",))
    (Block(layer='h/0/mlp/bias', offset=0, size=16),
     Block(layer='h/1/mlp/bias', offset=16, size=16),
     Block(layer='head', offset=32, size=80))
    """
    left, right = dimensions
    check_dimension(min(dimensions))
    blocks: list[Block] = []
    offset = 0
    for name in sorted(shapes):
        layers = names_of(name, shapes[name], stacked)
        size = min(shapes[name][-2], left) * min(shapes[name][-1], right)
        for layer in layers:
            blocks.append(Block(layer, offset, size))
            offset += size
    return tuple(blocks)


def names_of(name: str, shape: tuple[int, ...], stacked: tuple[str, ...]) -> list[str]:
    """Return the names of a parameter's layers, or say that its shape cannot be."""
    if len(shape) == 2:
        return [name]
    if len(shape) != 3:
        raise ValueError(
            f"shapes[{name!r}]={shape}: expected a matrix (L, R), or (N, L, R) where "
            f"layers are stacked"
        )
    if stacked_prefix(name, stacked) is None:
        return [f"{name}/{i}" for i in range(shape[0])]
    return layer_names(name, jax.ShapeDtypeStruct(shape, jnp.float32), stacked)


@pinned
def kronecker_matrices(
    shapes: Shapes,
    dimensions: tuple[int, int],
    *,
    key: jax.Array,
    distribution: str = "rademacher",
    stacked: tuple[str, ...] = (),
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Draw P_L and P_R of every parameter, from ``key`` folded with its layers' names.

    Args:
      shapes: The parameters' matrix shapes.
      dimensions: (k, m).
      key: The projection's key.
      distribution: ``"rademacher"`` or ``"normal"``; entries have variance 1/k (1/m). A
        side no wider than its dimension is kept as it is, by the identity.
      stacked: Folders of stacked layers, whose names have a number behind these.

    Returns:
      Name to (P_L, P_R), stacked parameters with leading axis N.
    """
    names = {name: names_of(name, shapes[name], stacked) for name in sorted(shapes)}
    sides = [(name, side) for name in names for side in (0, 1)]
    labels = [f"{x}:{('left', 'right')[side]}" for n, side in sides for x in names[n]]
    keys = named_keys(key, labels)
    drawn = {}
    # All rows of one length at once: XLA takes long to compile each random generator.
    for dimension in sorted(set(dimensions)):
        owners, numbers, places = [], [], {}
        first = start = 0
        for name, side in sides:
            count, width = len(names[name]), shapes[name][side - 2]
            if dimensions[side] == dimension < width:
                owners.append(np.repeat(np.arange(first, first + count), width))
                numbers.append(np.tile(np.arange(width), count))
                places[name, side] = (start, count, width)
                start += count * width
            first += count
        if places:
            rows = random_rows(
                keys[np.concatenate(owners)],
                jnp.asarray(np.concatenate(numbers)),
                dimension,
                distribution=distribution,
            ) / jnp.sqrt(dimension)
        for place, (start, count, width) in places.items():
            part = rows[start : start + count * width]
            drawn[place] = part.reshape(count, width, dimension)

    def matrix(name: str, side: int) -> jax.Array:
        width, count = shapes[name][side - 2], len(names[name])
        if (name, side) in drawn:
            whole = drawn[name, side]
        else:
            whole = jnp.broadcast_to(jnp.eye(width), (count, width, width))
        return whole[0] if len(shapes[name]) == 2 else whole

    return {name: (matrix(name, 0), matrix(name, 1)) for name in names}


def stack_matrices(
    shapes: Shapes, matrices: Matrices, *, stacked: tuple[str, ...] = ()
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Return given matrices parameter by parameter, as ``kronecker_matrices`` does.

    Raises:
      ValueError: A layer has no matrices, or of other widths than its own.
    """
    pairs = {}
    for name in sorted(shapes):
        layers = names_of(name, shapes[name], stacked)
        missing = [layer for layer in layers if layer not in matrices]
        if missing:
            raise ValueError(
                f"matrices lacks {', '.join(missing[:3])}: give (P_L, P_R) for every "
                f"projected layer; it has {', '.join(list(matrices)[:3])}, ..."
            )
        for layer in layers:
            widths = tuple(side.shape[0] for side in matrices[layer])
            if widths != tuple(shapes[name][-2:]):
                raise ValueError(
                    f"matrices[{layer!r}] project widths {widths}; the layer has "
                    f"{tuple(shapes[name][-2:])}"
                )
        left, right = zip(*(matrices[layer] for layer in layers), strict=True)
        pair = (jnp.stack(left), jnp.stack(right))
        whole = len(shapes[name]) == 2
        pairs[name] = (pair[0][0], pair[1][0]) if whole else pair
    return pairs


def pca_matrices(
    left_covariance: jax.Array,
    right_covariance: jax.Array,
    dimensions: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """Return the top eigenvectors of a layer's two factor covariances, (P_L, P_R).

    The factors are those of KFAC: inputs for the left, output gradients for the right
    (Choe et al., What is your data worth to GPT?, 2024, section 3.2). Inner products
    are those of the parts in the subspaces: not unbiased, but of the least error for a
    gradient whose factors are independent.

    Args:
      left_covariance: [L,L], or a diagonal [L] (a lookup's counts).
      right_covariance: [R,R], or a diagonal [R].
      dimensions: (k, m).

    Returns:
      P_L [L, min(k,L)] and P_R [R, min(m,R)], float32, with orthonormal columns.
    """

    def top(covariance: jax.Array, dimension: int) -> jax.Array:
        check_dimension(dimension)
        covariance = jnp.asarray(covariance, jnp.float32)
        width = covariance.shape[0]
        if dimension >= width:
            return jnp.eye(width)
        if covariance.ndim == 1:
            largest = jax.lax.top_k(covariance, dimension)[1]
            return jax.nn.one_hot(largest, width, axis=0)
        return jnp.linalg.eigh(covariance)[1][:, ::-1][:, :dimension]

    sides = zip((left_covariance, right_covariance), dimensions, strict=True)
    left, right = (top(covariance, dimension) for covariance, dimension in sides)
    return left, right


def project_kronecker(
    gradients: Mapping[str, Any],
    shapes: Shapes,
    matrices: Mapping[str, tuple[jax.Array, jax.Array]],
) -> jax.Array:
    """Project each example's gradient layer by layer to ``P_L^T G_b P_R``.

    Args:
      gradients: Name to outer products (one, or a tuple to be summed; a stacked
        parameter's with leading axis N), or to formed gradients [B,...] (stacked:
        [B,N,...]).
      shapes: Name to matrix shape, of the same names.
      matrices: Name to (P_L, P_R), of ``kronecker_matrices`` or ``stack_matrices``.

    Returns:
      float32[B,k], in the order of ``kronecker_layout``.

    Raises:
      ValueError: ``gradients`` and ``shapes`` name different parameters.

    Cost: 2BT(Lk + Rm + km) flops a layer from outer products, 2BLRm from gradients.
    """
    if set(gradients) != set(shapes):
        odd = sorted(set(gradients) ^ set(shapes))
        raise ValueError(
            f"gradients and shapes must name the same parameters; only one of them has "
            f"{', '.join(odd[:5])}"
        )

    def project_matrix(gradient: Any, left: jax.Array, right: jax.Array) -> jax.Array:
        if isinstance(gradient, tuple):
            return projections(gradient, left, right)
        whole = gradient.reshape(-1, left.shape[0], right.shape[0])
        return float32_einsum("blr,lk,rm->bkm", whole, left, right)

    rows = []
    for name in sorted(shapes):
        gradient = gradients[name]
        if isinstance(gradient, OuterProducts):
            gradient = (gradient,)
        project = project_matrix
        if len(shapes[name]) == 3:
            examples = 0 if isinstance(gradient, tuple) else 1
            project = jax.vmap(project, in_axes=(examples, 0, 0), out_axes=1)
        small = project(gradient, *matrices[name])
        rows.append(small.reshape(small.shape[0], -1))
    return jnp.concatenate(rows, axis=1)


def matrices_hash(matrices: Matrices) -> str:
    """Return the SHA-256 of projection matrices: names, shapes and float32 bits."""
    digest = hashlib.sha256()
    for layer in sorted(matrices):
        for side in matrices[layer]:
            array = np.asarray(side, np.float32)
            digest.update(f"{layer} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()
