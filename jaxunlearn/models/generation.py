"""Greedy and sampled continuation with a key-value cache."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.models.cross_entropy import head_logits
from jaxunlearn.models.decoder import Decoder, decode, empty_cache
from jaxunlearn.randomness import pinned
from jaxunlearn.types import Params


@pinned
def generate(
    model: Decoder,
    params: Params,
    input_ids: Any,
    attention_mask: Any,
    *,
    max_new_tokens: int,
    eos_token_id: int | None = None,
    temperature: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Return the continuation of each prompt, int32[B, max_new_tokens].

    Args:
      model: The model.
      params: Its parameters.
      input_ids: Prompts int32[B,T], padded on the right.
      attention_mask: int32[B,T], 1 for the tokens of the prompt.
      max_new_tokens: Tokens to produce; T + max_new_tokens must fit n_positions.
      eos_token_id: Where given, a row that produced it goes on with it only.
      temperature: 0 takes the likeliest token; otherwise tokens are drawn from
        ``softmax(logits / temperature)``.
      key: Needed when temperature is above 0.

    Raises:
      ValueError: The text would not fit the model, or temperature is negative or has
        no key.

    Cost: one forward pass over the prompt, then one token a step: equal to running the
    whole text again each step, at 1/T of its price.
    """
    input_ids, attention_mask = jnp.asarray(input_ids), jnp.asarray(attention_mask)
    size, length = input_ids.shape
    slots = length + max_new_tokens
    if slots > model.positions:
        raise ValueError(
            f"{length} prompt tokens and max_new_tokens={max_new_tokens} exceed "
            f"n_positions={model.positions}"
        )
    if temperature < 0:
        raise ValueError(f"temperature={temperature}: must be 0 (greedy) or above")
    if temperature > 0 and key is None:
        raise ValueError(f"temperature={temperature} draws tokens: pass key=")
    if key is None:
        key = jax.random.key(0)  # never used: greedy
    head = model.head(params)
    cache = empty_cache(model, params, size, slots)
    # A row's padding stands after its prompt; the first new tokens overwrite it, and
    # no token looks beyond its own slot, so what stood there is never seen.
    positions = jnp.broadcast_to(jnp.arange(length), (size, length))
    hidden, cache = decode(model, params, input_ids, positions, cache)
    lengths = attention_mask.sum(axis=-1).astype(jnp.int32)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)

    def choose(logits_BV, key):
        if temperature > 0:
            return jax.random.categorical(key, logits_BV / temperature, axis=-1)
        return jnp.argmax(logits_BV, axis=-1)

    def step(carry, key):
        hidden, cache, slot, done = carry
        token = choose(head_logits(hidden, head)[:, 0], key).astype(jnp.int32)
        if eos_token_id is not None:
            token = jnp.where(done, eos_token_id, token)
            done = done | (token == eos_token_id)
        hidden, cache = decode(model, params, token[:, None], slot[:, None], cache)
        return (hidden, cache, slot + 1, done), token

    start = (last, cache, lengths, jnp.zeros(size, bool))
    _, tokens = jax.lax.scan(step, start, jax.random.split(key, max_new_tokens))
    return tokens.T
