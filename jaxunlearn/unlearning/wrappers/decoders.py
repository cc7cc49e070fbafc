"""A wrapped task as a decoder, for what evaluates and attacks decoders.

The two models run side by side as one family of decoders: states and caches stand next
to each other, and the output head subtracts. So generation, token statistics, the suite
and the attacks by text take it for any other model.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.models import decoder
from jaxunlearn.models.cross_entropy import (
    head_logits,
    mean_over_labels,
    next_token_losses,
)
from jaxunlearn.models.decoder import Decoder, Places
from jaxunlearn.types import Batch, Params
from jaxunlearn.unlearning.wrappers.offset import OffsetTask, offset_logits

OWN, REINFORCED = "own", "reinforced"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OffsetHead:
    """Two output heads, of which the second is subtracted; see :class:`OffsetTask`."""

    own: jax.Array  # [V,D]
    reinforced: jax.Array
    alpha: float = dataclasses.field(metadata={"static": True})

    @property
    def dtype(self) -> Any:
        """The dtype of the model's own head."""
        return self.own.dtype

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Return the offset logits of two models' states side by side, [B,T,V]."""
        own, reinforced = jnp.split(hidden_BTD, 2, axis=-1)
        return offset_logits(
            head_logits(own, self.own),
            head_logits(reinforced, self.reinforced),
            self.alpha,
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class OffsetDecoder:
    """Two decoders of one family as one; see :func:`offset_decoder`.

    Attributes:
      base: The family.
      alpha: Strength of the offset.
    """

    base: Any
    alpha: float

    hidden_states = decoder.hidden_states
    loss_of_logits = decoder.loss_of_logits
    decode = decoder.decode
    empty_cache = decoder.empty_cache

    @property
    def config(self) -> Any:
        """The family's configuration."""
        return self.base.config

    @property
    def layers(self) -> int:
        """The number of blocks, N."""
        return self.base.layers

    @property
    def positions(self) -> int:
        """The most tokens of a sequence."""
        return self.base.positions

    @property
    def stacked(self) -> tuple[str, ...]:
        """The names at the top of the tree whose leaves are stacked over blocks."""
        return self.base.stacked

    @property
    def cached(self) -> tuple[int, int]:
        """The heads of the cache and their width, both models' heads."""
        heads, width = self.base.cached
        return 2 * heads, width

    def logits(self, params: Params, batch: Batch) -> jax.Array:
        """Return the offset logits of every position, float32[B,T,V]."""
        return head_logits(self.hidden_states(params, batch), self.head(params))

    def token_losses(
        self, params: Params, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the cross-entropy of each labeled next token, float32[B,T-1]."""
        hidden = self.hidden_states(params, batch, key=key)
        labels = jnp.asarray(batch["labels"])
        return next_token_losses(hidden, self.head(params), labels)

    def per_example_loss(
        self, params: Params, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return each example's mean cross-entropy in nats, float32[B]."""
        losses = self.token_losses(params, batch, key=key)
        return mean_over_labels(losses, jnp.asarray(batch["labels"]))

    def embed(self, params: Params, input_ids: jax.Array, places: Places) -> jax.Array:
        """Return what enters the first blocks, side by side, [B,T,2D]."""
        found = [self.base.embed(part, input_ids, places) for part in halves(params)]
        return jnp.concatenate(found, axis=-1)

    def block(
        self,
        weights: Params,
        states_BTD: jax.Array,
        places: Places,
        number: jax.Array,
        cache: tuple | None,
    ) -> tuple[jax.Array, tuple | None]:
        """Return what leaves both blocks of this number, and their caches."""
        states, caches = jnp.split(states_BTD, 2, axis=-1), [None, None]
        if cache is not None:
            parts = [jnp.split(part, 2, axis=2) for part in cache]
            caches = list(zip(*parts, strict=True))
        own, reinforced = (
            self.base.block(weights[name], part, places, number, held)
            for name, part, held in zip((OWN, REINFORCED), states, caches, strict=True)
        )
        states_BTD = jnp.concatenate([own[0], reinforced[0]], axis=-1)
        if cache is None:
            return states_BTD, None
        pairs = zip(own[1], reinforced[1], strict=True)
        return states_BTD, tuple(jnp.concatenate(pair, axis=2) for pair in pairs)

    def final_norm(self, params: Params, states_BTD: jax.Array) -> jax.Array:
        """Return what the heads read, side by side."""
        parts = jnp.split(states_BTD, 2, axis=-1)
        normed = [
            self.base.final_norm(half, part)
            for half, part in zip(halves(params), parts, strict=True)
        ]
        return jnp.concatenate(normed, axis=-1)

    def head(self, params: Params) -> Any:
        """Return the two output heads."""
        own, reinforced = (self.base.head(part) for part in halves(params))
        return OffsetHead(own, reinforced, self.alpha)


def offset_decoder(task: OffsetTask, params: Params) -> tuple[OffsetDecoder, Params]:
    """Return a wrapped task of a decoder as a decoder of its own, and its parameters.

    What generates, evaluates or attacks by text takes them like any model and its
    parameters, and meets the offset in every token. What reads or moves the parameters
    finds both models in them: the forgotten is still there.

    Args:
      task: What :func:`~jaxunlearn.unlearning.wrappers.offset.whp` returned for a task
        that has a ``model``, such as :func:`~jaxunlearn.tasks.language_task`.
      params: Parameters of the task.

    Raises:
      ValueError: The wrapped task has no decoder.

    Cost: two models in memory, and twice the time.
    """
    model: Decoder | None = getattr(task.task, "model", None)
    if model is None:
        raise ValueError(
            f"task={type(task.task).__name__} has no model that generates: evaluate "
            f"the wrapped task by its outputs"
        )
    (blocks,) = model.stacked
    both = {OWN: dict(params), REINFORCED: dict(task.reinforced)}
    stacks = {name: tree.pop(blocks) for name, tree in both.items()}
    return OffsetDecoder(model, task.alpha), {blocks: stacks, **both}


def own_decoder(model: OffsetDecoder, params: Params) -> tuple[Decoder, Params]:
    """Return the decoder that is wrapped, and its parameters: the way back.

    It is what somebody has who has the files and leaves the offset out.
    """
    (blocks,) = model.stacked
    return model.base, {**params[OWN], blocks: params[blocks][OWN]}


def halves(params: Params) -> tuple[Params, Params]:
    """Return both models' parameters outside of the blocks."""
    return params[OWN], params[REINFORCED]
