"""The residual stream between the blocks: reading it, and going on from it.

Layer l of N + 1: 0 is the sum of token and position embeddings, l the output of the
first l blocks. The last, N, has not passed ``ln_f`` yet.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models.gpt2 import GPT2, Block, layer_norm
from jaxunlearn.types import Batch, Params


def state_names(model: GPT2) -> list[str]:
    """Return the name of each layer: ``wte``, then ``h/0`` to ``h/{N-1}``."""
    return ["wte", *(f"h/{i}" for i in range(model.config.n_layer))]


def layer_states(
    model: GPT2,
    params: Params,
    batch: Batch,
    *,
    keep: Callable[[jax.Array], Any] = lambda states_BTD: states_BTD,
) -> Any:
    """Return the residual stream at every layer, [N+1,B,T,D], without dropout.

    ``final_norm(model, params, states[N])`` is ``model.hidden_states(params, batch)``.

    Args:
      model: The model.
      params: Its parameters.
      batch: A batch; ``input_ids``, and where present ``attention_mask`` and
        ``position_ids``, are read. States at padding mean nothing.
      keep: What to keep of each layer's states [B,T,D], of any shape: one token, a
        mean. It spares the memory of the rest.

    Returns:
      What ``keep`` gives, stacked over the layers; in the computation's dtype.

    Raises:
      ValueError: The batch is longer than the model's positions.

    Cost: one forward pass without the head.
    """
    states, mask_BTS = embedded(model, params, batch), attention_mask(batch)

    def step(states: jax.Array, block: tuple) -> tuple[jax.Array, Any]:
        states = run_block(model, states, mask_BTS, *block)
        return states, keep(states)

    _, rest = jax.lax.scan(step, states, numbered_blocks(model, params))
    return jax.tree.map(
        lambda first, others: jnp.concatenate([first[None], others]),
        keep(states),
        rest,
    )


def continue_from(
    model: GPT2,
    params: Params,
    states_BTD: jax.Array,
    layer: int | jax.Array,
    batch: Batch,
) -> jax.Array:
    """Return the normalised last hidden states as if layer ``layer`` were ``states``.

    Args:
      model: The model.
      params: Its parameters: those of the blocks behind the layer, and of ``ln_f``.
      states_BTD: The residual stream at the layer, of this model or another.
      layer: 0 (the embeddings) to N; or an array int32[], which is not checked, so
        that one program serves all layers.
      batch: The batch that the states are of.

    Returns:
      [B,T,D], as ``model.hidden_states``.

    Raises:
      ValueError: The layer is out of range, or the states do not have the batch's
        shape.

    Cost: N - ``layer`` blocks (all N under ``vmap`` over the layer).
    """
    config = model.config
    check_layer(model, layer)
    expected = (*jnp.shape(batch["input_ids"]), config.n_embd)
    if states_BTD.shape != expected:
        raise ValueError(
            f"states_BTD has shape {states_BTD.shape}: the batch and the model's "
            f"width make it {expected}"
        )

    mask_BTS = attention_mask(batch)

    def step(states: jax.Array, block: tuple) -> tuple[jax.Array, None]:
        behind = block[0] >= layer
        states = jax.lax.cond(
            behind,
            lambda states: run_block(model, states, mask_BTS, *block),
            lambda states: states,
            states,
        )
        return states, None

    dtype = config.dtype or params["wte"]["embedding"].dtype
    states, _ = jax.lax.scan(
        step, states_BTD.astype(dtype), numbered_blocks(model, params)
    )
    return final_norm(model, params, states)


def final_norm(model: GPT2, params: Params, states_BTD: jax.Array) -> jax.Array:
    """Return ``ln_f(states)``, what the output head reads."""
    # Linen's apply is typed as returning more than the output.
    normed: Any = layer_norm(model.config, "ln_f").apply(
        {"params": params["ln_f"]}, states_BTD
    )
    return normed


def check_layer(model: GPT2, layer: int | jax.Array) -> None:
    """Refuse a number that no layer has; an array may be traced, so passes."""
    count = model.config.n_layer
    if isinstance(layer, int | np.integer) and not 0 <= layer <= count:
        raise ValueError(
            f"layer={layer}: 0 (the embeddings) to {count} (the last block's output)"
        )


def embedded(model: GPT2, params: Params, batch: Batch) -> jax.Array:
    """Return token plus position embeddings, [B,T,D]."""
    config = model.config
    ids = jnp.asarray(batch["input_ids"])
    if ids.shape[1] > config.n_positions:
        raise ValueError(
            f"input_ids have {ids.shape[1]} tokens, the model has n_positions="
            f"{config.n_positions}: cut the text with max_length"
        )
    positions = batch.get("position_ids", jnp.arange(ids.shape[1])[None])
    return look_up(model, params, "wte", ids) + look_up(model, params, "wpe", positions)


def look_up(model: GPT2, params: Params, name: str, ids: Any) -> jax.Array:
    """Return the embeddings of ids, in the computation's dtype."""
    rows = params[name]["embedding"].shape[0]
    embed = nn.Embed(rows, model.config.n_embd, dtype=model.config.dtype)
    found: Any = embed.apply({"params": params[name]}, ids)
    return found


def attention_mask(batch: Batch) -> jax.Array:
    """Return which tokens each token looks at, bool[B,T,T]: earlier, no padding."""
    size, length = jnp.shape(batch["input_ids"])
    mask = jnp.tril(jnp.ones((length, length), bool))[None]
    if "attention_mask" in batch:
        mask = mask & (jnp.asarray(batch["attention_mask"]) > 0)[:, None]
    return jnp.broadcast_to(mask, (size, length, length))


def numbered_blocks(model: GPT2, params: Params) -> tuple[jax.Array, Params]:
    """Return the blocks' numbers and parameters, to be scanned together."""
    return jnp.arange(model.config.n_layer), params["h"]


def run_block(model, states_BTD, mask_BTS, number, parameters):
    """Return the output of one block, deterministic."""
    states, _ = Block(model.config).apply(
        {"params": parameters}, states_BTD, mask_BTS, None, None, number, None
    )
    return states
