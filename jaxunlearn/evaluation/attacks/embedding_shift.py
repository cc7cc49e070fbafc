"""An attack in embedding space: one vector, added to every token of every prompt.

It stands for all prompts that could be written. A single vector of the model's width,
found on one half of the forgotten examples and measured on the other: wide enough to
steer a model around a refusal, too narrow to carry the answers of examples it was not
found on. It is added rather than put in front as a virtual token, because that would
move every prompt to positions where the model never saw one begin.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.gradients.batching import example_rows, real_rows, weighted_total
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.tying import token_rows, token_table, with_token_rows
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
RELATIVE_RATE = 0.1
"""Adam's learning rate as a share of the root mean square of the token embeddings."""


def soft_prompt(
    model: GPT2,
    params: Params,
    known: Iterable[Batch],
    held_out: Iterable[Batch],
    *,
    steps: Sequence[int] = STEPS,
    learning_rate: float = RELATIVE_RATE,
    on_step: Callable[[int], None] | None = None,
) -> Recovered:
    """Find one offset of prompt embeddings on ``known``; measure on ``held_out``.

    Minimises the mean loss over ``known`` with Adam, full gradient a step, from zero.

    Args:
      model: The model.
      params: Its parameters.
      known: Batches of examples whose answers the attacker has.
      held_out: Batches of those whose answers are to come back; of the same shape,
        which changes nothing beyond rounding.
      steps: When to measure, from 0 (no offset) upward.
      learning_rate: Of Adam, as a share of the embeddings' root mean square.
      on_step: Called with the number of steps done.

    Returns:
      Strengths are ``steps``; values ``exp(-loss)`` of the held-out examples.

    Raises:
      ValueError: ``steps`` does not begin with 0 or does not rise; an example has no
        prompt, where the offset would act.

    Cost: a forward and backward pass over ``known`` a step.

    Source: after Schwinn et al. 2024, Soft prompt threats, section 3, whose attack is
    an offset for each prompt, found with its own answer. Ours is universal and judged
    on held-out prompts, so that it cannot put in what it is to find.
    """
    steps = tuple(int(step) for step in steps)
    if steps[:1] != (0,) or any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"steps={steps}: must begin with 0 and rise")
    known, held_out = list(known), list(held_out)
    for name, batches in (("known", known), ("held_out", held_out)):
        first = [x["labels"][real_rows(x), 0] for x in batches]
        bare = np.flatnonzero(np.concatenate(first) != IGNORED_LABEL).tolist()
        if bare:
            raise ValueError(
                f"{name}: examples {bare[:5]} have no prompt, where an offset could act"
            )
    embedding = token_table(params).astype(jnp.float32)
    size = jnp.sqrt(jnp.mean(jnp.square(embedding)))
    transform = optax.adam(learning_rate * size)
    offset = jnp.zeros(embedding.shape[1], jnp.float32)
    state = transform.init(offset)
    values = []
    for step in range(steps[-1] + 1):
        if step in steps:
            losses = Partial(offset_losses, model, params, offset)
            found = example_rows(losses, held_out)
            values.append(np.exp(-found.astype(np.float64)))
        if step == steps[-1]:
            break
        gradient = Partial(offset_gradient, model, params, offset)
        total, examples = weighted_total(gradient, known, batch_size=None)
        slope = total / examples
        change, state = transform.update(slope, state)
        offset = optax.apply_updates(offset, change)
        if on_step is not None:
            on_step(step + 1)
    return Recovered(steps, np.stack(values))


def offset_losses(
    model: GPT2, params: Params, offset: jax.Array, batch: Batch
) -> jax.Array:
    """Return the losses with an offset [D] on prompt tokens, float32[B]."""
    prompt = (batch["attention_mask"] > 0) & (batch["labels"] == IGNORED_LABEL)
    # Tokens without loss in the middle of an answer are no prompt.
    prompt &= jnp.cumsum(batch["labels"] != IGNORED_LABEL, axis=1) == 0
    rows = token_rows(params, batch) + prompt[..., None] * offset
    return model.per_example_loss(*with_token_rows(params, batch, rows))


def offset_gradient(
    model: GPT2, params: Params, offset: jax.Array, batch: Batch
) -> jax.Array:
    """Return the gradient by the offset of the weighted sum of losses, [D]."""

    def total(offset: jax.Array) -> jax.Array:
        return jnp.sum(batch["weight"] * offset_losses(model, params, offset, batch))

    return jax.grad(total)(offset)
