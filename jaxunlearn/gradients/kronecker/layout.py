"""Which leaves of a parameter tree form a matrix, and the way there and back."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.types import Params


class Matrix(NamedTuple):
    """Leaves that are the rows of one matrix [L,R], or of a stack of them.

    A kernel and its bias are one matrix, since the bias is the row that a constant
    input 1 sees. Any other leaf is a matrix by itself.
    """

    leaves: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # the leaves', with the stack's axes
    stack: tuple[int, ...]  # axes over which layers are stacked; () for a single one
    rows: int  # L
    columns: int  # R
    chosen: tuple[int, ...]  # which layers of the flat stack are selected

    @property
    def name(self) -> str:
        """The leaf's name; of a kernel and its bias, that of their layer."""
        folder = self.leaves[0].rpartition("/")[0]
        return folder if folder and self.has_bias else self.leaves[0]

    @property
    def has_bias(self) -> bool:
        """Whether the last row is a bias."""
        return len(self.leaves) == 2


def matrices_of(
    params: Params,
    views: Mapping[str, Any],
    pairs: Mapping[str, str],
    masks: Mapping[str, np.ndarray],
) -> tuple[Matrix, ...]:
    """Return the matrices that the selected leaves form.

    Args:
      params: Parameters, or shapes of them.
      views: Leaf name -> its form, with ``stack``, ``rows`` and ``columns``.
      pairs: Kernel -> the bias of the same layer.
      masks: Leaf name -> which of it is selected; what is missing is.

    Raises:
      ValueError: A part of a matrix is selected.
    """
    shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in tree.named_leaves(params)}
    chosen = {
        name: chosen_layers(name, masks.get(name), views[name].stack) for name in views
    }
    joined = {
        kernel: bias
        for kernel, bias in pairs.items()
        if kernel in views and bias in views and chosen[kernel] == chosen[bias]
    }
    biases = set(joined.values())
    found = []
    for name, view in views.items():
        if name in biases or not chosen[name]:
            continue
        leaves = (name, joined[name]) if name in joined else (name,)
        found.append(
            Matrix(
                leaves,
                tuple(shapes[leaf] for leaf in leaves),
                tuple(view.stack),
                view.rows + len(leaves) - 1,
                view.columns,
                chosen[name],
            )
        )
    return tuple(found)


def chosen_layers(
    name: str, mask: np.ndarray | None, stack: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the selected layers of a leaf, counted through its stack."""
    size = math.prod(stack)
    if mask is None or mask.all():
        return tuple(range(size))
    if not mask.any():
        return ()
    if mask.size != size:
        raise ValueError(
            f"layers selects a part of {name!r} that is not a whole matrix: select the "
            f"leaf, or whole layers of a stack"
        )
    return tuple(int(i) for i in np.flatnonzero(mask))


def selected(matrix: Matrix) -> np.ndarray:
    """Return which layers of the stack are selected, bool[*stack,1,1]."""
    flat = np.zeros(math.prod(matrix.stack), bool)
    flat[list(matrix.chosen)] = True
    return flat.reshape(*matrix.stack, 1, 1)


def layer_name(matrix: Matrix, layer: int, stacked: tuple[str, ...]) -> str:
    """Return the name of one layer of the flat stack, such as ``h/3/attn/c_attn``."""
    if not matrix.stack:
        return matrix.name
    prefix = tree.stacked_prefix(matrix.leaves[0], stacked)
    if prefix is None or len(matrix.stack) > 1:
        return f"{matrix.name}/{layer}"
    return f"{prefix}/{layer}{matrix.name.removeprefix(prefix)}"


def joined(matrix: Matrix, vectors: Params) -> jax.Array:
    """Return the matrix's part of parameter trees, float32[...,*stack,L,R].

    Leaves of ``vectors`` may have leading axes, the same for all.
    """
    leaves = dict(tree.named_leaves(vectors))
    parts = []
    for name, shape in zip(matrix.leaves, matrix.shapes, strict=True):
        leaf = jnp.asarray(leaves[name], jnp.float32)
        lead = leaf.shape[: leaf.ndim - len(shape)]
        parts.append(leaf.reshape(*lead, *matrix.stack, -1, matrix.columns))
    return jnp.concatenate(parts, axis=-2) if len(parts) > 1 else parts[0]


def split(matrix: Matrix, value: jax.Array) -> dict[str, jax.Array]:
    """Return each leaf's part of ``value`` [...,*stack,L,R]: the way back."""
    lead = value.shape[: value.ndim - 2 - len(matrix.stack)]
    if not matrix.has_bias:
        parts = [value]
    else:
        parts = [value[..., :-1, :], value[..., -1:, :]]
    return {
        name: part.reshape(*lead, *shape)
        for name, shape, part in zip(matrix.leaves, matrix.shapes, parts, strict=True)
    }


def check_vectors(matrices: tuple[Matrix, ...], vectors: Params) -> tuple[int, ...]:
    """Return the leading axes of ``vectors``: () for one, (Q,) for several.

    Raises:
      ValueError: A leaf is missing, has another shape, or other leading axes.
    """
    leaves = dict(tree.named_leaves(vectors))
    leads = set()
    for matrix in matrices:
        for name, shape in zip(matrix.leaves, matrix.shapes, strict=True):
            if name not in leaves:
                raise ValueError(
                    f"the vector has no leaf {name!r}, which the factors cover: give "
                    f"a tree like the parameters that they were fitted at"
                )
            found = tuple(jnp.shape(leaves[name]))
            lead = found[: max(0, len(found) - len(shape))]
            if lead + shape != found or len(lead) > 1:
                raise ValueError(
                    f"the vector's leaf {name!r} has shape {found}: expected {shape}, "
                    f"or (Q, ...) of it for Q vectors at once"
                )
            leads.add(lead)
    if len(leads) > 1:
        raise ValueError(
            f"the vector's leaves have different leading axes, {sorted(leads)}: one "
            f"number Q of vectors for all leaves, or none"
        )
    return leads.pop()
