"""What every decoder can, written once from what a family gives.

A family is a frozen dataclass with its configuration, four hooks (``embed``, ``block``,
``final_norm``, ``head``) and a few numbers; see :class:`Decoder`. The functions here
take it as their first argument, so a family's class takes them in as its methods:
``logits = decoder.logits``.

In every family the table of token embeddings is the leaf ``wte/embedding`` [V,D]. It is
the output head as well, unless the tree has a head of its own, ``lm_head/kernel``.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxunlearn.models.cross_entropy import (
    OutputHead,
    losses_of_logits,
    mean_over_labels,
)
from jaxunlearn.models.noise import example_keys
from jaxunlearn.randomness import pinned
from jaxunlearn.types import Batch, Params


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, for generation."""

    key_NBSHK: jax.Array
    value_NBSHK: jax.Array


class Places(NamedTuple):
    """Where tokens stand: what a block knows of them besides their states."""

    positions: jax.Array  # int32[B,T], or [1,T] where all examples stand alike
    mask_BTS: jax.Array  # bool: which others each token looks at
    keys_B: jax.Array | None = None  # one dropout key an example; None: no dropout
    slots_BT: jax.Array | None = None  # int32: where the cache holds them


class Decoder(Protocol):
    """What a family of decoders gives."""

    @property
    def config(self) -> Any:
        """The family's configuration; ``dtype`` and ``remat`` are read here."""
        ...

    @property
    def layers(self) -> int:
        """The number of blocks, N."""
        ...

    @property
    def positions(self) -> int:
        """The most tokens of a sequence."""
        ...

    @property
    def stacked(self) -> tuple[str, ...]:
        """The names at the top of the tree whose leaves are stacked over blocks."""
        ...

    @property
    def cached(self) -> tuple[int, int]:
        """The heads of the cache and their width, (H, K)."""
        ...

    @property
    def has_dropout(self) -> bool:
        """Whether a key changes anything."""
        ...

    def init(self, *, key: jax.Array) -> Params:
        """Return fresh float32 parameters."""
        ...

    def embed(self, params: Params, input_ids: jax.Array, places: Places) -> jax.Array:
        """Return what enters the first block, [B,T,D], in the computation's dtype."""
        ...

    def block(
        self,
        weights: Params,
        states_BTD: jax.Array,
        places: Places,
        number: jax.Array,
        cache: tuple | None,
    ) -> tuple[jax.Array, tuple | None]:
        """Return what leaves block ``number`` of these weights, and its cache."""
        ...

    def final_norm(self, params: Params, states_BTD: jax.Array) -> jax.Array:
        """Return what the output head reads of the last block's states."""
        ...

    def head(self, params: Params) -> jax.Array:
        """Return the output head [V,D], a leaf of the tree as it lies there."""
        ...


@pinned
def hidden_states(
    model: Decoder, params: Params, batch: Batch, *, key: jax.Array | None = None
) -> jax.Array:
    """Return the normalized last hidden states [B,T,D].

    Args:
      model: The family.
      params: Parameters.
      batch: ``input_ids``, and where present ``attention_mask`` and ``position_ids``
        (default 0, 1, ...).
      key: Turns dropout on. Each example's masks come from (key, its ``index``).

    Raises:
      ValueError: The batch is longer than the model's positions.
    """
    places = token_places(model, batch, key=key)
    states = model.embed(params, jnp.asarray(batch["input_ids"]), places)
    states, _ = run_blocks(model, params, states, places, None)
    return model.final_norm(params, states)


def logits(model: Decoder, params: Params, batch: Batch) -> jax.Array:
    """Return the logits of every position, float32[B,T,V]."""
    hidden = hidden_states(model, params, batch)
    found: Any = OutputHead().apply({}, hidden, model.head(params), method="logits")
    return found


def loss_of_logits(model: Decoder, logits_BTV: jax.Array, batch: Batch) -> jax.Array:
    """Return each example's mean cross-entropy of given logits, float32[B].

    After :func:`logits` it is :func:`per_example_loss`; convex in the logits.
    """
    labels = jnp.asarray(batch["labels"])
    losses = losses_of_logits(logits_BTV[:, :-1], labels[:, 1:])
    return mean_over_labels(losses, labels)


