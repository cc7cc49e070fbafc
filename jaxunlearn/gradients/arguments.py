"""Losses as arguments of compiled programs.

A task is a tree: its arrays are arguments, its settings are what programs are
remembered by. Any other function is remembered by itself.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.patterns import one_pattern
from jaxunlearn.types import Params, PerExampleLoss

T = TypeVar("T")
NAMES = {"outputs": "logits", "loss_of_outputs": "loss_of_logits"}
"""What a task calls its functions, and what a model of sequences or classes does."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerLoss:
    """A loss and the leaves that it is differentiated by.

    Attributes:
      loss: The loss as :func:`as_argument`.
      layers: Expression of the leaves; None is all.
    """

    loss: PerExampleLoss
    layers: str | None = dataclasses.field(metadata={"static": True})


def layer_loss(loss: PerExampleLoss, layers: str | Sequence[str] | None) -> LayerLoss:
    """Return a loss and an expression of leaves, or several, as one argument."""
    pattern = None if layers is None else one_pattern(layers)
    return LayerLoss(as_argument(loss), pattern)


def as_argument(function: Callable) -> Callable:
    """Return a function as an argument that a compiled program may take.

    >>> jax.tree.leaves(as_argument(lambda params, batch: params))
    []
    """
    owner = getattr(function, "__self__", None)
    if is_tree(function):
        return function
    if owner is not None and is_tree(owner):
        # The method of a task: its arrays are arguments here too.
        return Partial(function.__func__, owner)  # pyrefly: ignore
    return Partial(function)


def is_tree(value: Any) -> bool:
    """Return whether JAX takes a value apart."""
    return not jax.tree_util.all_leaves([value])


def owners(loss: Callable) -> tuple[Any, ...]:
    """Return what may know more of a loss: itself, and the object it is a method of."""
    function, first = loss, ()
    if isinstance(loss, functools.partial):
        function, first = loss.func, loss.args[:1]
    owner = getattr(function, "__self__", None)
    return (loss, function, *first, *(() if owner is None else (owner,)))


def told_by(loss: Callable, name: str, kind: type[T]) -> T | None:
    """Return what a loss, or the task or model that it is of, says by an attribute."""
    told = (getattr(owner, name, None) for owner in owners(loss))
    return next((value for value in told if isinstance(value, kind)), None)


def task_function(loss: PerExampleLoss, name: str) -> Callable:
    """Return the function ``name`` of a task, or of the model whose method it is.

    Raises:
      ValueError: There is none.
    """
    argument = NAMES[name]
    for owner in owners(loss):
        for known in (name, argument):
            found = getattr(owner, known, None)
            if callable(found):
                return found
    raise ValueError(
        f"{argument} is not given, and loss={loss!r} is neither a task that has "
        f"{name} nor a method of a model that has {argument}: pass {argument}=, or a "
        f"task, such as jaxunlearn.tasks.language_task(model), or the bound method "
        f"model.per_example_loss"
    )


def label_field(loss: PerExampleLoss) -> str:
    """Return where in a batch the labels are: a task may say it by its ``labels``."""
    return told_by(loss, "labels", str) or "labels"


def stacked_folders(loss: PerExampleLoss, params: Params) -> tuple[str, ...]:
    """Return which folders of parameters are stacked over layers.

    A task or model says it by its ``stacked``; else what the tree itself tells counts
    (:func:`jaxunlearn.tree.stacked_folders`).
    """
    for owner in owners(loss):
        stacked = getattr(owner, "stacked", None)
        if stacked is not None:
            return tuple(stacked)
    return tree.stacked_folders(params)


def selection(
    loss: PerExampleLoss, params: Params, layers: str | Sequence[str] | None
) -> Params | None:
    """Return the masks of the leaves that ``layers`` selects; None if all are.

    Raises:
      ValueError: The expression matches nothing.
    """
    if layers is None:
        return None
    return tree.select(params, layers, stacked=stacked_folders(loss, params))


def masks(loss: PerExampleLoss, params: Params, layers: str | None) -> dict[str, Any]:
    """Return each leaf's mask of selected layers."""
    mask = selection(loss, params, layers)
    if mask is None:
        return {name: np.asarray(True) for name, _ in tree.named_leaves(params)}
    return dict(tree.named_leaves(mask))
