"""Products of the Fisher matrix and a vector, empirical and true; sampled labels."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxunlearn.gradients.arguments import (
    as_argument,
    label_field,
    selection,
    task_function,
)
from jaxunlearn.gradients.batching import indexed
from jaxunlearn.gradients.curvature_products import Logits
from jaxunlearn.gradients.mean_products import Fill, mean_product
from jaxunlearn.randomness import pinned
from jaxunlearn.tree import scaled
from jaxunlearn.types import IGNORED_LABEL, Batch, Params, PerExampleLoss


def fisher_vp(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    vector: Params,
    *,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return ``F v``, F the empirical Fisher matrix, with the labels of the data.

    ``F v = sum_i w_i g_i (g_i . v) / sum_i w_i``, ``g_i`` the gradient of example i.
    One forward-mode sweep gives all ``g_i . v``, one backward pass sums the gradients
    so weighted: no per-example gradient is formed.

    Args:
      loss: Per-example loss.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: A batch, or batches of one shape (then this is a driver, which
        loops in Python and compiles once); ``weight``, where present, weighs the
        examples.
      vector: A tree like ``params``.
      layers: A regular expression that selects parameters: the product is ``P F P v``,
        P zero on all others. None selects all.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      A float32 tree like ``params``; zeros if all weights are 0.

    Raises:
      ValueError: As :func:`~jaxunlearn.gradients.hvp`.

    Cost: about 1.7 gradients. Kunstner et al., Limitations of the empirical Fisher
    approximation, 2019: far from a minimum it is no curvature of the loss.

    >>> loss = lambda params, batch: params * batch["x"]
    >>> one = jnp.float32(1.0)
    >>> float(fisher_vp(loss, one, {"x": jnp.array([1.0, 3.0])}, one))
    5.0
    """

    product = Partial(fisher_product, as_argument(loss))
    return mean_product(
        product,
        params,
        batch_or_batches,
        vector,
        mask=selection(loss, params, layers),
        batch_size=batch_size,
    )


def fisher_product(
    loss: PerExampleLoss, params: Params, vector: Params, fill: Fill, part: Batch
) -> Params:
    """Return ``sum_i w_i g_i (g_i . v)``."""

    def losses(chosen: Params) -> jax.Array:
        return loss(fill(chosen), part)

    dots = jax.jvp(losses, (params,), (vector,))[1]
    return jax.vjp(losses, params)[1](part["weight"] * dots)[0]


