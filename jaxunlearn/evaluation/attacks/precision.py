"""Quantisation: rounding weights can round away a small change that made them forget.

What comes back are the weights that the arithmetic sees, rounded and expanded again, so
any function of parameters can be measured on them.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.types import Params

MATRICES = "kernel$"
BLOCK = 64
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ],
    np.float32,
)
"""The sixteen values of NormalFloat-4, as bitsandbytes has them."""

BITS = {"int8": 8, "nf4": 4}


class Quantized(NamedTuple):
    """Weights after a round trip through few bits."""

    params: Params  # in the dtypes of the original
    bytes: int  # of all parameters, rounded ones with their scales, others as they are


def quantized(
    params: Params,
    kind: str,
    *,
    layers: str = MATRICES,
    stacked: tuple[str, ...] | None = None,
) -> Quantized:
    """Round weight matrices to a few bits and expand them again.

    ``int8``: symmetric, one scale an output channel, ``s = max|w| / 127``, so that
    ``|w - q| <= s / 2``. ``nf4``: blocks of 64 weights along the inputs of a channel,
    the nearest of :data:`NF4` times the block's ``max|w|``, so that ``|w - q| <= 0.152
    max|w|``; without the second quantisation of the scales.

    Args:
      params: Parameters. Kernels are (in, out), embeddings (token, width); leaves
        stacked over layers are quantised layer by layer.
      kind: ``"int8"`` or ``"nf4"``.
      layers: Regular expression of the leaves to round. By default the kernels, as
        bitsandbytes does, which leaves embeddings and their tied head alone. Vectors
        (biases, normalisations) are never rounded.
      stacked: Folders of stacked layers, as for :func:`jaxunlearn.tree.select`.

    Returns:
      The parameters, and the bytes that they would take with float32 scales.

    Raises:
      ValueError: An unknown kind; ``layers`` matches no matrix.

    Source: Dettmers et al. 2022, LLM.int8(), and 2023, QLoRA, appendix E.
    """
    if kind not in BITS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(BITS)}")
    folders = tree.stacked_folders(params) if stacked is None else stacked
    mask = tree.select(params, layers, stacked=folders)
    round_trip = int8 if kind == "int8" else nf4
    size = rounded = 0

    def change(path: tuple, leaf: jax.Array, chosen: np.ndarray) -> jax.Array:
        nonlocal size, rounded
        name = tree.leaf_name(path)
        by_layer = tree.stacked_prefix(name, folders) is not None
        if leaf.ndim - by_layer < 2 or not chosen.any():
            size += leaf.size * leaf.dtype.itemsize
            return leaf
        parts = leaf if by_layer else leaf[None]
        # Output channels first: columns of a kernel, rows of an embedding.
        turned = not name.endswith("embedding")
        weights = parts.astype(jnp.float32)
        weights = weights.swapaxes(-1, -2) if turned else weights
        new, scales = round_trip(weights)
        new = (new.swapaxes(-1, -2) if turned else new).astype(leaf.dtype)
        part, layers_rounded = leaf.size // len(parts), int(chosen.sum())
        cost = math.ceil(part * BITS[kind] / 8) + 4 * scales
        size += layers_rounded * cost
        size += (len(parts) - layers_rounded) * part * leaf.dtype.itemsize
        rounded += layers_rounded
        return jnp.where(chosen, new if by_layer else new[0], leaf)

    new = jax.tree_util.tree_map_with_path(change, params, mask)
    if not rounded:
        raise ValueError(f"layers={layers!r} matches no matrix: there is nothing to do")
    return Quantized(new, size)


def int8(weights: jax.Array) -> tuple[jax.Array, int]:
    """Return weights [N, out, in] after int8, and how many scales a layer has."""
    scale = jnp.max(jnp.abs(weights), axis=-1, keepdims=True) / 127
    steps = jnp.round(weights / jnp.where(scale > 0, scale, 1.0))
    return jnp.clip(steps, -127, 127) * scale, weights.shape[1]


def nf4(weights: jax.Array) -> tuple[jax.Array, int]:
    """Return weights [N, out, in] after NF4, and how many scales a layer has."""
    number = len(weights)
    flat = weights.reshape(number, -1)
    blocks = -(-flat.shape[1] // BLOCK)
    padded = jnp.pad(flat, ((0, 0), (0, blocks * BLOCK - flat.shape[1])))
    parts = padded.reshape(number, blocks, BLOCK)
    scale = jnp.max(jnp.abs(parts), axis=-1, keepdims=True)
    borders = jnp.asarray((NF4[1:] + NF4[:-1]) / 2)
    codes = jnp.searchsorted(borders, parts / jnp.where(scale > 0, scale, 1.0))
    new = (jnp.asarray(NF4)[codes] * scale).reshape(number, -1)
    return new[:, : flat.shape[1]].reshape(weights.shape), blocks


def quantization(
    params: Params,
    measure: Callable[[Params], np.ndarray],
    *,
    kinds: Sequence[str] = ("int8", "nf4"),
    layers: str = MATRICES,
    stacked: tuple[str, ...] | None = None,
) -> Recovered:
    """Measure forgotten examples under fewer bits a weight.

    Args:
      params: Parameters of the model.
      measure: ``params -> float64[n]``, higher = more recovered.
      kinds: See :func:`quantized`, from mild to strong.
      layers: See :func:`quantized`.
      stacked: See :func:`quantized`.

    Returns:
      Strengths are ``"none"`` and the kinds.
    """
    values = [measure(params)]
    options = {"layers": layers, "stacked": stacked}
    values += [measure(quantized(params, kind, **options).params) for kind in kinds]
    return Recovered(("none", *kinds), np.stack(values))
