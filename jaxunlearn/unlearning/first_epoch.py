"""First-epoch unlearning: add back the gradients that examples gave in epoch one.

Zagardo, "A More Practical Approach to Machine Unlearning", arXiv 2406.09391. Only the
paper's abstract fixes the method (gradients of the first epoch, the embedding layer,
care with over-exposure, fuzzy against iterative removal); the equations here are our
reconstruction: ``theta + s sum_i sum_e w_ie g_ie`` on the chosen layers, with g_ie the
gradient of example i before its step in epoch e, and the scale s calibrated.
"""

from jaxunlearn import tree
from jaxunlearn.training.recorded_gradient import RecordedGradient, combine
from jaxunlearn.types import Params
from jaxunlearn.unlearning.calibration import (
    Limits,
    Measure,
    Outcome,
    calibrate,
)

DEFAULT_LAYERS = "wte"
DEFAULT_PART = "output"
"""The cheaper use of the embedding to change where facts are known by heart."""


def ascent_direction(
    gradient: RecordedGradient, mask: Params, part: str = DEFAULT_PART
) -> Params:
    """Return the recorded gradient on the chosen layers, zeros elsewhere.

    Args:
      gradient: A sum of recorded gradients, stored or replayed.
      mask: The chosen layers, from :func:`jaxunlearn.tree.select`.
      part: Which use of the tied embedding: ``output``, ``input`` or ``tied`` (both:
        the true gradient).
    """
    return tree.masked(combine(gradient, part), mask)


def first_epoch(
    params: Params,
    gradient: RecordedGradient,
    *,
    mask: Params,
    part: str = DEFAULT_PART,
    forget_loss: Measure,
    retain_loss: Measure,
    target: float,
    limits: Limits = Limits(),
    scale: float | None = None,
) -> Outcome:
    """Unlearn in one shot: ``theta + s d``, with d the recorded gradients' sum.

    The sign is plus because training went down those gradients. Every recorded
    gradient is used once. Handing in the gradients of fuzzy matches makes it the
    paper's fuzzy removal: neighbours come along, so it moves further than exact.

    Args:
      params: Trained parameters.
      gradient: ``sum_i sum_e w_ie g_ie`` of the examples to forget.
      mask: The layers to change.
      part: Which use of the tied embedding to change.
      forget_loss: Loss of the examples to forget, of parameters.
      retain_loss: Loss of examples to keep.
      target: The forget loss to reach.
      limits: What the step must not pass.
      scale: A given s (1 with ``sgd`` weights is the literal undo of plain SGD);
        None calibrates it.

    Returns:
      The outcome; see :func:`~jaxunlearn.unlearning.calibration.calibrate`.
    """
    return calibrate(
        params,
        ascent_direction(gradient, mask, part),
        forget_loss=forget_loss,
        retain_loss=retain_loss,
        target=target,
        layer_norm=float(tree.norm(params, mask)),
        limits=limits,
        scale=scale,
    )
