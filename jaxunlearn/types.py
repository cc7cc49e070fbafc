"""Shared types, and the legend of the letters that array shapes are written in.

==== =====================================  ==== ==============================
B    examples of one batch                  N    layers (transformer blocks)
T    tokens of one sequence                 H    attention heads
V    vocabulary                             K    width of one head (D / H)
D    model width                            F    feed-forward width
S    slots of a key-value cache             P    number of parameters
==== =====================================  ==== ==============================

A name such as ``x_BTD`` carries its shape.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

Params = Any
"""A nested dict of arrays; a leaf's name is its path joined by ``/``."""

IGNORED_LABEL = -100
"""Hugging Face's label of a token that bears no loss."""

Batch = Mapping[str, Any]
"""Arrays with leading axis B: ``input_ids`` int32[B,T], ``labels`` int32[B,T] (-100 =
no loss, not shifted), ``attention_mask`` int32[B,T], ``index`` int32[B] (position in
the data set, -1 = padding), ``weight`` float32[B] (0 = padding)."""

LinearMap = Callable[[Params], Params]
"""A closure ``v -> A v`` on parameter trees, such as a Hessian-vector product."""


class PerExampleLoss(Protocol):
    """A pure, deterministic function from which everything else derives."""

    def __call__(self, params: Params, batch: Batch, /) -> jax.Array:
        """Return the loss of each example, float32[B]; padding examples give 0."""
        ...


class Task(Protocol):
    """A per-example loss that can be asked for more than its value.

    A task is a frozen dataclass that is registered as a pytree: settings are static,
    arrays (normalization statistics, an adjacency matrix) are leaves, so they are
    arguments of a compiled program and not constants in it. Whatever takes a loss takes
    a task. Only the call is required; a task that has not one of the others lacks the
    attribute, and what needs it says so before any work.

    A task may also have ``stacked``: the names of the folders whose leaves are stacked
    over layers (:func:`jaxunlearn.tree.select`); and ``labels``: the name under which a
    batch holds what ``targets`` reads, where it is not ``labels``.
    """

    def __call__(
        self, params: Params, batch: Batch, /, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the loss of each example, float32[B]; padding examples give 0.

        ``key`` turns on what is random; an example's draws come from (key, ``index``).
        """
        ...

    def outputs(self, params: Params, batch: Batch, /) -> jax.Array:
        """Return logits, predictions or embeddings, [B,...,K]."""
        ...

    def targets(self, batch: Batch, /) -> jax.Array:
        """Return what outputs are judged against, [B,...]; -100 means nothing."""
        ...

    def loss_of_outputs(self, outputs: jax.Array, batch: Batch, /) -> jax.Array:
        """Return the loss of each example from its outputs, float32[B]."""
        ...

    def states(
        self, params: Params, batch: Batch, /, *, keep: Callable[[jax.Array], Any]
    ) -> Any:
        """Return ``keep`` of the activations of every layer, stacked over layers."""
        ...
