"""Task arithmetic: learn the forgotten once more, and go that way backwards.

Ilharco et al., "Editing models with task arithmetic", 2023, arXiv 2212.04089.
"""

from typing import Literal

from jaxunlearn import tree
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.fine_tuning import fine_tune
from jaxunlearn.unlearning.forms import Direction, Sets


def subtract_task_vector(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    layers: str,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    optimizer: Literal["adamw", "adam", "sgd", "momentum"] = "adamw",
) -> Direction:
    """Subtract what fine-tuning on the examples to forget adds.

    ``theta - (theta_FT - theta)``, theta_FT fine-tuned on the forget set alone at a
    constant learning rate. The step is kept in float32, as a rate of 1e-5 is lost
    beside 16-bit weights. Epochs, rate and optimiser are those of MUSE (Shi et al.
    2024, arXiv 2407.06460), whose script subtracts five times the vector.

    Args:
      task: The per-example loss.
      params: Trained parameters.
      sets: Only ``forget`` is used.
      layers: What to change, in the fine-tuning too.
      epochs: Passes over the examples to forget.
      learning_rate: Constant.
      optimizer: What turns gradients into steps.
    """
    recipe = Recipe(epochs=epochs, learning_rate=learning_rate, optimizer=optimizer)
    tuned = fine_tune(task, params, list(sets.forget), recipe, layers=layers)
    return Direction(tree.subtract(params, tuned))