def token_losses(
    model: Decoder, params: Params, batch: Batch, *, key: jax.Array | None = None
) -> jax.Array:
    """Return the cross-entropy of each labeled next token, float32[B,T-1], else 0."""
    hidden = hidden_states(model, params, batch, key=key)
    labels = jnp.asarray(batch["labels"])
    # Through a module, which taps can see.
    losses: Any = OutputHead().apply(
        {}, hidden, model.head(params), labels, method="losses"
    )
    return losses


def per_example_loss(
    model: Decoder, params: Params, batch: Batch, *, key: jax.Array | None = None
) -> jax.Array:
    """Return each example's mean cross-entropy in nats, float32[B].

    ``loss_i = sum_t CE_it / n_i`` over the n_i next tokens whose label is not -100; an
    example without labels (padding) gives 0. Deterministic unless ``key`` turns dropout
    on.
    """
    losses = token_losses(model, params, batch, key=key)
    return mean_over_labels(losses, jnp.asarray(batch["labels"]))


def decode(
    model: Decoder,
    params: Params,
    input_ids: jax.Array,
    slots_BT: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Run tokens that stand at ``slots_BT`` of the cache.

    Each token looks at the slots up to its own, so the cache must hold a row's tokens
    without gaps. Returns hidden states [B,T,D] and the new cache.
    """
    slots = jnp.arange(cache.key_NBSHK.shape[2])
    mask_BTS = slots[None, None, :] <= slots_BT[:, :, None]
    places = Places(slots_BT, mask_BTS, slots_BT=slots_BT)
    states = model.embed(params, input_ids, places)
    states, new = run_blocks(model, params, states, places, tuple(cache))
    return model.final_norm(params, states), Cache(*new)


def empty_cache(model: Decoder, params: Params, batch_size: int, slots: int) -> Cache:
    """Return a cache of zeros for ``batch_size`` rows of ``slots`` tokens."""
    shape = (model.layers, batch_size, slots, *model.cached)
    zeros = jnp.zeros(shape, computation_dtype(model, params))
    return Cache(zeros, zeros)


def token_places(
    model: Decoder, batch: Batch, *, key: jax.Array | None = None
) -> Places:
    """Return where the tokens of a batch stand: each looks at earlier ones, no padding.

    Raises:
      ValueError: The batch is longer than the model's positions.
    """
    size, length = jnp.shape(batch["input_ids"])
    if length > model.positions:
        raise ValueError(
            f"input_ids have {length} tokens, the model has n_positions="
            f"{model.positions}: cut the text with max_length"
        )
    mask_BTS = jnp.tril(jnp.ones((length, length), bool))[None]
    if "attention_mask" in batch:
        mask_BTS = mask_BTS & (jnp.asarray(batch["attention_mask"]) > 0)[:, None]
    return Places(
        jnp.asarray(batch.get("position_ids", jnp.arange(length)[None])),
        jnp.broadcast_to(mask_BTS, (size, length, length)),
        None if key is None else example_keys(key, batch, size),
    )


def run_blocks(
    model: Decoder,
    params: Params,
    states_BTD: jax.Array,
    places: Places,
    cache: tuple | None,
) -> tuple[jax.Array, Any]:
    """Return the states behind the last block, and the new cache.

    One program serves all blocks (a scan). On the way back, the products of matrices
    are kept and what stands between them is computed again: less than half the memory,
    and no slower, since reading the intermediates of a GELU or a softmax costs what
    computing them does. ``config.remat`` keeps nothing.
    """
    kept = None if model.config.remat else jax.checkpoint_policies.dots_saveable

    def step(states: jax.Array, layer: tuple) -> tuple[jax.Array, Any]:
        number, weights, cache = layer
        return model.block(weights, states, places, number, cache)

    step = jax.checkpoint(step, prevent_cse=False, policy=kept)
    return jax.lax.scan(step, states_BTD, (*numbered_blocks(model, params), cache))


def numbered_blocks(model: Decoder, params: Params) -> tuple[jax.Array, Params]:
    """Return the blocks' numbers and parameters, to be scanned together."""
    (name,) = model.stacked
    return jnp.arange(model.layers), params[name]


def computation_dtype(model: Decoder, params: Params) -> Any:
    """Return the dtype of the states: the configuration's, or the parameters'."""
    return model.config.dtype or model.head(params).dtype
