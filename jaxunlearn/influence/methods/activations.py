"""Activation dot products: what a layer sees of a query and of a training example.

The activation of layer l is the input ``a[l,t]`` of a weight matrix at token t: of
GPT-2's block ``c_attn`` (the normalised output of the block before), ``attn/c_proj``
(the heads), ``c_fc`` and ``mlp/c_proj`` (the activated units); of a convolution the
patches under its window.
"""

import re
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import (
    LayerLoss,
    layer_loss,
    masks,
    stacked_folders,
)
from jaxunlearn.gradients.batching import rows_of
from jaxunlearn.gradients.kronecker.sums import first_batch
from jaxunlearn.gradients.taps.listening import UntappedWarning, without_warning
from jaxunlearn.gradients.taps.outer_products import Products, float32_einsum
from jaxunlearn.gradients.taps.plans import Statistic, View, prepare
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.types import Batch, Params, PerExampleLoss


class ActivationScores(NamedTuple):
    """Scores of n training examples for Q queries.

    Attributes:
      scores: float32[Q,n], the sum over the layers; positive is a proponent.
      by_layer: Name of a layer's weight matrix -> its part, float32[Q,n].
    """

    scores: jax.Array
    by_layer: dict[str, jax.Array]


def activation_scores(
    loss: PerExampleLoss,
    params: Params,
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch],
    *,
    kind: str = "act_act",
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
) -> ActivationScores:
    """Return how the activations of training examples i and queries q agree.

    With ``m_i[l]`` the mean of ``a_i[l,t]`` over the tokens that are no padding::

        act_act   S(q,i) =  sum_l <m_i[l], m_q[l]>
        act_grad  S(q,i) = -sum_l <m_i[l], sum_t d loss_q / d a_q[l,t]>

    ``act_grad`` is by how much, to first order, the query's loss falls if the mean
    activation of example i is added to its own at every token, in one layer alone, as
    far as the layer's matrix passes it on (several matrices that read the same
    activation each have their part). So in both a positive score is a proponent, in
    ``act_act`` by agreement alone: it does not know whether the loss rises or falls.

    Layers are added as they are: one with large activations weighs more; ``by_layer``
    has them apart. A matrix that is used in several places has the sum of its inputs.

    Args:
      loss: Per-example loss of a Linen model; see
        :func:`~jaxunlearn.gradients.taps.statistics.layer_taps`.
      params: The point, in float32 whatever its dtype.
      train: n examples, a batch or batches of one shape. Without ``attention_mask``,
        or where a layer's tokens are not its (pixels), every token counts. An example
        that is all padding scores 0 in every row.
      query: Q examples, likewise.
      kind: ``"act_act"`` or ``"act_grad"``.
      query_loss: Per-example loss of the queries; None is ``loss``.
      layers: Expression of the weight matrices (``"h/.*/mlp/c_fc/kernel"``); None is
        every one that a standard dense layer or convolution has. Other parameters that
        it matches have no activation of their own and do not count, nor does a tied
        output head.
      batch_size: Examples in memory at a time; the result does not depend on it.

    Returns:
      The scores and their parts; rows and columns in the order of the data.

    Raises:
      ValueError: ``kind`` is unknown, ``layers`` matches no weight matrix, or there
        are no batches.

    Cost: a forward pass over the training examples (compiled, XLA finds that nothing
    else of the taps is needed; measured on CPU), over the queries of ``act_grad`` a
    backward one without weight gradients too; 2QL flops an example and layer of width
    L. Memory of Q vectors a layer.
    A reconstruction: "the dot product of activation tensors" decides for neither kind.

    >>> import flax.linen as nn
    >>> layer = nn.Dense(1, use_bias=False)
    >>> loss = lambda params, batch: layer.apply({"params": params}, batch["x"])[:, 0]
    >>> params = {"kernel": jnp.array([[1.0], [3.0]])}
    >>> train = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]])}
    >>> query = {"x": jnp.array([[5.0, 2.0]])}
    >>> activation_scores(loss, params, train, query).scores.tolist()
    [[5.0, 7.0]]
    >>> activation_scores(loss, params, train, query, kind="act_grad").scores.tolist()
    [[-1.0, -4.0]]
    """
    if kind not in QUERY_ROWS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(QUERY_ROWS)}")
    params = tree.cast(params, jnp.float32)
    names = weight_matrices(loss, params, first_batch(train), layers)
    pattern = f"^(?:{'|'.join(map(re.escape, names))})$"
    asked = rows_of(
        Partial(QUERY_ROWS[kind], layer_loss(query_loss or loss, pattern), params),
        query,
        batch_size=batch_size,
    )
    found = rows_of(
        Partial(score_rows, layer_loss(loss, pattern), params, asked),
        train,
        batch_size=batch_size,
    )
    leaves = dict(tree.named_leaves(params))
    stacked = stacked_folders(loss, params)
    parts = {}
    for leaf, part in found.items():
        labels = labels_of(leaf, leaves[leaf], part.shape[1:-1], stacked)
        # Layers that have no names of their own count together.
        flat = part.reshape(part.shape[0], len(labels), -1, part.shape[-1]).sum(axis=2)
        parts |= {
            label: flat[:, i].T for i, label in enumerate(labels) if label in names
        }
    parts = {name: parts[name] for name in names}
    return ActivationScores(sum(parts.values()), parts)


