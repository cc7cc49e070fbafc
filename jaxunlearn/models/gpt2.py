"""GPT-2 in Flax Linen: one block, scanned over the layers, under Hugging Face's names.

Parameters: ``wte/embedding`` [V,D] (lookup and, tied, output head), ``wpe/embedding``
[T,D], ``h/...`` (every leaf stacked over the N layers), ``ln_f``. Kernels are
(in, out).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.models import decoder
from jaxunlearn.models.decoder import Places
from jaxunlearn.models.gpt2_config import ACTIVATIONS, DROPOUT, SIZES, GPT2Config
from jaxunlearn.models.noise import dropout
from jaxunlearn.models.tying import output_head
from jaxunlearn.randomness import pinned
from jaxunlearn.types import Params


class Attention(nn.Module):
    """Causal self-attention, q, k and v side by side in one kernel."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BTD, places, layer, cache):
        """Return the attention output, and the cache with the new keys and values."""
        c, mask_BTS, keys_B = self.config, places.mask_BTS, places.keys_B
        shape = (*x_BTD.shape[:2], c.n_head, c.n_embd // c.n_head)
        q, k, v = (
            part.reshape(shape)
            for part in jnp.split(dense(c, 3 * c.n_embd, "c_attn")(x_BTD), 3, axis=-1)
        )
        if cache is not None:
            rows = jnp.arange(x_BTD.shape[0])[:, None]
            cache = tuple(
                old.at[rows, places.slots_BT].set(new.astype(old.dtype), mode="drop")
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
    """One pre-normalized transformer block."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BTD, places, layer, cache):
        """Return the block's output and its cache."""
        normed = layer_norm(self.config, "ln_1")(x_BTD)
        attention = Attention(self.config, name="attn")
        attended, cache = attention(normed, places, layer, cache)
        x_BTD = x_BTD + attended
        normed = layer_norm(self.config, "ln_2")(x_BTD)
        mlp = MLP(self.config, name="mlp")
        return x_BTD + mlp(normed, places.keys_B, layer), cache


class Start(nn.Module):
    """All layers, each called once: Linen draws their first numbers by their names."""

    config: GPT2Config

    @nn.compact
    def __call__(self, places):
        """Go through the layers with one token; what comes out does not matter."""
        c, ids = self.config, places.positions
        x_BTD = embedding(c, c.vocab_size, "wte")(ids)
        x_BTD = x_BTD + embedding(c, c.n_positions, "wpe")(ids)
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0, nn.broadcast),
            length=c.n_layer,
        )
        x_BTD, _ = blocks(c, name="h")(x_BTD, places, jnp.arange(c.n_layer), None)
        return layer_norm(c, "ln_f")(x_BTD)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GPT2:
    """GPT-2 with a language-model head: pure functions of ``(params, batch)``.

    A batch needs ``input_ids``; ``attention_mask``, ``position_ids`` (default 0, 1,
    ...) and, for losses, ``labels`` are read where present. The methods that are not
    written here are those of :mod:`jaxunlearn.models.decoder`.
    """

    config: GPT2Config

    stacked = ("h",)
    hidden_states = decoder.hidden_states
    logits = decoder.logits
    loss_of_logits = decoder.loss_of_logits
    token_losses = decoder.token_losses
    per_example_loss = decoder.per_example_loss
    decode = decoder.decode
    empty_cache = decoder.empty_cache

    @property
    def layers(self) -> int:
        """The number of blocks, N."""
        return self.config.n_layer

    @property
    def positions(self) -> int:
        """The most tokens of a sequence."""
        return self.config.n_positions

    @property
    def vocabulary(self) -> int:
        """The number of tokens, V."""
        return self.config.vocab_size

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """What models have alike of which one takes the parameters of another."""
        return tuple(getattr(self.config, name) for name in SIZES)

    @property
    def cached(self) -> tuple[int, int]:
        """The heads of the cache and their width, (H, K)."""
        return self.config.n_head, self.config.n_embd // self.config.n_head

    @property
    def has_dropout(self) -> bool:
        """Whether a key changes anything."""
        return any(getattr(self.config, name) > 0 for name in DROPOUT)

    def with_dropout(self, rate: float) -> "GPT2":
        """Return the model with every dropout at this rate."""
        rates = dict.fromkeys(DROPOUT, rate)
        return GPT2(dataclasses.replace(self.config, **rates))

    def without_dropout(self) -> "GPT2":
        """Return the model with dropout off."""
        return self.with_dropout(0.0)

    @pinned
    def init(self, *, key: jax.Array) -> Params:
        """Return fresh float32 parameters, with GPT-2's scaled residual projections."""
        places = Places(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1, 1), bool))
        # No parameter depends on the kernel, which this machine or dtype may not run.
        config = dataclasses.replace(self.config, attention="xla")
        return Start(config).init(key, places)["params"]

    def embed(self, params: Params, input_ids: jax.Array, places: Places) -> jax.Array:
        """Return token plus position embeddings, [B,T,D]."""
        c = self.config
        x_BTD = look_up(c, params["wte"], input_ids)
        x_BTD = x_BTD + look_up(c, params["wpe"], places.positions)
        return dropout(x_BTD, c.embd_pdrop, places.keys_B, c.n_layer, 3)

    def block(
        self,
        weights: Params,
        states_BTD: jax.Array,
        places: Places,
        number: jax.Array,
        cache: tuple | None,
    ) -> tuple[jax.Array, tuple | None]:
        """Return what leaves block ``number`` of these weights, and its cache."""
        # Linen's apply is typed as returning more than the output.
        found: Any = Block(self.config).apply(
            {"params": weights}, states_BTD, places, number, cache
        )
        return found

    def final_norm(self, params: Params, states_BTD: jax.Array) -> jax.Array:
        """Return ``ln_f(states)``, what the output head reads."""
        normed: Any = layer_norm(self.config, "ln_f").apply(
            {"params": params["ln_f"]}, states_BTD
        )
        return normed

    def down_projection(self, params: Params) -> jax.Array:
        """Return what each unit of the blocks' MLPs writes to the states, [N,F,D]."""
        return params["h"]["mlp"]["c_proj"]["kernel"]

    def head(self, params: Params) -> jax.Array:
        """Return the output head [V,D]: the token embedding, unless untied."""
        return output_head(params)


def embedding(config: GPT2Config, rows: int, name: str | None = None) -> nn.Embed:
    """Return a layer that looks up ``rows`` embeddings."""
    return nn.Embed(
        rows,
        config.n_embd,
        dtype=config.dtype,
        embedding_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


def look_up(config: GPT2Config, params: Params, ids: jax.Array) -> jax.Array:
    """Return the embeddings of ids, in the computation's dtype."""
    layer = embedding(config, params["embedding"].shape[0])
    found: Any = layer.apply({"params": params}, ids)
    return found


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
    """Return a layer normalization; the slow variance is the one torch computes."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        use_fast_variance=False,
        dtype=config.dtype,
        name=name,
    )


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
