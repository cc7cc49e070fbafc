"""What ``unlearn`` is given, held to what it is before any work."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.vocabulary import check_tokens
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Sets


def check_task(task: Any) -> None:
    """Refuse what is no loss.

    Raises:
      ValueError: Says how to make a task of a model.
    """
    if not callable(task):
        raise ValueError(
            f"task={task!r:.80} is no per-example loss: give a task, such as "
            f"tasks.language_task(model)"
        )


def check_sets(sets: Any) -> None:
    """Refuse sets that are none, or cannot be read more than once.

    Raises:
      ValueError: Names the set, and what to give.
    """
    if not isinstance(sets, Sets):
        raise ValueError(
            f"sets={sets!r:.80}: give unlearning.Sets(forget, retain, unseen), each of "
            f"batches or None"
        )
    for name, part in zip(Sets._fields, sets, strict=True):
        if part is None and name != "forget":
            continue
        what = f"sets.{name}={part!r:.80}"
        if isinstance(part, Mapping):
            raise ValueError(f"{what} is one batch: give a list of it, [batch]")
        if not hasattr(part, "__iter__"):
            raise ValueError(f"{what}: give batches, such as data.in_order(...)")
        if iter(part) is part:
            raise ValueError(
                f"{what} can be read only once, and sets are read again and again: "
                f"give a list of it, or data.in_order(...)"
            )
        first = next(iter(part), None)
        if first is None:
            raise ValueError(f"sets.{name} is empty: give at least one batch")
        if not isinstance(first, Mapping):
            raise ValueError(
                f"{what} holds {first!r:.80} where a batch, a dict of arrays, should "
                f"be: give batches, such as data.in_order(...)"
            )


def check_fit(task: PerExampleLoss, params: Params, sets: Sets) -> None:
    """Refuse parameters and batches that the task cannot be computed with.

    Raises:
      ValueError: Tells the task's own error and the remedy; or a token that the model
        does not know.

    Cost: one trace of the task, and one look at the tokens on the host.
    """
    for name, part in zip(Sets._fields, sets, strict=True):
        if part is not None:
            check_tokens(f"sets.{name}", task, part)
    batch = dict(next(iter(sets.forget)))
    try:
        found = jax.eval_shape(task, params, batch)
    except Exception as error:  # whatever a loss of somebody else's may raise
        raise ValueError(
            f"the task cannot be computed with params on the first batch of "
            f"sets.forget ({type(error).__name__}: {str(error):.200}): give the "
            f"parameters of the task's own model, and batches of its kind"
        ) from error
    size = example_count(batch)
    if getattr(found, "shape", None) != (size,):
        raise ValueError(
            f"task gives {found!r:.80} on a batch of {size} examples: it must give a "
            f"loss for each example, float32[{size}], not their mean"
        )
