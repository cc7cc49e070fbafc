"""A projection as a value: what it is, what a row of it looks like, and its use."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxunlearn.gradients.projections.kronecker_pairs import (
    Block,
    Matrices,
    Shapes,
    kronecker_layout,
    kronecker_matrices,
    matrices_hash,
    project_kronecker,
    stack_matrices,
)
from jaxunlearn.gradients.projections.random_matrices import (
    DISTRIBUTIONS,
    project_dense,
    project_hadamard,
    project_sparse,
)
from jaxunlearn.randomness import random_key
from jaxunlearn.tree import named_leaves
from jaxunlearn.types import Params

KINDS = {"kronecker": 2, "dense": 1, "sparse": 1, "hadamard": 1}
"""Each kind of projection, with how many dimensions it has."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """All that a projection of gradients is rebuilt from; the default is 16 x 16 LoGra.

    Attributes:
      kind: ``"kronecker"``, ``"dense"``, ``"sparse"`` or ``"hadamard"``.
      dimensions: (k, m) a layer for Kronecker, else (k,) for the whole row.
      distribution: ``"rademacher"`` or ``"normal"`` (dense and Kronecker), or ``"pca"``
        (Kronecker, with matrices made from the data by ``pca_matrices``).
      nonzeros: Nonzero entries for each coordinate (sparse).
      seed: From which all randomness is drawn.
      matrices_hash: ``matrices_hash`` of the matrices (pca), which no seed rebuilds.

    >>> Projection("dense", (4096,)).kind
    'dense'
    """

    kind: str = "kronecker"
    dimensions: tuple[int, ...] = (16, 16)
    distribution: str = "rademacher"
    nonzeros: int = 1
    seed: int = 0
    matrices_hash: str | None = None

    def __post_init__(self):
        """Refuse what is no projection."""
        # JSON has no tuples.
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: one of {', '.join(KINDS)}")
        if len(self.dimensions) != KINDS[self.kind] or min(self.dimensions) < 1:
            raise ValueError(
                f"dimensions={self.dimensions}: {self.kind} takes {KINDS[self.kind]}, "
                f"each at least 1"
            )
        pca = self.distribution == "pca"
        if self.distribution not in (*DISTRIBUTIONS, "pca") or (
            pca and self.kind != "kronecker"
        ):
            raise ValueError(
                f"distribution={self.distribution!r}: one of "
                f"{', '.join(DISTRIBUTIONS)}, or pca for kronecker"
            )
        if pca != (self.matrices_hash is not None):
            raise ValueError(
                f"matrices_hash={self.matrices_hash!r}: give the hash of the matrices "
                f"with distribution='pca', and only with it"
            )
        if self.kind in ("sparse", "hadamard") and self.distribution != "rademacher":
            raise ValueError(
                f"distribution={self.distribution!r} does not go with {self.kind}, "
                f"which draws signs: leave it out"
            )
        if self.kind != "sparse" and self.nonzeros != 1:
            raise ValueError(
                f"nonzeros={self.nonzeros} does not go with {self.kind}: leave it out, "
                f"or take sparse"
            )
        if self.kind == "sparse" and (
            self.nonzeros < 1 or self.dimensions[0] % self.nonzeros
        ):
            raise ValueError(
                f"nonzeros={self.nonzeros}: must be at least 1 and divide "
                f"{self.dimensions[0]}"
            )


def row_layout(
    projection: Projection,
    shapes: Shapes | None = None,
    *,
    stacked: tuple[str, ...] = (),
) -> tuple[Block, ...]:
    """Return where each layer's numbers stand in a row.

    Args:
      projection: The projection.
      shapes: The parameters' matrix shapes (Kronecker).
      stacked: Folders of stacked layers, as for ``tree.select``.

    Returns:
      A block a layer (Kronecker), or one block named ``all``.

    Raises:
      ValueError: A Kronecker projection without ``shapes``.
    """
    if projection.kind != "kronecker":
        return (Block("all", 0, projection.dimensions[0]),)
    return kronecker_layout(needed(shapes), projection.dimensions, stacked=stacked)


def needed(shapes: Shapes | None) -> Shapes:
    """Return ``shapes``, or say that they are missing."""
    if not shapes:
        raise ValueError(
            f"shapes={shapes!r}: a Kronecker projection needs each parameter's matrix "
            f"shape (L, R), or (N, L, R) where layers are stacked"
        )
    return shapes


def project(
    projection: Projection,
    gradients: Params | Mapping[str, Any],
    *,
    shapes: Shapes | None = None,
    matrices: Matrices | None = None,
) -> jax.Array:
    """Project each example's gradient to a row.

    Args:
      projection: The projection; the same one always gives the same bits.
      gradients: Per-example gradients, a tree of arrays [B,...]; for Kronecker also a
        mapping from name to outer products, without any gradient formed.
      shapes: The parameters' matrix shapes (Kronecker).
      matrices: (P_L, P_R) of each layer (pca), which may be traced: that they are those
        of ``projection`` is for ``check_matrices`` to say.

    Returns:
      float32[B,k], laid out as ``row_layout`` says.

    Raises:
      ValueError: Shapes or matrices are missing, or are of other layers.

    >>> one = project(Projection("dense", (3,)), {"bias": jax.numpy.ones((2, 5))})
    >>> one.shape
    (2, 3)
    """
    key = random_key(projection.seed)
    k = projection.dimensions[0]
    if projection.kind == "dense":
        return project_dense(
            gradients, k, key=key, distribution=projection.distribution
        )
    if projection.kind == "sparse":
        return project_sparse(gradients, k, key=key, nonzeros=projection.nonzeros)
    if projection.kind == "hadamard":
        return project_hadamard(gradients, k, key=key)
    shapes = needed(shapes)
    if projection.distribution == "pca":
        if matrices is None:
            raise ValueError("matrices=None: a pca projection needs (P_L, P_R) a layer")
        pairs = stack_matrices(shapes, matrices)
    else:
        pairs = kronecker_matrices(
            shapes,
            projection.dimensions,
            key=key,
            distribution=projection.distribution,
        )
    if not all(name in gradients for name in shapes):
        gradients = dict(named_leaves(gradients))
    return project_kronecker(gradients, shapes, pairs)


def check_matrices(projection: Projection, matrices: Matrices | None) -> None:
    """Refuse matrices other than those that ``projection`` was made with.

    Raises:
      ValueError: They are missing, have another hash, or are not wanted.
    """
    found = None if matrices is None else matrices_hash(matrices)
    if found != projection.matrices_hash:
        raise ValueError(
            f"matrices have the hash {found}, the projection names "
            f"{projection.matrices_hash}: use the matrices that it was made with"
        )
