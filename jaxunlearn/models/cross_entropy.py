"""Next-token cross-entropy that never holds all logits at once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.types import IGNORED_LABEL

CHUNK_TOKENS = 1024


class OutputHead(nn.Module):
    """The tied output layer as a module without parameters of its own.

    A module, so that whoever intercepts Linen's methods sees its inputs, as it does
    those of every other layer.
    """

    def logits(self, hidden_BTD: jax.Array, embedding_VD: jax.Array) -> jax.Array:
        """Return :func:`head_logits`."""
        return head_logits(hidden_BTD, embedding_VD)

    def losses(
        self, hidden_BTD: jax.Array, embedding_VD: jax.Array, labels_BT: jax.Array
    ) -> jax.Array:
        """Return :func:`next_token_losses`."""
        return next_token_losses(hidden_BTD, embedding_VD, labels_BT)


def head_logits(hidden_BTD: jax.Array, embedding_VD: Any) -> jax.Array:
    """Return ``hidden @ embedding.T`` in float32, [B,T,V].

    A head that is no matrix gives its own ``logits`` of the states.
    """
    if hasattr(embedding_VD, "logits"):
        return embedding_VD.logits(hidden_BTD)
    return jnp.einsum(
        "btd,vd->btv",
        hidden_BTD,
        embedding_VD.astype(hidden_BTD.dtype),
        preferred_element_type=jnp.float32,
    )


def next_token_losses(
    hidden_BTD: jax.Array,
    embedding_VD: jax.Array,
    labels_BT: jax.Array,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
) -> jax.Array:
    """Return the cross-entropy of each next token, float32[B,T-1].

    ``CE_bt = logsumexp_v(h_bt . E_v) - h_bt . E_y`` with ``y = labels[b, t+1]``, 0
    where that label is -100. Exact for any ``chunk_tokens``: tokens are taken in chunks
    along T (so that a batch spread over devices stays spread) and each chunk's logits
    are formed again in the backward pass.

    Args:
      hidden_BTD: Last hidden states, any floating dtype.
      embedding_VD: Output embedding.
      labels_BT: Labels, not shifted; -100 means no loss.
      chunk_tokens: Most tokens whose float32 logits [chunk, V] exist at a time (at
        least one time step of the batch).

    Cost: forward 2BTDV flops; backward twice that, and one more forward if the batch
    has more tokens than a chunk. Memory: one chunk of logits.
    """
    size, length, width = hidden_BTD.shape
    hidden, labels = hidden_BTD[:, :-1], labels_BT[:, 1:]
    step = max(1, chunk_tokens // size)
    if length - 1 <= step:
        return chunk_losses(hidden, embedding_VD, labels)
    chunks = -(-(length - 1) // step)
    pad = chunks * step - (length - 1)
    hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0)))
    labels = jnp.pad(labels, ((0, 0), (0, pad)), constant_values=IGNORED_LABEL)
    losses = jax.lax.map(
        jax.checkpoint(lambda chunk: chunk_losses(chunk[0], embedding_VD, chunk[1])),
        (
            hidden.reshape(size, chunks, step, width).swapaxes(0, 1),
            labels.reshape(size, chunks, step).swapaxes(0, 1),
        ),
    )
    return losses.swapaxes(0, 1).reshape(size, chunks * step)[:, : length - 1]


def chunk_losses(hidden_BTD, embedding_VD, labels_BT):
    """Return the cross-entropy of labels that already stand beside their states."""
    return losses_of_logits(head_logits(hidden_BTD, embedding_VD), labels_BT)


def losses_of_logits(logits_BTV, labels_BT):
    """Return the cross-entropy of labels that already stand beside their logits."""
    counted = labels_BT != IGNORED_LABEL
    true = jnp.take_along_axis(
        logits_BTV, jnp.where(counted, labels_BT, 0)[..., None], axis=-1
    )[..., 0]
    return jnp.where(counted, jax.nn.logsumexp(logits_BTV, axis=-1) - true, 0.0)


def label_counts(labels_BT: jax.Array) -> jax.Array:
    """Return how many next tokens of each example carry a loss, float32[B]."""
    return jnp.sum(labels_BT[:, 1:] != IGNORED_LABEL, axis=-1).astype(jnp.float32)


def mean_over_labels(losses_BT: jax.Array, labels_BT: jax.Array) -> jax.Array:
    """Return ``sum_t losses / n`` of each example, 0 where it has no label."""
    return jnp.sum(losses_BT, axis=-1) / jnp.maximum(label_counts(labels_BT), 1.0)
