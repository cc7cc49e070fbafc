"""Special heads: layers that are given their matrix and return losses.

The gradient of a language model's logits is V numbers a token. It is formed for a few
examples at a time, from logits that are kept only where all of them fit. ``HEADS`` says
how each such layer is read; nothing else in this room knows one by name.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.taps.layers import Reading, attend
from jaxunlearn.gradients.taps.outer_products import OuterProducts, float32_einsum
from jaxunlearn.models.cross_entropy import (
    OutputHead,
    head_logits,
    losses_of_logits,
    next_token_losses,
)
from jaxunlearn.types import IGNORED_LABEL

HEAD_BYTES = 2**28
"""Most memory for the outputs of a head at a time."""


class WideLoss(NamedTuple):
    """Losses of ``outputs = inputs @ matrix.T`` [B,T,V] against targets.

    Attributes:
      losses: ``(inputs, matrix, targets) -> losses``, without all outputs at a time.
      outputs: ``(inputs, matrix) -> outputs``, float32.
      losses_of_outputs: ``(outputs, targets) -> losses``.
      gradient: ``(outputs, targets, cotangent of the losses) -> [B,T,V]``.
    """

    losses: Callable
    outputs: Callable
    losses_of_outputs: Callable
    gradient: Callable


class Head(NamedTuple):
    """How a module's method ``(inputs, matrix, ...)`` is read.

    Attributes:
      reading: Of the module and its inputs, as in ``layers.py``: what the matrix sees
        of inputs and the gradient of the outputs.
      loss: Where the method is given targets too and returns losses; else None.
    """

    reading: Callable[[Any, jax.Array], Reading]
    loss: WideLoss | None = None


def next_token_losses_of_logits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of each next token, float32[B,T-1]."""
    return losses_of_logits(logits[:, :-1], labels[:, 1:])


def next_token_gradient(
    logits: jax.Array, labels: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """Return ``cotangent * (softmax(logits) - onehot(label))``; 0 at the last token."""
    labels = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED_LABEL)
    cotangent = jnp.pad(cotangent, ((0, 0), (0, 1)))
    scale = jnp.where(labels == IGNORED_LABEL, 0.0, cotangent)[..., None]
    true = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels[..., None]
    return scale * (jax.nn.softmax(logits, axis=-1) - true)


NEXT_TOKEN = WideLoss(
    next_token_losses, head_logits, next_token_losses_of_logits, next_token_gradient
)

HEADS: dict[tuple[type, str], Head] = {
    (OutputHead, "logits"): Head(attend),
    (OutputHead, "losses"): Head(attend, NEXT_TOKEN),
}
"""(module, method) -> how it is read."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadCall:
    """A call of a head that returns losses, or the shapes of one."""

    inputs: jax.Array  # [B,T,D]
    matrix: jax.Array  # [V,D]
    targets: jax.Array  # [B,T]
    loss: WideLoss = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadProducts:
    """The outer products of a head, before they are formed: V numbers a token."""

    inputs: jax.Array  # [B,T,D]
    targets: jax.Array  # [B,T]
    cotangent: jax.Array  # of the losses, float32
    matrix: jax.Array | None  # [V,D]; None where it is at hand anyway
    loss: WideLoss = dataclasses.field(metadata={"static": True})


def form_products(
    part: OuterProducts | HeadProducts,
    matrix: jax.Array | None = None,
    outputs: jax.Array | None = None,
) -> OuterProducts:
    """Return outer products as such; of a head, they are formed.

    ``matrix`` is that of a head without its own, ``outputs`` spares computing them.
    """
    if not isinstance(part, HeadProducts):
        return part
    if outputs is None:
        matrix = part.matrix if part.matrix is not None else matrix
        outputs = part.loss.outputs(part.inputs, matrix)
    left = part.loss.gradient(outputs, part.targets, part.cotangent)
    return OuterProducts(left, part.inputs)


def without_matrix(part: OuterProducts | HeadProducts) -> OuterProducts | HeadProducts:
    """Return products without the head's matrix, which is a parameter."""
    if not isinstance(part, HeadProducts):
        return part
    return dataclasses.replace(part, matrix=None)


class Leave(NamedTuple):
    """What a tap at a head is to leave."""

    statistic: Callable[[OuterProducts, jax.Array, Any], Any]
    """From products, weights and the statistic's further arrays."""
    summed: bool
    sends: bool  # the products are handed out too, as inputs, targets and cotangent


def tap_head(head: HeadCall, leave: Leave, carried: Mapping, extra: Any) -> jax.Array:
    """Return the losses of a head; on the way back, leave a statistic in its slots.

    The gradient of the outputs is formed for a few examples at a time, from outputs
    that are kept only where all of them fit in ``HEAD_BYTES``.
    """
    loss = head.loss
    group, whole = head_group(head.inputs, head.matrix)

    @jax.custom_vjp
    def losses(inputs, matrix, targets, weight, extra, slots):
        return loss.losses(inputs, matrix, targets)

    def forward(inputs, matrix, targets, weight, extra, slots):
        outputs = loss.outputs(inputs, matrix) if whole else None
        value = (
            loss.losses(inputs, matrix, targets)
            if outputs is None
            else loss.losses_of_outputs(outputs, targets)
        )
        return value, (inputs, matrix, targets, outputs, weight, extra)

    def backward(kept, cotangent):
        inputs, matrix, targets, outputs, weight, extra = kept

        def of_group(inputs, targets, cotangent, outputs, weight):
            wide = HeadProducts(inputs, targets, cotangent, matrix, loss)
            part = form_products(wide, outputs=outputs)
            direct = leave.statistic(part, weight, extra)
            by_inputs = float32_einsum("btv,vd->btd", part.left, matrix)
            return by_inputs.astype(inputs.dtype), direct

        by_inputs, direct = in_groups(
            of_group, (inputs, targets, cotangent, outputs, weight), group, leave.summed
        )
        sent = [x.astype(jnp.float32) for x in (inputs, targets, cotangent)]
        slots = (direct, sent if leave.sends else [])
        return by_inputs, None, None, None, None, slots

    losses.defvjp(forward, backward)
    # The matrix itself is not differentiated here: its gradient is the statistic.
    return losses(
        head.inputs,
        jax.lax.stop_gradient(head.matrix),
        head.targets,
        carried["weight"],
        extra,
        carried["slots"],
    )


def head_group(inputs: jax.Array, matrix: jax.Array) -> tuple[int, bool]:
    """Return how many examples' outputs to form at a time, and whether that is all."""
    size, length = inputs.shape[:2]
    most = max(1, HEAD_BYTES // (4 * length * matrix.shape[0]))
    group = max(g for g in range(1, size + 1) if size % g == 0 and g <= most)
    return group, group == size


def in_groups(function: Callable, arrays: tuple, group: int, summed: bool) -> tuple:
    """Return ``function(*arrays)``, rows and a statistic, ``group`` examples a time."""
    size = arrays[0].shape[0]
    if group == size:
        return function(*arrays)
    parts = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), arrays)
    join = functools.partial(jax.tree.map, lambda x: x.reshape(size, *x.shape[2:]))
    if not summed:
        return join(jax.lax.map(lambda part: function(*part), parts))
    first = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], parts))[1]

    def add(total, part):
        rows, statistic = function(*part)
        return jax.tree.map(jnp.add, total, statistic), rows

    total, rows = jax.lax.scan(
        add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first), parts
    )
    return join(rows), total
