"""Data parallelism: the batch over the devices, everything else on each of them.

Only placement: the same step is compiled by XLA for the devices on which its arguments
lie, so results differ between device counts by rounding alone. A replay on the device
count of its run is exact to the bit.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxunlearn.types import Batch


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
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:count],
    )


def split_batch(batch: Batch, mesh: Mesh | None) -> Batch:
    """Place a batch with its examples spread over the mesh."""
    if mesh is None:
        return batch
    return jax.device_put(dict(batch), NamedSharding(mesh, PartitionSpec("data")))


def replicate(tree, mesh: Mesh | None):
    """Place a whole copy of ``tree`` on every device of the mesh."""
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
