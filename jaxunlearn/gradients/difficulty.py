"""How hard a training example is: the length of its gradient, or of its error."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn.gradients.arguments import as_argument
from jaxunlearn.gradients.batching import rows_of
from jaxunlearn.gradients.per_example import per_example_norms
from jaxunlearn.types import IGNORED_LABEL, Batch, Params, PerExampleLoss, Task


def grand(
    loss: PerExampleLoss,
    params: Params | Sequence[Params],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Return the GraNd score of every example, ``mean_k |g_i(theta_k)|``, float32[B].

    Paul et al., Deep Learning on a Data Diet, 2021, definition 2.1: the expected
    gradient norm early in training, there over ten initialisations.

    Args:
      loss: Per-example loss.
      params: A parameter tree; or a list or tuple of trees, over which to average:
        checkpoints, or runs from other seeds. (A tree that is itself a list goes into
        a list of one.)
      batch_or_batches: A batch of B examples, or batches of one shape, iterated once a
        tree.
      layers: Expression of the leaves (:func:`jaxunlearn.tree.select`); None is all.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Raises:
      ValueError: There is no parameter tree, or as
        :func:`~jaxunlearn.gradients.per_example_norms`.

    Cost: one forward and backward pass a tree; see ``per_example_norms``.

    >>> loss = lambda params, batch: params * batch["x"]
    >>> checkpoints = [jnp.float32(1.0), jnp.float32(2.0)]
    >>> grand(loss, checkpoints, {"x": jnp.array([1.0, -3.0])}).tolist()
    [1.0, 3.0]
    """
    return mean_over(
        params,
        lambda one: per_example_norms(
            loss, one, batch_or_batches, layers=layers, batch_size=batch_size
        ),
    )


def el2n(
    task_or_logits: Callable[[Params, Batch], jax.Array],
    params: Params | Sequence[Params],
    batch_or_batches: Batch | Iterable[Batch],
    *,
    labels: str = "labels",
    next_token: bool = True,
    batch_size: int | None = None,
) -> jax.Array:
    """Return the EL2N score of every example, ``|softmax(logits) - onehot(label)|_2``.

    Paul et al., 2021, definition 2.2. The paper classifies images; of a sequence this
    is the mean over its labelled tokens, each with the error of its own prediction. A
    score lies between 0 (certain and right) and sqrt(2) (certain and wrong).

    Args:
      task_or_logits: A task that has ``outputs`` and ``targets``, which say all; or
        ``(params, batch) -> [B,V]``, or ``[B,T,V]`` of sequences, such as a model's
        ``logits``, with the next two arguments.
      params: A parameter tree, or a list or tuple of trees over which to average.
      batch_or_batches: A batch of B examples, or batches of one shape, iterated once a
        tree.
      labels: Where in a batch the labels are, int32[B] or [B,T]; -100 means no label.
      next_token: The label of position t of a sequence is predicted at t - 1, as by a
        language model; else at t.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      float32[B]; 0 without a label (padding).

    Raises:
      ValueError: There is no parameter tree, or labels are missing or do not fit the
        logits.

    Cost: one forward pass a tree; memory of the logits of ``batch_size`` examples.

    >>> logits_fn = lambda params, batch: batch["x"] * params
    >>> batch = {"x": jnp.array([[0.0, 0.0], [99.0, 0.0]]), "labels": jnp.array([1, 1])}
    >>> el2n(logits_fn, jnp.float32(1.0), batch).round(3).tolist()
    [0.7070000171661377, 1.4140000343322754]
    """
    if hasattr(task_or_logits, "targets"):
        task = as_argument(task_or_logits)
        errors = functools.partial(Partial, task_errors, task)
    else:
        where = LabelPlace(labels, next_token)
        errors = functools.partial(
            Partial, logit_errors, as_argument(task_or_logits), where
        )
    return mean_over(
        params,
        lambda one: rows_of(errors(one), batch_or_batches, batch_size=batch_size),
    )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LabelPlace:
    """Where in a batch labels are, and which logits predict them."""

    name: str
    next_token: bool


def task_errors(task: Task, params: Params, batch: Batch) -> jax.Array:
    """Return :func:`error_norms` of a task's outputs."""
    return error_norms(task.outputs(params, batch), task.targets(batch))


def logit_errors(
    logits_fn: Callable, place: LabelPlace, params: Params, batch: Batch
) -> jax.Array:
    """Return :func:`error_norms` of logits and of labels in the batch."""
    if place.name not in batch:
        raise ValueError(
            f"labels={place.name!r} is not in the batch, which has "
            f"{', '.join(batch)}: say by labels= where they are"
        )
    labels, logits = jnp.asarray(batch[place.name]), logits_fn(params, batch)
    if logits.ndim not in (2, 3) or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits_fn returns shape {logits.shape} for {place.name} of shape "
            f"{labels.shape}: it must be [B,V] for labels [B], or [B,T,V] for [B,T]"
        )
    if logits.ndim == 3 and place.next_token:
        labels, logits = labels[:, 1:], logits[:, :-1]
    return error_norms(logits, labels)


def error_norms(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return each example's mean length of the error, float32[B].

    Logits are [B,V] for labels [B], or [B,T,V] for [B,T].
    """
    logits = logits.astype(jnp.float32)
    if logits.ndim == 2:
        labels, logits = labels[:, None], logits[:, None]
    true = jax.nn.one_hot(labels, logits.shape[-1])
    error = jnp.linalg.norm(jax.nn.softmax(logits, axis=-1) - true, axis=-1)
    counted = labels != IGNORED_LABEL
    total = jnp.sum(jnp.where(counted, error, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)


def mean_over(
    params: Params | Sequence[Params], scores: Callable[[Params], jax.Array]
) -> jax.Array:
    """Return the mean of ``scores`` over one parameter tree or several."""
    trees = params if type(params) in (list, tuple) else [params]
    if not trees:
        raise ValueError("params is empty: give a parameter tree, or a list of them")
    total = scores(trees[0])
    for one in trees[1:]:
        total = total + scores(one)
    return total / len(trees)
