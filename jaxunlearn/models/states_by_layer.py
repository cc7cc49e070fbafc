"""The residual stream between the blocks: reading it, and going on from it.

Layer l of N + 1: 0 is the sum of token and position embeddings, l the output of the
first l blocks. The last, N, has not passed ``ln_f`` yet.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models.decoder import (
    Decoder,
    computation_dtype,
    numbered_blocks,
    token_places,
)
from jaxunlearn.models.tying import TABLE
from jaxunlearn.types import Batch, Params


def state_names(model: Decoder) -> list[str]:
    """Return the name of each layer: ``wte``, then ``h/0`` to ``h/{N-1}``."""
    (name,) = model.stacked
    return [TABLE[0], *(f"{name}/{i}" for i in range(model.layers))]


def layer_states(
    model: Decoder,
    params: Params,
    batch: Batch,
    *,
    keep: Callable[[jax.Array], Any] = lambda states_BTD: states_BTD,
) -> Any:
    """Return the residual stream at every layer, [N+1,B,T,D], without dropout.

    ``model.final_norm(params, states[N])`` is ``model.hidden_states(params, batch)``.

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
    places = token_places(model, batch)
    states = model.embed(params, jnp.asarray(batch["input_ids"]), places)

    def step(states: jax.Array, block: tuple) -> tuple[jax.Array, Any]:
        number, weights = block
        states, _ = model.block(weights, states, places, number, None)
        return states, keep(states)

    _, rest = jax.lax.scan(step, states, numbered_blocks(model, params))
    return jax.tree.map(
        lambda first, others: jnp.concatenate([first[None], others]),
        keep(states),
        rest,
    )


def continue_from(
    model: Decoder,
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
    check_layer(model, layer)
    expected = (*jnp.shape(batch["input_ids"]), model.head(params).shape[1])
    if states_BTD.shape != expected:
        raise ValueError(
            f"states_BTD has shape {states_BTD.shape}: the batch and the model's "
            f"width make it {expected}"
        )

    places = token_places(model, batch)

    def step(states: jax.Array, block: tuple) -> tuple[jax.Array, None]:
        number, weights = block
        states = jax.lax.cond(
            number >= layer,
            lambda states: model.block(weights, states, places, number, None)[0],
            lambda states: states,
            states,
        )
        return states, None

    states, _ = jax.lax.scan(
        step,
        states_BTD.astype(computation_dtype(model, params)),
        numbered_blocks(model, params),
    )
    return model.final_norm(params, states)


def check_layer(model: Decoder, layer: int | jax.Array) -> None:
    """Refuse a number that no layer has; an array may be traced, so passes."""
    count = model.layers
    if isinstance(layer, int | np.integer) and not 0 <= layer <= count:
        raise ValueError(
            f"layer={layer}: 0 (the embeddings) to {count} (the last block's output)"
        )
