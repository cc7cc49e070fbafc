"""The gradient of chosen examples, with the tied embedding's two parts kept apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Batch, Params

EMBEDDING = ("wte", "embedding")
PARTS = ("tied", "input", "output")


class RecordedGradient(NamedTuple):
    """A weighted sum of examples' gradients, ``sum_i a_i grad l_i``, float32.

    GPT-2 uses one matrix twice: to look tokens up and, transposed, as output head.
    """

    params: Params  # like the parameters; wte/embedding holds the lookup part only
    head: jax.Array  # float32[V,D]: the output head's part


def combine(gradient: RecordedGradient, part: str = "tied") -> Params:
    """Return the gradient as a parameter tree.

    Args:
      gradient: The two parts.
      part: What ``wte/embedding`` holds: ``"tied"``, the true gradient (the sum of both
        parts); ``"input"``, the lookup part, zero but for the rows of the examples'
        tokens; ``"output"``, the head's part, dense. Other leaves do not depend on it.

    Raises:
      ValueError: Unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: one of {', '.join(PARTS)}")
    lookup = gradient.params[EMBEDDING[0]][EMBEDDING[1]]
    chosen = {
        "tied": lambda: lookup + gradient.head,
        "input": lambda: lookup,
        "output": lambda: gradient.head,
    }[part]()
    return {**gradient.params, EMBEDDING[0]: {EMBEDDING[1]: chosen}}


def zero_gradient(params: Params) -> RecordedGradient:
    """Return the empty sum."""
    zeros = tree.zeros_like(params)
    return RecordedGradient(zeros, zeros[EMBEDDING[0]][EMBEDDING[1]])


def add(a: RecordedGradient, b: RecordedGradient) -> RecordedGradient:
    """Return the sum of two."""
    return RecordedGradient(*tree.add_scaled(tuple(a), 1.0, tuple(b)))


def weighted_gradient(
    model: GPT2,
    params: Params,
    batch: Batch,
    coefficients: jax.Array,
    *,
    key: jax.Array | None = None,
) -> RecordedGradient:
    """Return ``sum_i a_i grad l_i`` of a batch in one backward pass.

    Args:
      model: The model.
      params: Where the gradient is taken.
      batch: The examples.
      coefficients: a_i, float32[B].
      key: Dropout key of the training step, so that the gradient is the one that the
        step saw.
    """

    def loss(params, head):
        losses = model.per_example_loss(params, batch, key=key, head=head)
        return jnp.sum(coefficients * losses)

    masters = tree.master_weights(params)
    head = masters[EMBEDDING[0]][EMBEDDING[1]]
    return RecordedGradient(*jax.grad(loss, argnums=(0, 1))(masters, head))
