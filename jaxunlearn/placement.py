"""Where arrays lie: batches over the devices, parameters by the pattern of their name.

The only place that names a mesh or its axes. Only placement: the same step is compiled
by XLA for the devices on which its arguments lie, so results differ between device
counts by rounding alone. A replay on the device count of its run is exact to the bit.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

AXIS = "data"
"""The one axis of the meshes made here."""


def data_mesh(batch_size: int) -> Mesh | None:
    """Return a mesh of the most devices that divide a batch; None for a single one.

    Args:
      batch_size: Examples that are computed together.
    """
    count = max(n for n in range(1, jax.device_count() + 1) if batch_size % n == 0)
    if count == 1:
        return None
    return jax.make_mesh(
        (count,),
        (AXIS,),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:count],
    )


def split(tree: Tree, mesh: Mesh | None) -> Tree:
    """Place a tree with the leading axis of every leaf spread over the mesh.

    Of a batch it is the examples, of models trained together the models.
    """
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """Place a whole copy of ``tree`` on every device of the mesh."""
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def unplaced(tree: Tree) -> Tree:
    """Return a tree whose leaves on a single device are bound to it no more.

    What a file reader placed is committed to its device, and so is what is computed
    from it. A loop that begins with committed parameters and fresh counters compiles
    its step twice, since after the first step all are committed. Leaves that lie over
    several devices stay.
    """

    def free(leaf: jax.Array) -> jax.Array:
        return jnp.array(np.asarray(leaf)) if len(leaf.devices()) == 1 else leaf

    return jax.tree.map(free, tree)


def leaf_shardings(
    mesh: Mesh, rules: Mapping[str, tuple[str | None, ...]]
) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """Return where each leaf of a parameter tree goes, as ``load_pretrained`` takes it.

    Args:
      mesh: The devices, on one axis or several.
      rules: From a pattern, looked for in the leaf's name
        (``"h/attn/c_attn/kernel"``), to the mesh's axis that each of the leaf's axes is
        spread over, None for none. The first that matches counts; a leaf that none
        matches is whole on every device.

    Returns:
      A function of a leaf's name and shape, which raises a ValueError where an axis of
      the mesh is unknown or does not divide the leaf.

    >>> place = leaf_shardings(jax.make_mesh((1,), ("model",)), {"wte": ("model",)})
    >>> [tuple(place(name, (4, 2)).spec) for name in ("wte/embedding", "wpe/embedding")]
    [('model',), ()]
    """
    for pattern, axes in rules.items():
        if unknown := [x for x in axes if x is not None and x not in mesh.axis_names]:
            raise ValueError(
                f"rules[{pattern!r}]: the mesh has no axis {unknown[0]!r}, it has "
                f"{', '.join(map(repr, mesh.axis_names))}"
            )

    def place(name: str, shape: tuple[int, ...]) -> NamedSharding:
        matching = (axes for pattern, axes in rules.items() if re.search(pattern, name))
        axes = next(matching, ())
        if len(axes) > len(shape) or any(
            axis is not None and size % mesh.shape[axis]
            for axis, size in zip(axes, shape, strict=False)
        ):
            raise ValueError(
                f"rules: {name} of shape {shape} cannot be spread as {axes} over a "
                f"mesh of {dict(mesh.shape)}: name axes that divide it"
            )
        return NamedSharding(mesh, PartitionSpec(*axes))

    return place
