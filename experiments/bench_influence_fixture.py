"""The work that both sides of bench_influence.py do: a model, sequences, a loss."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models import GPT2
from jaxunlearn.types import Batch, Params

BLOCKS = "^h/.*/(attn|mlp)/"
"""Weights and biases of the blocks: what the peers cover."""
BATCH = 16


class Fixture(NamedTuple):
    """The same weights and tokens that the peers are given."""

    model: GPT2
    params: Params
    train: np.ndarray  # int32[64,128]
    query: np.ndarray  # int32[16,128]

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Return the sum of next-token cross-entropies of each example."""
        return self.model.token_losses(params, batch).sum(axis=-1)


Found = Mapping[str, np.ndarray]
Row = Callable[[Fixture], Callable[[], Found]]


def batch_of(tokens: np.ndarray) -> dict[str, jax.Array]:
    ids = jnp.asarray(tokens)
    return {"input_ids": ids, "labels": ids}


def batches_of(*tokens: np.ndarray) -> list[dict[str, jax.Array]]:
    every = np.concatenate(tokens)
    return [batch_of(every[i : i + BATCH]) for i in range(0, len(every), BATCH)]
