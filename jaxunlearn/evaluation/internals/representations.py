"""What the hidden states still tell apart, and how like another model's they are.

Outputs can be kept quiet while the states behind them stay as they were. Compare with
the states of the model before unlearning and of one retrained without the examples:
the latter says what a number would be had they never been seen.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.batching import example_rows
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.states_by_layer import check_layer, layer_states
from jaxunlearn.types import Batch, Params


def example_features(
    model: GPT2,
    params: Params,
    batches: Iterable[Batch],
    *,
    layer: int,
    position: str = "last",
) -> np.ndarray:
    """Return one vector an example: a layer's residual stream, float32[n,D].

    Args:
      model: The model.
      params: Its parameters.
      batches: Batches of one shape, which changes nothing beyond rounding.
      layer: 0 (the embeddings) to N (the last block), see
        :mod:`jaxunlearn.models.states_by_layer`.
      position: ``"last"``, the state at the last token; or ``"mean"`` over all tokens.
        Padding never counts.

    Raises:
      ValueError: There is no example, no such layer or position.

    Cost: one forward pass without the head.
    """
    check_layer(model, layer)
    return all_features(model, params, batches, position=position)[layer]


def layer_cka(
    model: GPT2,
    params_a: Params,
    params_b: Params,
    batches: Iterable[Batch],
    *,
    position: str = "mean",
    unbiased: bool = True,
) -> np.ndarray:
    """Return how alike two models' states of the same examples are, float64[N+1].

    :func:`linear_cka` of their :func:`example_features` at each layer, named by
    :func:`jaxunlearn.models.states_by_layer.state_names`. 1 is alike; against the
    retrained model, higher is better forgotten, against the original one, lower says
    that more has changed.

    Args:
      model: The model of both.
      params_a: Parameters of one.
      params_b: Parameters of the other.
      batches: Batches of one shape, of at least 4 examples.
      position: As for :func:`example_features`.
      unbiased: With fewer examples than the width D, which is usual, the biased value
        is near 1 whatever the models are: so the default is the unbiased one.

    Returns:
      One value a layer; NaN where the states of one model are all the same (layer 0 at
      the last token, of texts of one length).

    Raises:
      ValueError: There are too few examples, or no such position.

    Cost: two forward passes without the head.

    Source: UUEF (arXiv 2503.06991), which averages the biased value over batches of
    512; we take all examples at once, so that nothing depends on the batch.
    """
    features = [
        all_features(model, params, batches, position=position)
        for params in (params_a, params_b)
    ]
    return np.array(
        [linear_cka(a, b, unbiased=unbiased) for a, b in zip(*features, strict=True)],
        np.float64,
    )


def all_features(
    model: GPT2,
    params: Params,
    batches: Iterable[Batch],
    *,
    position: str,
) -> np.ndarray:
    """Return :func:`example_features` of every layer in one pass, float32[N+1,n,D]."""
    if position not in PLACES:
        raise ValueError(f"position={position!r}: one of {', '.join(PLACES)}")
    pooled = PLACES[position]
    return example_rows(Partial(pooled, model, params), batches, axis=1)


def features_at_last(model: GPT2, params: Params, batch: Batch) -> jax.Array:
    """Return the states at the last token of a batch, float32[N+1,B,D]."""
    lengths = jnp.maximum(real_tokens(batch).sum(axis=1), 1)
    places = jnp.arange(real_tokens(batch).shape[1])
    weights_BT = (places == lengths[:, None] - 1).astype(jnp.float32)
    return weighted_states(model, params, batch, weights_BT)


def mean_features(model: GPT2, params: Params, batch: Batch) -> jax.Array:
    """Return the mean states over the tokens of a batch, float32[N+1,B,D]."""
    lengths = jnp.maximum(real_tokens(batch).sum(axis=1), 1)
    weights_BT = real_tokens(batch) / lengths[:, None]
    return weighted_states(model, params, batch, weights_BT)


PLACES = {"last": features_at_last, "mean": mean_features}


def real_tokens(batch: Batch) -> jax.Array:
    """Return which tokens are no padding, bool[B,T]."""
    return jnp.asarray(batch["attention_mask"]) > 0


def weighted_states(
    model: GPT2, params: Params, batch: Batch, weights_BT: jax.Array
) -> jax.Array:
    """Return the weighted sum over tokens of every layer's states, [N+1,B,D]."""

    def pooled(states_BTD: jax.Array) -> jax.Array:
        # A product with weights would let the padding's NaN, if any, through.
        mask_BT1 = real_tokens(batch)[..., None]
        states = jnp.where(mask_BT1, states_BTD.astype(jnp.float32), 0)
        return jnp.sum(weights_BT[..., None] * states, axis=1)

    return layer_states(model, params, batch, keep=pooled)


