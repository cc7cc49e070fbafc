"""Does JAX compute from a checkpoint what torch computes?

Both read the same directory and the same seeded batch; what comes out is compared leaf
by leaf, derivatives included.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn.models.checkpoints.huggingface import file_tensors
from jaxunlearn.models.decoder import Decoder, logits, token_losses
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

Derivatives = Callable[[Decoder, Params, Batch, Params], dict[str, Params]]
"""From (model, params, batch, direction) to trees by name: ``gradient``, ``hvp`` and
``fisher`` of the model's loss."""

TOLERANCES = {
    # The models' rounding differs by the order of their sums, some 1e-6 relative; ten
    # to a hundred times that is allowed, a wrong formula is off by 1e-2 and more.
    "logits": ("absolute", 1e-4),
    "token losses": ("absolute", 1e-4),
    "gradient": ("relative", 1e-4),
    # A second derivative sums products of first ones, whose errors add.
    "hvp": ("relative", 1e-3),
    # A square doubles a relative error.
    "fisher": ("relative", 2e-4),
}
"""Per quantity: what is bounded, and by how much; of each leaf by itself."""


class Difference(NamedTuple):
    """How far one array of ours is from torch's."""

    item: str
    absolute: float
    relative: float
    measure: str
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the bounded difference is within tolerance; a NaN is not."""
        value = self.absolute if self.measure == "absolute" else self.relative
        return bool(value <= self.tolerance)


def random_batch(
    vocab_size: int, batch_size: int, length: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Return a batch of random tokens, each row with a prompt and with padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(vocab_size, size=(batch_size, length))
    ends = rng.integers(length // 2, length, size=(batch_size, 1))
    starts = rng.integers(1, length // 2 - 1, size=(batch_size, 1))
    place = np.arange(length)
    labelled = (starts <= place) & (place < ends)
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": (place < ends).astype(np.int32),
        "labels": np.where(labelled, ids, IGNORED_LABEL).astype(np.int32),
    }


def random_direction(shapes: Params, *, seed: int) -> Params:
    """Return a random tree of length 1, float32, in the shapes of ``shapes``."""
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda x: rng.standard_normal(x.shape), shapes)
    length = np.sqrt(sum(np.sum(x * x) for x in jax.tree.leaves(drawn)))
    return jax.tree.map(lambda x: (x / length).astype(np.float32), drawn)


def jax_quantities(
    model: Decoder,
    params: Params,
    batch: Mapping[str, np.ndarray],
    direction: Params,
    derivatives: Derivatives,
) -> dict[str, np.ndarray]:
    """Return what ``torch_quantities`` returns, computed by JAX.

    Args:
      model: The model.
      params: Its parameters.
      batch: ``input_ids``, ``attention_mask`` and ``labels``, [B,T].
      direction: What the Hessian of the mean loss is multiplied with.
      derivatives: How the derivatives are computed, which stand on a higher floor.
    """
    # Elsewhere than on CPUs a float32 product is rounded to fewer bits by default.
    with jax.default_matmul_precision("highest"):
        logits_BTV, losses_BT, trees = compute(
            model, derivatives, params, dict(batch), direction
        )
    return {
        "logits": np.asarray(logits_BTV),
        "token losses": np.asarray(losses_BT),
        **{
            f"{kind} {name}": array
            for kind, tree in trees.items()
            for name, array in file_tensors(model, tree)
        },
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute(
    model: Decoder,
    derivatives: Derivatives,
    params: Params,
    batch: dict,
    direction: Params,
) -> tuple[jax.Array, jax.Array, dict[str, Params]]:
    """Return logits, token losses and derivatives, in one program."""
    found = derivatives(model, params, batch, direction)
    return logits(model, params, batch), token_losses(model, params, batch), found


def differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> list[Difference]:
    """Return the difference of every array, in the order of ``ours``, by layer.

    Raises:
      ValueError: The two do not hold the same arrays.
    """
    if set(ours) != set(theirs):
        raise ValueError(
            f"only one side has {', '.join(sorted(set(ours) ^ set(theirs)))}"
        )

    def difference(item: str) -> Difference:
        a, b = (np.asarray(side[item], np.float64) for side in (ours, theirs))
        gap, size = np.linalg.norm(a - b), np.linalg.norm(b)
        kind = item if item in TOLERANCES else item.split(" ")[0]
        # Where torch has exact zeros, ours must be exact zeros too.
        relative = gap / size if size else (0.0 if gap == 0 else float("inf"))
        return Difference(
            item, float(np.abs(a - b).max()), float(relative), *TOLERANCES[kind]
        )

    return [difference(item) for item in sorted(ours, key=by_layer)]


def by_layer(item: str) -> tuple:
    """Order logits, losses, gradient, HVP, Fisher; in each, layer after layer."""
    kind, _, name = (item, "", "") if item in TOLERANCES else item.partition(" ")
    parts = name.split(".")
    layer = int(parts[1]) if parts[0] == "h" else {"ln_f": 1_000_000}.get(parts[0], -1)
    return list(TOLERANCES).index(kind), layer, name
