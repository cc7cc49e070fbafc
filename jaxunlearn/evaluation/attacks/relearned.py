"""Relearning: a little fine-tuning, and what comes back with it.

An attacker who fine-tunes on a part of what was forgotten learns that part anew, from
any model. So two numbers are kept apart: the part relearned, and the part that was
not, whose return alone shows that it had never left.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxunlearn.data import TokenizedData, collate, epoch_order, step_indices
from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.training.recipe import (
    Recipe,
    compiled_step,
    initial_state,
    optimizer,
)
from jaxunlearn.types import Params

STEPS = (0, 1, 2, 4, 8, 16, 32)
LEARNING_RATE = 1e-4
"""Of AdamW; what GPT-2s are commonly fine-tuned with."""


def relearning(
    model: GPT2,
    params: Params,
    source: TokenizedData,
    measures: Sequence[Callable[[Params], np.ndarray]],
    *,
    steps: Sequence[int] = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 8,
    length: int | None = None,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> list[Recovered]:
    """Fine-tune on ``source`` and measure on the way.

    AdamW at a constant rate, without weight decay or dropout; the order of the batches
    follows from ``seed``, so every model sees the same ones.

    Args:
      model: The model.
      params: Its parameters; not changed.
      source: What is fine-tuned on: a part of the forget set, or other text.
      measures: Each ``params -> float64[n]``, higher = more recovered.
      steps: When to measure, from 0 (the model as it is) upward.
      learning_rate: Of AdamW.
      batch_size: Examples a step.
      length: Tokens to pad to; None is the longest example. Give several sources the
        same to compile once for all.
      seed: Of the order.
      on_step: Called with the number of steps done.

    Returns:
      One for each measure; strengths are ``steps``.

    Raises:
      ValueError: ``steps`` does not begin with 0 or does not rise; the fine-tuning
        diverges.

    Cost: max(steps) training steps; compiled once a model and shape.

    Source: the attack of Fan et al. 2025, Towards LLM unlearning resilient to
    relearning attacks, with the held-out measurement of Deeb and Roger 2024, Do
    unlearning methods remove information from language model weights?
    """
    steps = tuple(int(step) for step in steps)
    if steps[:1] != (0,) or any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"steps={steps}: must begin with 0 and rise")
    quiet = model.without_dropout()
    # Neither epochs nor the recipe's seed play a part: the rate is constant, steps are
    # counted here, and there is no dropout. So every order shares one program.
    recipe = Recipe(epochs=1, batch_size=batch_size, learning_rate=learning_rate)
    update = compiled_step(quiet, recipe, 1)
    state = initial_state(params, optimizer(recipe, 1))
    found: list[list[np.ndarray]] = [[] for _ in measures]
    for step in range(steps[-1] + 1):
        if step in steps:
            for values, measure in zip(found, measures, strict=True):
                values.append(measure(state.params))
        if step == steps[-1]:
            break
        batch = collate(
            source,
            step_indices(seed, step, n=len(source.examples), batch_size=batch_size),
            batch_size=batch_size,
            length=length or source.length,
        )
        state, metrics = update(state, batch)
        if not np.isfinite(float(metrics.loss) + float(metrics.gradient_norm)):
            raise ValueError(
                f"the loss is {float(metrics.loss)} and its gradient's norm "
                f"{float(metrics.gradient_norm)} at step {step + 1} of relearning: "
                f"lower learning_rate={learning_rate}"
            )
        if on_step is not None:
            on_step(step + 1)
    return [Recovered(steps, np.stack(values)) for values in found]


def halves(examples: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions to attack with and those held out, each sorted.

    Half each, the larger held out; a function of ``seed`` alone.

    Raises:
      ValueError: Fewer than 4 examples: each half needs 2 for an interval.
    """
    if examples < 4:
        raise ValueError(
            f"{examples} examples: to hold out a half, the forget set needs 4 or more"
        )
    order = epoch_order(seed, 0, examples)
    return np.sort(order[: examples // 2]), np.sort(order[examples // 2 :])