def linear_cka(x: Any, y: Any, *, unbiased: bool = False) -> jax.Array:
    """Return the linear centred kernel alignment of two sets of features, float32[].

    ``CKA = |X^T Y|^2 / (|X^T X| |Y^T Y|)``, Frobenius norms of centred features, which
    is ``HSIC(K,L) / sqrt(HSIC(K,K) HSIC(L,L))`` with the kernels K = X X^T, L = Y Y^T.
    It does not change if features are rotated, mirrored or scaled as a whole.

    Args:
      x: [n,D], row i of example i. D need not be that of ``y``.
      y: [n,E], of the same examples.
      unbiased: Take the unbiased estimates of HSIC (Song et al. 2012), which leave out
        each example's similarity with itself; needs n of at least 4.

    Returns:
      0 (unrelated) to 1 (the same up to rotation and scale); unbiased, it may fall a
      little below 0. NaN where a set of features does not vary: it has no likeness.

    Raises:
      ValueError: The sets differ in size, or are too small.

    Cost: 2n(D^2 + E^2 + DE) flops, or 2n^2(D + E) where n is smaller than the widths.

    Source: Kornblith et al. 2019, Similarity of neural network representations
    revisited (arXiv 1905.00414), section 3; unbiased as in Nguyen et al. 2021 (arXiv
    2010.15327).
    """
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"features of shapes {x.shape} and {y.shape}: two matrices with a row for "
            f"each of the same examples are needed"
        )
    size, least = len(x), 4 if unbiased else 2
    if size < least:
        raise ValueError(
            f"{size} examples: linear_cka(unbiased={unbiased}) needs {least} or more"
        )
    x, y = unit_scale(x), unit_scale(y)
    return hsic(x, y, unbiased) / jnp.sqrt(hsic(x, x, unbiased) * hsic(y, y, unbiased))


def unit_scale(x_nD: jax.Array) -> jax.Array:
    """Return centred features of unit mean square: fourth powers must not overflow."""
    x = x_nD - x_nD.mean(axis=0)
    x = x - x.mean(axis=0)  # what rounding left of a large mean
    # What a constant feature leaves after centring is rounding, and counts as nothing.
    size = jnp.sqrt(jnp.mean(jnp.square(x)))
    rounding = 16 * jnp.finfo(jnp.float32).eps * jnp.sqrt(jnp.mean(jnp.square(x_nD)))
    return jnp.where(size > rounding, x / size, 0.0)


def hsic(x_nD: jax.Array, y_nE: jax.Array, unbiased: bool) -> jax.Array:
    """Return HSIC of two centred linear kernels, but for a factor of n alone."""
    size, width = len(x_nD), max(x_nD.shape[1], y_nE.shape[1])

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        # "highest": on a GPU or TPU, float32 products are otherwise rounded to less.
        return jnp.matmul(a, b, precision="highest")

    if width < size:
        cross = jnp.sum(jnp.square(product(x_nD.T, y_nE)))
    else:
        cross = jnp.sum(product(x_nD, x_nD.T) * product(y_nE, y_nE.T))
    if not unbiased:
        return cross
    # Without the diagonals; the rows of centred kernels sum to 0, so that what is left
    # of Song's three terms depends on the diagonals alone.
    squares_x = jnp.sum(jnp.square(x_nD), axis=1)
    squares_y = jnp.sum(jnp.square(y_nE), axis=1)
    return (
        cross
        - size / (size - 2) * jnp.sum(squares_x * squares_y)
        + jnp.sum(squares_x) * jnp.sum(squares_y) / ((size - 1) * (size - 2))
    )
