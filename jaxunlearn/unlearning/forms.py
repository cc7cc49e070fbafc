"""The four forms of an unlearning method, and what each is given.

========= ============================================ =============================
form      function                                     what the runner does with it
========= ============================================ =============================
objective ``(task, *, options) -> Objective``          descends its loss in the one
                                                       training loop
edit      ``(task, params, sets, *, options) ->        goes ``theta + s (edit(theta)
          Params`` at strength 1                       - theta)`` to the target
wrapper   ``(task, params, sets, *, options) ->        hands the new task on, and
          Task``                                       measures it
exact     ``(run, forget, *, options) ->               hands its parameters on, and
          ExactResult`` with ``params``                measures them
========= ============================================ =============================

Options are the function's keyword arguments, and the command line is made of them and
their defaults. Some names ask the runner instead: ``run`` (the training run),
``indices`` (the positions in it of what is to be forgotten), ``layers``, ``key``,
``target``, ``limits``, ``losses`` (:class:`Losses`), ``on_step`` (called with a
:class:`Progress`), ``directory`` (where work is saved and taken up).

An edit may return a :class:`Direction` instead, where it knows its step better than
``edit(theta) - theta`` in rounded parameters does; and an edit that looks again on its
way goes to ``target`` within ``limits`` itself and returns an
:class:`~jaxunlearn.unlearning.outcome.Outcome`.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from jaxunlearn.types import Batch, Params
from jaxunlearn.unlearning.calibration import Measure
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.outcome import Trial

FORMS = ("objective", "edit", "wrapper", "exact")

NEEDS = {
    "retain": "sets.retain, examples to keep",
    "unseen": "sets.unseen, examples like the forgotten ones that were never seen",
    "run": "run, the training run with its data, recipe and start",
    "indices": "indices, the positions in the run's data of what is to be forgotten",
    "outputs": "a task with outputs and loss_of_outputs",
    "targets": "a task with targets",
    "states": "a task with states",
}
"""What a method may need, and what to give where it is missing."""


class Sets(NamedTuple):
    """Examples by their part in unlearning; in an objective's loss, a batch of each."""

    forget: Iterable[Batch]
    retain: Iterable[Batch] | None = None
    unseen: Iterable[Batch] | None = None


class Objective(NamedTuple):
    """A loss to descend: two pure functions, as in optax, and what is computed once.

    Attributes:
      init: ``(params, key) -> state`` from the starting parameters: a reference tree,
        control vectors, dual variables; ``()`` for none.
      loss: ``(params, state, sets, key) -> (float32[], next state)``, with a batch for
        each set; lower is better forgotten.
      reference: ``(params, batch) -> {name: array[B]}`` at the starting parameters,
        computed once for each example; batches bring the columns along. None: none.
    """

    init: Callable[[Params, jax.Array], Any]
    loss: Callable[[Params, Any, Sets, jax.Array], tuple[jax.Array, Any]]
    reference: Callable[[Params, Batch], Mapping[str, jax.Array]] | None = None


class Direction(NamedTuple):
    """The step of an edit, ``edit(theta) - theta``, float32."""

    step: Params


class Losses(NamedTuple):
    """Mean losses of whole sets, as functions of parameters."""

    forget: Measure
    retain: Measure
    examples: Callable[[Params], Any]  # float32[n]: of each example to forget
    gradient: Callable[[Params], Params]  # of the mean forget loss, float32
    unseen: Measure | None = None


class Progress(NamedTuple):
    """What a method tells after a step."""

    doing: str
    step: int  # steps done
    total: int | None = None  # None: not known beforehand
    forget: float | None = None  # forget loss here
    flops: float = 0.0  # what the step took, where it is not measured otherwise


def telling_steps(
    doing: str, on_step: Callable[[Progress], None]
) -> Callable[[Trial], None]:
    """Return what tells each trial of a way as its next step."""
    count = itertools.count(1)
    return lambda trial: on_step(Progress(doing, next(count), None, trial.forget))


class Method(NamedTuple):
    """A row of ``METHODS``.

    Attributes:
      form: One of ``FORMS``.
      function: The method; see the top of this file.
      needs: Names of ``NEEDS``.
      source: Paper, equation; where ours differs.
      cost: What it takes, in words.
      removes: Whether the parameters lose the influence; False where it is suppressed
        at inference, and still in the weights.
      layers: What it changes unless told otherwise, a regular expression.
      limits: What it must not pass unless told otherwise.
    """

    form: str
    function: Callable[..., Any]
    needs: frozenset[str]
    source: str
    cost: str
    removes: bool
    layers: str = "."
    limits: Limits = Limits(max_retain_nats=None)
