"""GPT-2 in Flax Linen: one block, scanned over the layers, under Hugging Face's names.

Parameters: ``wte/embedding`` [V,D] (lookup and, tied, output head), ``wpe/embedding``
[T,D], ``h/...`` (every leaf stacked over the N layers), ``ln_f``. Kernels are
(in, out).

Dropout masks are a pure function of (key, index of the example, place in the network):
an example is dropped the same way in whatever microbatch it travels.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.models.cross_entropy import (
    OutputHead,
    losses_of_logits,
    mean_over_labels,
)
from jaxunlearn.randomness import pinned
from jaxunlearn.types import Batch, Params

ACTIVATIONS = {
    # "gelu_new" is the tanh form that GPT-2 was trained with; "gelu" is exact.
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


MOST, MOST_LAYERS = 2**31 - 1, 10_000
"""The largest size, which an int32 indexes, and the most layers, which have names."""
LARGEST = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Shape and options of a GPT-2, in Hugging Face's names; the last three are ours.

    Attributes:
      n_inner: Feed-forward width F; None is 4 D.
      attention: ``"xla"`` (differentiable to any order) or ``"cudnn"`` (NVIDIA GPUs,
        bfloat16 or float16, reverse mode only: training and gradients, no
        Hessian-vector products, no forward-mode scores).
      remat: Recompute each whole block in the backward pass; else its matrix products
        are kept.
      dtype: The dtype of the computation, ``"float32"`` or ``"bfloat16"``, whatever the
        parameters are stored in, so that no number depends on that; None takes theirs.
        Softmax, normalisation and loss are float32 whatever it is.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256
    attention: str = "xla"
    remat: bool = False
    dtype: str | None = "float32"

    def __post_init__(self):
        """Refuse a shape that no GPT-2 has."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            most = MOST_LAYERS if name == "n_layer" else MOST
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)}: must be 1 to {most}")
        if self.n_inner is not None and not 1 <= self.n_inner <= MOST:
            raise ValueError(f"n_inner={self.n_inner}: must be 1 to {MOST}, or None")
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)}: a dropout rate is at least 0 and "
                    f"below 1"
                )
        if not 0 < self.layer_norm_epsilon <= LARGEST:
            raise ValueError(
                f"layer_norm_epsilon={self.layer_norm_epsilon}: must be a finite "
                f"number above 0"
            )
        if not 0 <= self.initializer_range <= LARGEST:
            raise ValueError(
                f"initializer_range={self.initializer_range}: must be a finite number, "
                f"at least 0"
            )
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}"
            )
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function={self.activation_function!r} is not supported; "
                f"known: {', '.join(ACTIVATIONS)}"
            )
        if self.attention not in ("xla", "cudnn"):
            raise ValueError(f'attention={self.attention!r}: must be "xla" or "cudnn"')


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, for generation."""

    key_NBSHK: jax.Array
    value_NBSHK: jax.Array


class Attention(nn.Module):
    """Causal self-attention, q, k and v side by side in one kernel."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, keys_B, layer, cache, slots_BT):
        """Return the attention output, and the cache with the new keys and values."""
        c = self.config
        shape = (*x_BTD.shape[:2], c.n_head, c.n_embd // c.n_head)
        q, k, v = (
            part.reshape(shape)
            for part in jnp.split(dense(c, 3 * c.n_embd, "c_attn")(x_BTD), 3, axis=-1)
        )
        if cache is not None:
            rows = jnp.arange(x_BTD.shape[0])[:, None]
            cache = tuple(
                old.at[rows, slots_BT].set(new.astype(old.dtype), mode="drop")
                for old, new in zip(cache, (k, v), strict=True)
            )
            k, v = cache
        scale = shape[-1] ** -0.5 if c.scale_attn_weights else 1.0
        if c.attention == "cudnn":
            out = cudnn_attention(c, q, k, v, mask_BTS, scale, keys_B)
        else:
            scores = jnp.einsum(
                "bthk,bshk->bhts", q, k, preferred_element_type=jnp.float32
            )
            # The smallest finite number, not -inf: a row that may look nowhere
            # (padding) gets a uniform distribution and no NaN gradient.
            scores = jnp.where(
                mask_BTS[:, None], scores * scale, jnp.finfo(jnp.float32).min
            )
            weights = jax.nn.softmax(scores, axis=-1)
            weights = dropout(weights, c.attn_pdrop, keys_B, layer, 0)
            out = jnp.einsum("bhts,bshk->bthk", weights.astype(v.dtype), v)
        out = dense(c, c.n_embd, "c_proj", residual=True)(out.reshape(x_BTD.shape))
        return dropout(out, c.resid_pdrop, keys_B, layer, 1), cache


class MLP(nn.Module):
    """The feed-forward half of a block."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BTD, keys_B, layer):
        """Return ``c_proj(activation(c_fc(x)))``."""
        c = self.config
        width = 4 * c.n_embd if c.n_inner is None else c.n_inner
        x_BTF = ACTIVATIONS[c.activation_function](dense(c, width, "c_fc")(x_BTD))
        out = dense(c, c.n_embd, "c_proj", residual=True)(x_BTF)
        return dropout(out, c.resid_pdrop, keys_B, layer, 2)


class Block(nn.Module):
    """One pre-normalised transformer block, in the form that ``nn.scan`` carries."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, keys_B, slots_BT, layer, cache):
        """Return the block's output (the carry) and its cache."""
        attended, cache = Attention(self.config, name="attn")(
            layer_norm(self.config, "ln_1")(x_BTD),
            mask_BTS,
            keys_B,
            layer,
            cache,
            slots_BT,
        )
        x_BTD = x_BTD + attended
        normed = layer_norm(self.config, "ln_2")(x_BTD)
        return x_BTD + MLP(self.config, name="mlp")(normed, keys_B, layer), cache


class Transformer(nn.Module):
    """Embeddings, the scanned blocks and the last normalisation; no head."""

    config: GPT2Config

    @nn.compact
    def __call__(
        self, input_ids, positions, mask_BTS, keys_B, embedding_offset, slots_BT, cache
    ):
        """Return hidden states [B,T,D] in the computation's dtype, and the cache."""
        c = self.config
        embed = dict(
            features=c.n_embd,
            dtype=c.dtype,
            embedding_init=nn.initializers.normal(c.initializer_range),
        )
        x_BTD = nn.Embed(c.vocab_size, name="wte", **embed)(input_ids)
        if embedding_offset is not None:
            x_BTD = x_BTD + embedding_offset.astype(x_BTD.dtype)
        x_BTD = x_BTD + nn.Embed(c.n_positions, name="wpe", **embed)(positions)
        x_BTD = dropout(x_BTD, c.embd_pdrop, keys_B, c.n_layer, 3)
        # Matrix products are kept for the way back and what stands between them is
        # recomputed: less than half the memory, and no slower, since reading the
        # intermediates of a GELU or a softmax costs what computing them does.
        kept = None if c.remat else jax.checkpoint_policies.dots_saveable
        block = nn.remat(Block, prevent_cse=False, policy=kept)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0, 0),
            length=c.n_layer,
        )
        x_BTD, cache = blocks(c, name="h")(
            x_BTD, mask_BTS, keys_B, slots_BT, jnp.arange(c.n_layer), cache
        )
        return layer_norm(c, "ln_f")(x_BTD), cache


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GPT2:
    """GPT-2 with a language-model head: pure functions of ``(params, batch)``.

    A batch needs ``input_ids``; ``attention_mask``, ``position_ids`` (default 0, 1,
    ...) and, for losses, ``labels`` are read where present.
    """

    config: GPT2Config

    @pinned
    def init(self, *, key: jax.Array) -> Params:
        """Return fresh float32 parameters, with GPT-2's scaled residual projections."""
        ids = jnp.zeros((1, 1), jnp.int32)
        mask = jnp.ones((1, 1, 1), bool)
        # No parameter depends on the kernel, which this machine or dtype may not run.
        config = dataclasses.replace(self.config, attention="xla")
        return Transformer(config).init(key, ids, ids, mask, None, None, None, None)[
            "params"
        ]

    @pinned
    def hidden_states(
        self,
        params: Params,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        embedding_offset: jax.Array | None = None,
    ) -> jax.Array:
        """Return the normalised last hidden states [B,T,D].

        Args:
          params: Parameters.
          batch: A batch; see the class.
          key: Turns dropout on. Each example's masks come from (key, its ``index``).
          embedding_offset: [B,T,D], added to the looked-up token embeddings; the
            gradient with respect to it is the lookup part of the embedding's gradient,
            token by token.
        """
        ids = jnp.asarray(batch["input_ids"])
        size, length = ids.shape
        if length > self.config.n_positions:
            raise ValueError(
                f"input_ids have {length} tokens, the model has n_positions="
                f"{self.config.n_positions}: cut the text with max_length"
            )
        mask_BTS = jnp.tril(jnp.ones((length, length), bool))[None]
        if "attention_mask" in batch:
            mask_BTS = mask_BTS & (jnp.asarray(batch["attention_mask"]) > 0)[:, None]
        hidden, _ = self._apply(
            params,
            ids,
            batch.get("position_ids", jnp.arange(length)[None]),
            jnp.broadcast_to(mask_BTS, (size, length, length)),
            None if key is None else example_keys(key, batch, size),
            embedding_offset,
            None,
            None,
        )
        return hidden

    def logits(self, params: Params, batch: Batch) -> jax.Array:
        """Return the logits of every position, float32[B,T,V]."""
        hidden = self.hidden_states(params, batch)
        embedding = params["wte"]["embedding"]
        logits: Any = OutputHead().apply({}, hidden, embedding, method="logits")
        return logits

    def loss_of_logits(self, logits_BTV: jax.Array, batch: Batch) -> jax.Array:
        """Return each example's mean cross-entropy of given logits, float32[B].

        After :meth:`logits` it is :meth:`per_example_loss`; convex in the logits.
        """
        labels = jnp.asarray(batch["labels"])
        losses = losses_of_logits(logits_BTV[:, :-1], labels[:, 1:])
        return mean_over_labels(losses, labels)

    def token_losses(
        self,
        params: Params,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        head: jax.Array | None = None,
        embedding_offset: jax.Array | None = None,
    ) -> jax.Array:
        """Return the cross-entropy of each labelled next token, float32[B,T-1], else 0.

        ``head`` [V,D] takes the place of the tied embedding in the output layer, so
        that the two parts of its gradient can be told apart.
        """
        hidden = self.hidden_states(
            params, batch, key=key, embedding_offset=embedding_offset
        )
        embedding = params["wte"]["embedding"] if head is None else head
        labels = jnp.asarray(batch["labels"])
        # Through a module, which taps can see.
        losses: Any = OutputHead().apply({}, hidden, embedding, labels, method="losses")
        return losses

    def per_example_loss(
        self,
        params: Params,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        head: jax.Array | None = None,
        embedding_offset: jax.Array | None = None,
    ) -> jax.Array:
        """Return each example's mean cross-entropy in nats, float32[B].

        ``loss_i = sum_t CE_it / n_i`` over the n_i next tokens whose label is not -100;
        an example without labels (padding) gives 0. Deterministic unless ``key`` turns
        dropout on. ``head`` and ``embedding_offset`` as in :meth:`token_losses` and
        :meth:`hidden_states`.
        """
        losses = self.token_losses(
            params, batch, key=key, head=head, embedding_offset=embedding_offset
        )
        return mean_over_labels(losses, jnp.asarray(batch["labels"]))

    def decode(
        self,
        params: Params,
        input_ids: jax.Array,
        slots_BT: jax.Array,
        cache: Cache,
    ) -> tuple[jax.Array, Cache]:
        """Run tokens that stand at ``slots_BT`` of the cache.

        Each token looks at the slots up to its own, so the cache must hold a row's
        tokens without gaps. Returns hidden states [B,T,D] and the new cache.
        """
        slots = jnp.arange(cache.key_NBSHK.shape[2])
        mask_BTS = slots[None, None, :] <= slots_BT[:, :, None]
        hidden, new = self._apply(
            params, input_ids, slots_BT, mask_BTS, None, None, slots_BT, tuple(cache)
        )
        return hidden, Cache(*new)

    def empty_cache(self, params: Params, batch_size: int, slots: int) -> Cache:
        """Return a cache of zeros for ``batch_size`` rows of ``slots`` tokens."""
        c = self.config
        shape = (c.n_layer, batch_size, slots, c.n_head, c.n_embd // c.n_head)
        dtype = c.dtype or params["wte"]["embedding"].dtype
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def _apply(self, params: Params, *args: Any) -> tuple[jax.Array, Any]:
        return Transformer(self.config).apply({"params": params}, *args)


def dense(config: GPT2Config, features: int, name: str, residual: bool = False):
    """Return a dense layer; ``residual`` scales its start by 1/sqrt(2N), as GPT-2."""
    stddev = config.initializer_range
    if residual:
        stddev /= (2 * config.n_layer) ** 0.5
    return nn.Dense(
        features,
        dtype=config.dtype,
        kernel_init=nn.initializers.normal(stddev),
        name=name,
    )


def layer_norm(config: GPT2Config, name: str):
    """Return a layer normalisation; the slow variance is the one torch computes."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        use_fast_variance=False,
        dtype=config.dtype,
        name=name,
    )


def example_keys(key: jax.Array, batch: Batch, size: int) -> jax.Array:
    """Return one key an example, a function of (key, index of the example)."""
    index = jnp.asarray(batch.get("index", jnp.arange(size)))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def dropout(x, rate: float, keys_B, layer, site: int):
    """Drop entries of ``x`` [B,...] at a place (layer, site) by each example's key."""
    if keys_B is None or rate == 0.0:
        return x

    def keep(key):
        place = jax.random.fold_in(key, layer * 4 + site)
        # A rate without a dtype would be drawn in 64 bits, and otherwise, under x64.
        return jax.random.bernoulli(place, jnp.float32(1.0 - rate), x.shape[1:])

    return jnp.where(jax.vmap(keep)(keys_B), x / (1.0 - rate), 0).astype(x.dtype)


def cudnn_attention(config, q, k, v, mask_BTS, scale, keys_B):
    """Return fused attention; refuse what the kernel has not, naming the remedy."""
    remedy = 'set attention="xla" in the configuration'
    if jax.default_backend() != "gpu":
        raise ValueError(
            f'attention="cudnn" needs an NVIDIA GPU, the backend is '
            f"{jax.default_backend()!r}: {remedy}"
        )
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f'attention="cudnn" computes in bfloat16 or float16, not {q.dtype}: '
            f'set dtype="bfloat16", or {remedy}'
        )
    if keys_B is not None and config.attn_pdrop > 0:
        raise ValueError(
            f'attention="cudnn" has no attention dropout (attn_pdrop='
            f"{config.attn_pdrop}): set attn_pdrop=0, or {remedy}"
        )
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask_BTS[:, None], scale=scale, implementation="cudnn"
    )
