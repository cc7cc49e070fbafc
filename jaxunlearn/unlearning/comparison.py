"""Unlearning methods side by side, each taken to the same forget loss.

Methods that stop at different forget losses cannot be compared: whichever forgot less
also harmed less. So every method here goes exactly to one target, and what is left to
compare is the price, the loss of what was to be kept.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from jaxunlearn.types import Params
from jaxunlearn.unlearning.calibration import Measure
from jaxunlearn.unlearning.change import changed_leaves
from jaxunlearn.unlearning.edits.ascent import gradient_ascent
from jaxunlearn.unlearning.edits.recorded import DEFAULT_PART, first_epoch
from jaxunlearn.unlearning.explanation import explain
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.outcome import Outcome

FIRST_EPOCH = "first-epoch unlearning"
TIED = "first-epoch, tied embedding"
ASCENT = "gradient ascent, whole model"
ASCENT_EMBEDDING = "gradient ascent, embedding"
METHODS = (FIRST_EPOCH, TIED, ASCENT, ASCENT_EMBEDDING)
NO_LIMITS = Limits(max_retain_nats=None, max_relative_step=None)

EMBEDDING_LAYERS = "^wte/"


class Comparison(NamedTuple):
    """What the methods came to."""

    target: float  # the forget loss that all went to
    outcomes: dict[str, Outcome]
    seconds: dict[str, float]  # wall time of each method, its calibration included


def compare(
    params: Params,
    gradient: Params,
    *,
    mean_gradient: Callable[[Params], Params],
    forget_loss: Measure,
    retain_loss: Measure,
    target: float,
    methods: Collection[str] = METHODS,
    limits: Limits = NO_LIMITS,
    relative_step: float = 1e-3,
    on_method: Callable[[str], None] | None = None,
) -> Comparison:
    """Unlearn the same examples from the same parameters by each method.

    First-epoch unlearning adds recorded gradients to the embedding, the output part of
    its gradient or both parts ("tied"); gradient ascent climbs the gradient at the
    current parameters, of the whole model or of the embedding.

    Args:
      params: Trained parameters; not changed.
      gradient: ``sum_i sum_e w_ie g_ie`` of the examples to forget, stored or replayed.
      mean_gradient: Parameters -> gradient of the mean forget loss there, such as
        :func:`jaxunlearn.training.mean_gradient_of` returns.
      forget_loss: Loss of the examples to forget, of parameters.
      retain_loss: Loss of examples to keep.
      target: The forget loss that every method goes to.
      methods: Which of ``METHODS``; their order is that of the outcomes.
      limits: What no method may pass; none by default, so that the price shows.
      relative_step: Length of a step of gradient ascent, relative to the parameters.
      on_method: Called with the name of each method as it begins.

    Returns:
      The outcomes, which also say where a method could not reach the target.

    Raises:
      ValueError: An unknown method.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"methods={unknown}: known are {', '.join(METHODS)}")
    shared = {
        "forget_loss": forget_loss,
        "retain_loss": retain_loss,
        "target": target,
        "limits": limits,
    }

    def recorded(part: str) -> Outcome:
        return first_epoch(
            params, gradient, layers=EMBEDDING_LAYERS, part=part, **shared
        )

    def ascent(layers: str) -> Outcome:
        return gradient_ascent(
            params,
            gradient=mean_gradient,
            layers=layers,
            relative_step=relative_step,
            **shared,
        )

    ways = {
        FIRST_EPOCH: lambda: recorded(DEFAULT_PART),
        TIED: lambda: recorded("tied"),
        ASCENT: lambda: ascent("."),
        ASCENT_EMBEDDING: lambda: ascent(EMBEDDING_LAYERS),
    }
    outcomes, seconds = {}, {}
    for name in methods:
        if on_method is not None:
            on_method(name)
        start = time.perf_counter()
        outcomes[name] = ways[name]()
        seconds[name] = time.perf_counter() - start
    return Comparison(target, outcomes, seconds)


def loss_table(
    models: Mapping[str, Params], losses: Mapping[str, Measure]
) -> dict[str, dict[str, float]]:
    """Return ``{model: {set: loss}}``, every model measured on every set."""
    return {
        model: {name: loss(params) for name, loss in losses.items()}
        for model, params in models.items()
    }


def described(comparison: Comparison, params: Params, retain_before: float) -> dict:
    """Return a comparison as JSON values, under the names that the report reads.

    Args:
      comparison: What the methods came to.
      params: The parameters that they started from.
      retain_before: The retain loss there.

    Returns:
      ``calibration`` (method -> trials), ``outcomes`` (method -> status, scale and
      explanation) and ``changed`` (method -> changed leaves).
    """
    outcomes = comparison.outcomes.items()
    return {
        "calibration": {
            name: [trial._asdict() for trial in outcome.trials]
            for name, outcome in outcomes
        },
        "outcomes": {
            name: {
                "status": outcome.status,
                "scale": outcome.scale,
                "explanation": explain(outcome, comparison.target, retain_before),
            }
            for name, outcome in outcomes
        },
        "changed": {
            name: changed_leaves(params, outcome.params) for name, outcome in outcomes
        },
    }