def true_fisher_vp(
    loss: PerExampleLoss,
    params: Params,
    batch_or_batches: Batch | Iterable[Batch],
    vector: Params,
    *,
    key: jax.Array,
    draws: int = 1,
    logits: Logits | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
) -> Params:
    """Return ``F v``, F the true Fisher matrix, estimated with sampled labels.

    ``F = sum_i w_i E_y[g_i(y) g_i(y)^T] / sum_i w_i``, y drawn from the model itself
    (:func:`sampled_labels`); the mean of ``draws`` draws estimates the expectation
    without bias. The same ``key`` is the same draw and so the same matrix, symmetric
    and positive semi-definite, whatever the vector and ``batch_size``.

    For a cross-entropy of one label an example F is the Gauss-Newton matrix. For the
    mean cross-entropy of n independent labels an example's part is 1/n of it, since the
    noise of the labels averages out: :func:`~jaxunlearn.gradients.gauss_newton_vp`
    gives the matrix without noise and without that factor.

    Args:
      loss: Per-example loss that reads ``labels``, or what a task's own ``labels``
        names: a negative log-likelihood (or its mean over labels) of the softmax of the
        logits.
      params: The point; differentiated as its float32 copy.
      batch_or_batches: As in :func:`fisher_vp`. Without ``index`` the examples of one
        batch count from 0; several batches need it.
      vector: A tree like ``params``.
      key: Draws the labels, together with each example's ``index``.
      draws: Draws of all labels.
      logits: ``(params, batch) -> float32[B,...,V]``; None takes the
        outputs of the task, or of the model whose method ``loss`` is.
      layers: As in :func:`fisher_vp`.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      A float32 tree like ``params``; zeros if all weights are 0.

    Raises:
      ValueError: As :func:`fisher_vp` and :func:`sampled_labels`; ``draws`` is below 1;
        or ``logits`` are neither given nor found.

    Cost: ``draws`` times about 2 gradients.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: must be at least 1")
    if logits is None:
        logits = task_function(loss, "outputs")
    if isinstance(batch_or_batches, Mapping):
        batch_or_batches = indexed(batch_or_batches)
    keys = jax.random.split(key, draws)
    product = Partial(true_fisher_product, as_argument(loss), as_argument(logits), keys)
    return mean_product(
        product,
        params,
        batch_or_batches,
        vector,
        mask=selection(loss, params, layers),
        batch_size=batch_size,
    )


def true_fisher_product(
    loss: PerExampleLoss,
    logits: Logits,
    keys: jax.Array,
    params: Params,
    vector: Params,
    fill: Fill,
    part: Batch,
) -> Params:
    """Return ``sum_i w_i g_i(y) (g_i(y) . v)``, the mean over one draw of y a key."""
    if "index" not in part:
        raise ValueError(
            "batches without index would all draw alike: give each batch its examples' "
            "index in the data set, int32[B]"
        )
    z = logits(fill(params), part)

    def add_draw(total: Params, key: jax.Array) -> tuple[Params, None]:
        labelled = sampled_labels(z, part, key=key, labels=label_field(loss))
        drawn = fisher_product(loss, params, vector, fill, labelled)
        return jax.tree.map(jnp.add, total, drawn), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add_draw, zeros, keys)
    return scaled(1.0 / len(keys), total)


@pinned
def sampled_labels(
    logits: jax.Array, batch: Batch, *, key: jax.Array, labels: str = "labels"
) -> Batch:
    """Return the batch with labels drawn from the model: ``y ~ softmax(logits)``.

    With them :func:`~jaxunlearn.gradients.fisher_diagonal` and :func:`fisher_vp` give
    an unbiased draw of the *true* Fisher; average over keys for less noise. An
    example's draw depends on ``key`` and its ``index`` only, not on the batch it
    travels in.

    Args:
      logits: float32[B,T,V] of a language model, whose labels [B,T] are not shifted
        (those at t + 1 are drawn from the logits at t, -100 stays); or float32[B,V] of
        a classifier with labels [B].
      batch: The batch with its labels; without ``index`` its examples count from 0.
      key: Draws the labels.
      labels: Where in the batch the labels are.

    Raises:
      ValueError: There are no labels, or the shapes are neither of the two.

    >>> logits = jnp.array([[0.0, 50.0], [50.0, 0.0]])
    >>> batch = {"labels": jnp.array([0, 0])}
    >>> sampled_labels(logits, batch, key=jax.random.key(0))["labels"].tolist()
    [1, 0]
    """
    if labels not in batch:
        raise ValueError(
            f"labels={labels!r} is not in the batch, which has {', '.join(batch)}: "
            f"take a task that says by its labels where they are"
        )
    given = jnp.asarray(batch[labels])
    if given.ndim not in (1, 2) or given.shape != logits.shape[:-1]:
        raise ValueError(
            f"{labels} of shape {given.shape} do not go with logits of shape "
            f"{logits.shape}: needed are [B,T] and [B,T,V], or [B] and [B,V]"
        )
    index = jnp.asarray(batch.get("index", jnp.arange(given.shape[0])))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    draw: Callable = jax.vmap(jax.random.categorical)
    if given.ndim == 1:
        drawn = draw(keys, logits)
    else:
        # The first token has no logits before it; its label carries no loss.
        drawn = jnp.pad(draw(keys, logits[:, :-1]), ((0, 0), (1, 0)))
        drawn = drawn.at[:, 0].set(given[:, 0])
    drawn = jnp.where(given == IGNORED_LABEL, given, drawn.astype(given.dtype))
    return {**batch, labels: jax.lax.stop_gradient(drawn)}
