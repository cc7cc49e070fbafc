"""First-epoch unlearning: add back the gradients that examples gave in epoch one.

Zagardo, "A More Practical Approach to Machine Unlearning", arXiv 2406.09391. Only the
paper's abstract fixes the method (gradients of the first epoch, the embedding layer,
care with over-exposure, fuzzy against iterative removal); the equations here are our
reconstruction: ``theta + s sum_i sum_e w_ie g_ie`` on the chosen layers, with g_ie the
gradient of example i before its step in epoch e, and the scale s calibrated.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import selection
from jaxunlearn.models.tying import tie, token_table
from jaxunlearn.training.replay import last_exposure, replayed_gradient
from jaxunlearn.training.runs import Run
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.calibration import Measure, calibrate
from jaxunlearn.unlearning.cost import training_step_flops
from jaxunlearn.unlearning.forms import Direction, Progress, Sets
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.outcome import Outcome

DEFAULT_PART = "output"
"""The cheaper use of the embedding to change where facts are known by heart."""

PARTS = {"tied": ".", "input": "^(?!lm_head/)", "output": "^(?!wte/)"}
"""The parameters, untied, that each use of a tied embedding leaves in."""


def ascent_direction(
    gradient: Params, mask: Params, part: str = DEFAULT_PART
) -> Params:
    """Return the recorded gradient on the chosen layers, zeros elsewhere.

    Args:
      gradient: A sum of recorded gradients, stored or replayed, untied.
      mask: The chosen layers, from :func:`jaxunlearn.tree.select`.
      part: Which use of the tied embedding: ``output``, the head's part, dense;
        ``input``, the lookup part, zero but for the rows of the examples' tokens;
        ``tied``, both: the true gradient. Other leaves do not depend on it.

    Raises:
      ValueError: Unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: one of {', '.join(PARTS)}")
    used = tree.masked(gradient, tree.select(gradient, PARTS[part]))
    return tree.masked(tie(used), mask)


def first_epoch(
    params: Params,
    gradient: Params,
    *,
    layers: str,
    stacked: tuple[str, ...] | None = None,
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
      gradient: ``sum_i sum_e w_ie g_ie`` of the examples to forget, untied.
      layers: What to change, as for :func:`jaxunlearn.tree.select`.
      stacked: Folders of stacked layers, as for the same function.
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
    mask = tree.select(params, layers, stacked=stacked)
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


def add_back(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    *,
    run: Run,
    indices: Sequence[int],
    layers: str,
    on_step: Callable[[Progress], None],
    part: Literal["tied", "input", "output"] = DEFAULT_PART,
    epochs: tuple[int, ...] = (1,),
    weight: Literal["unit", "sgd"] = "unit",
) -> Direction:
    """Add back the gradients that the examples gave in training, recorded by a replay.

    Args:
      task: Tells which leaves are stacked; the run has its own loss.
      params: Trained parameters.
      sets: Not used.
      run: The training run.
      indices: Positions in its data of the examples to forget.
      layers: What to change.
      on_step: Called after each replayed step.
      part: Which use of the tied embedding to change.
      epochs: Whose gradients to add back; 1 is the first.
      weight: unit: each gradient counts the same; sgd: as SGD applied it.
    """
    mask = selection(task, params, layers)
    check_part(part, mask, layers)
    gradient, _ = replayed_gradient(
        run.model,
        run.recipe,
        run.data,
        run.start,
        indices,
        epochs=epochs,
        weight=weight,
        on_step=replaying(run, indices, epochs, on_step),
    )
    return Direction(ascent_direction(gradient, mask, part))


def check_part(part: str, mask: Params, layers: str) -> None:
    """Refuse a part of the embedding where the embedding is not to change.

    Raises:
      ValueError: Unknown part, or it would have no effect.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: one of {', '.join(PARTS)}")
    if part != DEFAULT_PART and not bool(token_table(mask).any()):
        raise ValueError(
            f"part={part} has no effect with layers={layers}, which leave the "
            f"embedding as it is: leave it out, or choose layers with wte"
        )


def replaying(
    run: Run,
    indices: Sequence[int],
    epochs: tuple[int, ...],
    on_step: Callable[[Progress], None],
) -> Callable[[int], None]:
    """Return what tells ``on_step`` of the steps of a replay."""
    total = last_exposure(run.recipe, run.data, indices, epochs) + 1
    flops = training_step_flops(run)

    def tell(step: int) -> None:
        doing = "Replaying the training run"
        on_step(Progress(doing, step + 1, total, flops=flops))

    return tell
