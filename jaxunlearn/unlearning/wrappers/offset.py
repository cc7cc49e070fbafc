"""Logits without what a model that knows the forgotten even better would add.

Eldan and Russinovich, "Who's Harry Potter?", 2023, arXiv 2310.02238, in the form
that MUSE uses at inference (Shi et al. 2024, arXiv 2407.06460).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxunlearn import tree
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.types import Batch, Params, Task
from jaxunlearn.unlearning.fine_tuning import fine_tune
from jaxunlearn.unlearning.forms import Sets


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OffsetTask:
    """A task whose logits lack what a reinforced model would add to them.

    ``z = z_base - alpha relu(z_reinforced - z_base)``: the labels that learning the
    forgotten once more makes likelier become less likely. It suppresses and does not
    remove: the parameters, and so its ``states``, are those of the task that it wraps.

    Attributes:
      task: What is wrapped.
      reinforced: Parameters of the task, trained further on the forgotten.
      alpha: Strength; 0 is the wrapped task.
    """

    task: Any
    reinforced: Params
    alpha: float = dataclasses.field(metadata={"static": True})

    def __call__(
        self, params: Params, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the loss of the offset logits, float32[B].

        Nothing here is random: it is for inference, and a ``key`` changes nothing.
        """
        del key
        return self.loss_of_outputs(self.outputs(params, batch), batch)

    def outputs(self, params: Params, batch: Batch) -> jax.Array:
        """Return the offset logits, in the shape of the task's own."""
        base = self.task.outputs(params, batch)
        return offset_logits(
            base, self.task.outputs(self.reinforced, batch), self.alpha
        )

    def targets(self, batch: Batch) -> jax.Array:
        """Return the task's targets."""
        return self.task.targets(batch)

    def loss_of_outputs(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the task's loss of given logits, float32[B]."""
        return self.task.loss_of_outputs(outputs, batch)

    @property
    def states(self) -> Callable[..., Any]:
        """The task's states, in which nothing is changed; missing where it has none."""
        return self.task.states

    @property
    def stacked(self) -> tuple[str, ...]:
        """The names of the folders whose leaves are stacked over layers."""
        return self.task.stacked

    @property
    def labels(self) -> str:
        """Where in a batch the task's labels are."""
        return self.task.labels


def offset_logits(base: jax.Array, reinforced: jax.Array, alpha: float) -> jax.Array:
    """Return ``z_base - alpha relu(z_reinforced - z_base)``.

    >>> base, reinforced = jax.numpy.array([[1.0, 2.0], [4.0, 0.0]])
    >>> offset_logits(base, reinforced, 0.5).tolist()
    [-0.5, 2.0]
    """
    return base - alpha * jax.nn.relu(reinforced - base)


def whp(
    task: Task,
    params: Params,
    sets: Sets,
    *,
    alpha: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    optimizer: Literal["adamw", "adam", "sgd", "momentum"] = "adamw",
) -> OffsetTask:
    """Hide the forgotten at inference: subtract what a reinforced model would add.

    The reinforced model is this one, trained further on the examples to forget. The
    original work goes on to train the model on the labels that the offset logits
    prefer, with names replaced by a dictionary; that is left out.

    Args:
      task: A task with outputs and loss_of_outputs.
      params: Trained parameters, which stay as they are.
      sets: Only ``forget`` is used.
      alpha: Strength; 0 hides nothing.
      epochs: Of the reinforcement, passes over the examples to forget.
      learning_rate: Of the reinforcement, constant.
      optimizer: Of the reinforcement.
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha={alpha}: must be at least 0, and finite")
    recipe = Recipe(epochs=epochs, learning_rate=learning_rate, optimizer=optimizer)
    tuned = fine_tune(task, params, list(sets.forget), recipe)
    return OffsetTask(task, tree.rounded(tuned, params), alpha)
