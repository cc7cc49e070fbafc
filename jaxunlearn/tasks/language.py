"""Predicting the next token: the task of a decoder."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.models.cross_entropy import IGNORED_LABEL
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.states_by_layer import layer_states
from jaxunlearn.types import Batch, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LanguageTask:
    """Mean cross-entropy of an example's labelled next tokens, in nats.

    Attributes:
      model: The decoder; static, so equal models share compiled programs.
    """

    model: GPT2 = dataclasses.field(metadata={"static": True})

    @property
    def stacked(self) -> tuple[str, ...]:
        """The folders of parameters that are stacked over layers, as the model says."""
        return self.model.stacked

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model knows."""
        return self.model.vocabulary

    def __call__(
        self, params: Params, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return ``model.per_example_loss``, float32[B]."""
        return self.model.per_example_loss(params, batch, key=key)

    def outputs(self, params: Params, batch: Batch) -> jax.Array:
        """Return the logits of every position, float32[B,T,V]."""
        return self.model.logits(params, batch)

    def targets(self, batch: Batch) -> jax.Array:
        """Return the label that each position predicts, the next one, int32[B,T]."""
        labels = jnp.asarray(batch["labels"])
        return jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED_LABEL)

    def loss_of_outputs(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the loss of given logits, float32[B]; convex in them."""
        return self.model.loss_of_logits(outputs, batch)

    def states(
        self,
        params: Params,
        batch: Batch,
        *,
        keep: Callable[[jax.Array], Any] = lambda states_BTD: states_BTD,
    ) -> Any:
        """Return ``keep`` of the residual stream at each of N + 1 layers."""
        return layer_states(self.model, params, batch, keep=keep)


def language_task(model: GPT2) -> LanguageTask:
    """Return the task of a decoder.

    >>> from jaxunlearn.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=7, n_embd=4, n_layer=1, n_head=1))
    >>> language_task(model) == language_task(model)
    True
    """
    return LanguageTask(model)