def weight_matrices(
    loss: PerExampleLoss, params: Params, batch: Batch, layers: str | None
) -> list[str]:
    """Return the names, layer by layer, of the selected weight matrices with taps."""
    kernels: dict[str, View] = {}
    left_out: list[str] = []

    def trace(params: Params, batch: Batch) -> None:
        # Leaves without taps are not looked at: nothing is slow here.
        with without_warning():
            prepared = prepare(loss, params, batch, layers)
        for site in prepared.survey.sites.values():
            if "kernel" in site.leaves:
                kernels[site.leaves["kernel"]] = prepared.views[site.leaves["kernel"]]
        untapped = prepared.survey.untapped
        left_out.extend(name for name in untapped if name.endswith("/kernel"))

    jax.eval_shape(trace, params, dict(batch))
    if left_out:
        warnings.warn(
            f"activation scores leave out {len(left_out)} weight matrices, whose "
            f"layers have no taps: {', '.join(left_out[:5])}",
            UntappedWarning,
            stacklevel=2,
        )
    kept, stacked = masks(loss, params, layers), stacked_folders(loss, params)
    names = []
    for name, leaf in tree.named_leaves(params):
        if name in kernels:
            labels = labels_of(name, leaf, kernels[name].stack, stacked)
            chosen = np.broadcast_to(np.ravel(kept[name]), (len(labels),))
            names += [label for label, one in zip(labels, chosen, strict=True) if one]
    if not names:
        raise ValueError(
            f"layers={layers!r} matches no weight matrix of a standard Linen layer "
            f"(Dense, DenseGeneral, Conv) that the loss uses once: activations are "
            f"seen as the inputs of these; layers=None takes all there are"
        )
    return names


def labels_of(
    name: str, leaf: jax.Array, stack: tuple[int, ...], stacked: tuple[str, ...]
) -> list[str]:
    """Return the names of the layers of a leaf; one if it is not told to be stacked."""
    return tree.layer_names(name, leaf, stacked) if stack else [name]


def mean_rows(target: LayerLoss, params: Params, batch: Batch) -> dict[str, jax.Array]:
    """Return each layer's mean activation, float32[B,*stack,L]."""

    def extra(views: dict[str, View]) -> dict[str, dict]:
        return {name: {"mask": mask_of(batch, view)} for name, view in views.items()}

    return rows_by_leaf(MEANS, target, params, batch, extra)


def gradient_rows(
    target: LayerLoss, params: Params, batch: Batch
) -> dict[str, jax.Array]:
    """Return minus the loss's gradient at each layer's activation, summed over tokens,
    float32[B,*stack,L]."""
    leaves = dict(tree.named_leaves(params))

    def extra(views: dict[str, View]) -> dict[str, dict]:
        return {
            name: {"matrix": leaves[name].reshape(*view.stack, view.rows, view.columns)}
            for name, view in views.items()
        }

    return rows_by_leaf(DESCENTS, target, params, batch, extra)


QUERY_ROWS = {"act_act": mean_rows, "act_grad": gradient_rows}


def score_rows(
    target: LayerLoss, params: Params, asked: dict[str, jax.Array], batch: Batch
) -> dict[str, jax.Array]:
    """Return the mean activations' products with the queries, float32[B,*stack,Q]."""

    def extra(views: dict[str, View]) -> dict[str, dict]:
        return {
            name: {
                "mask": mask_of(batch, view),
                "asked": jnp.moveaxis(asked[name], 0, len(view.stack)),
            }
            for name, view in views.items()
        }

    return rows_by_leaf(SCORES, target, params, batch, extra)


def rows_by_leaf(statistic, target, params, batch, extra) -> dict[str, jax.Array]:
    """Return a statistic of the chosen leaves with the examples' axis in front."""
    found, views = layer_statistics(
        target.loss, params, batch, statistic, extra=extra, layers=target.layers
    )
    return {
        name: jnp.moveaxis(x, len(views[name].stack), 0) for name, x in found.items()
    }


def mask_of(batch: Batch, view: View) -> jax.Array | None:
    """Return which tokens are no padding, for each layer of a stack; None is all."""
    if "attention_mask" not in batch:
        return None
    mask = jnp.asarray(batch["attention_mask"]) > 0
    return jnp.broadcast_to(mask, (*view.stack, *mask.shape))


def mean_activation(products: Products, mask: jax.Array | None) -> jax.Array:
    """Return the mean of a layer's inputs over the tokens that count, float32[B,L]."""
    (part,) = products
    left = jnp.asarray(part.left)  # A weight matrix always has inputs.
    size, length = left.shape[:2]
    if mask is None or mask.shape != (size, length):
        mask = jnp.ones((size, length))
    counted = mask.astype(jnp.float32)
    share = counted / jnp.maximum(counted.sum(axis=1, keepdims=True), 1.0)
    return float32_einsum("btl,bt->bl", left, share)


MEANS = Statistic(
    lambda products, weight, rows, extra: mean_activation(products, extra["mask"]),
    linear=True,
    summed=False,
)
DESCENTS = Statistic(
    lambda products, weight, rows, extra: (
        -float32_einsum("btr,lr->bl", products[0].right, extra["matrix"])
    ),
    linear=True,
    summed=False,
)
SCORES = Statistic(
    lambda products, weight, rows, extra: float32_einsum(
        "bl,ql->bq", mean_activation(products, extra["mask"]), extra["asked"]
    ),
    linear=True,
    summed=False,
)
