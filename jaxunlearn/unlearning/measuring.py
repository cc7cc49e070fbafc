"""Losses of the sets of an unlearning request, as functions of parameters."""

from collections.abc import Iterable, Mapping

from jaxunlearn.training.losses import example_losses, mean_gradient_of, mean_loss_of
from jaxunlearn.types import Batch, Params, PerExampleLoss
from jaxunlearn.unlearning.forms import Losses, Measure, Sets


def losses_of_sets(task: PerExampleLoss, sets: Sets) -> Losses:
    """Return the mean losses of the sets as functions of parameters.

    Without examples to keep, the retain loss is 0 everywhere.
    """

    def mean(batches: Iterable[Batch] | None) -> Measure | None:
        return None if batches is None else mean_loss_of(task, batches)

    return Losses(
        forget=mean_loss_of(task, sets.forget),
        retain=mean(sets.retain) or zero,
        examples=lambda params: example_losses(task, params, sets.forget),
        gradient=mean_gradient_of(task, sets.forget),
        unseen=mean(sets.unseen),
    )


def with_known(losses: Losses, params: Params, known: Mapping[str, float]) -> Losses:
    """Return the losses, of which some were measured before at just these parameters.

    Args:
      losses: Mean losses of the sets.
      params: Where they are known: this tree itself, not one that is equal.
      known: Mean losses there, by name of the set.

    Raises:
      ValueError: There is no such set.
    """
    names = [n for n in Sets._fields if getattr(losses, n) is not None]
    if unknown := sorted(known.keys() - names):
        raise ValueError(f"before={unknown}: the sets are {', '.join(names)}")

    def remembered(name: str) -> Measure:
        measure = getattr(losses, name)
        return lambda point: known[name] if point is params else measure(point)

    return losses._replace(**{name: remembered(name) for name in known})


def zero(_params: Params) -> float:
    """Return 0."""
    return 0.0
