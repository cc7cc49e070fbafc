"""How many parameters scores see, and how many of them by taps."""

from typing import Any

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import masks
from jaxunlearn.gradients.taps.listening import without_warning
from jaxunlearn.gradients.taps.plans import prepare
from jaxunlearn.types import Batch, Params, PerExampleLoss


def coverage_of(
    loss: PerExampleLoss, params: Params, batch: Batch, layers: str | None
) -> dict[str, Any]:
    """Return which parameters per-example gradients of a loss are of.

    Args:
      loss: Per-example loss.
      params: The parameters.
      batch: Any batch; only shapes are computed with.
      layers: Expression of the parameters that count; None is all.

    Returns:
      ``layers``; ``parameters``, how many these are; ``tapped``, how many of them are
      seen by taps, the others' gradients being those of ``vmap(grad)``; and ``of``, how
      many there are.

    >>> loss = lambda params, batch: batch["x"] @ params["w"]
    >>> params, batch = {"b": np.zeros(1), "w": np.zeros(2)}, {"x": np.zeros((3, 2))}
    >>> coverage_of(loss, params, batch, "w")
    {'layers': 'w', 'parameters': 2, 'tapped': 0, 'of': 3}
    """
    untapped: list[str] = []

    def trace(params: Params, batch: Batch) -> None:
        # Whoever computes with these leaves says that they are slow.
        with without_warning():
            untapped.extend(prepare(loss, params, batch, layers).survey.untapped)

    jax.eval_shape(trace, params, dict(batch))
    kept = masks(loss, params, layers)
    sizes = {
        name: int(np.sum(np.broadcast_to(kept[name], leaf.shape)))
        for name, leaf in tree.named_leaves(params)
    }
    return {
        "layers": layers,
        "parameters": sum(sizes.values()),
        "tapped": sum(size for name, size in sizes.items() if name not in untapped),
        "of": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
