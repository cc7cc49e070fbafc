"""How deep forgetting goes: at which layers the knowledge is lacking, not only whether.

Hidden states of a source model are put into the full model (the one before unlearning)
and what it then makes of the answer is compared with what it makes of it by itself. The
model retrained without the examples (the retained one) says what lacking means.

Layers are those of :mod:`jaxunlearn.models.states_by_layer` from 1 to N: the output of
each block. Column l of an array here is layer l + 1.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.batching import example_rows, real_rows
from jaxunlearn.models.cross_entropy import mean_over_labels, next_token_losses
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.states_by_layer import continue_from, layer_states
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

THRESHOLD = 0.05


class Depth(NamedTuple):
    """How much of what the retained model lacks, the unlearned model lacks too.

    Attributes:
      score: Mean over the scored examples, 0 (knowledge intact) to 1 (lacking as in the
        retained model). None if no example is scored: the full and the retained model
        do not differ on these tokens.
      per_example: float64[n]; NaN where no layer is kept.
      kept: bool[n,N], the layers that count: the retained model lacks more there than
        the threshold.
      gap: float64[n,N], by how many nats a token the log-probability falls with the
        unlearned model's states.
      gap_retained: float64[n,N], with the retained model's.
    """

    score: float | None
    per_example: np.ndarray
    kept: np.ndarray
    gap: np.ndarray
    gap_retained: np.ndarray


def unlearning_depth(
    model: GPT2,
    unlearned: Params,
    batches: Iterable[Batch],
    *,
    full: Params,
    retained: Params,
    end_id: int | None = None,
    counted: Sequence[np.ndarray] | None = None,
    read: str = "patching",
    threshold: float = THRESHOLD,
) -> Depth:
    """Return the unlearning depth score, or its cheap variant by the logit lens.

    ``D_l^S`` are the gaps of :func:`layer_gaps` with the states of S. Per example::

        UDS = sum_l D_l^ret clip(D_l^unl / D_l^ret, 0, 1) / sum_l D_l^ret

    over the layers with ``D_l^ret > threshold``, then the mean over the examples that
    have such layers.

    Args:
      model: The model of all three.
      unlearned: Parameters after unlearning.
      batches: Batches of one shape of the examples to be forgotten, which changes
        nothing beyond rounding.
      full: Parameters before unlearning.
      retained: Parameters of a model trained without the examples.
      end_id: The end-of-text token, for ``counted=None``.
      counted: Which tokens count: a mask of each example's ``input_ids``, of the words
        that hold the fact. None: all labelled tokens but the end of text.
      read: ``"patching"``, or ``"lens"``: the logit lens.
      threshold: In nats a token.

    Raises:
      ValueError: There is no example, an example has no token that counts, or an
        option is out of range.

    Cost: with patching (N + 3) / 2 forward passes and N + 1 heads for each of the two
    sources, by the lens 2 passes and 2 N heads. To score many models, compute the
    retained model's :func:`layer_gaps` once and use :func:`depth_score`.

    Source: UDS, gnueaj/unlearning-depth-score, whose entity tokens are ``counted``. Its
    code takes the last layer's states behind the final normalisation, which is then
    applied twice; we take them before it.
    """
    gaps = [
        layer_gaps(
            model,
            source,
            batches,
            full=full,
            end_id=end_id,
            counted=counted,
            read=read,
        )
        for source in (unlearned, retained)
    ]
    return depth_score(*gaps, threshold=threshold)


def depth_score(
    gap: np.ndarray, gap_retained: np.ndarray, *, threshold: float = THRESHOLD
) -> Depth:
    """Return the score of given gaps; see :func:`unlearning_depth`.

    Args:
      gap: [n,N], of the unlearned model.
      gap_retained: [n,N], of the retained model, on the same examples.
      threshold: A layer counts where ``gap_retained`` is above.

    Raises:
      ValueError: The shapes differ, there is no example, a gap is not a number, or the
        threshold is negative.

    >>> depth_score([[0.1, 0.5]], [[0.4, 0.1]]).score  # (0.1 + 0.1) / (0.4 + 0.1)
    0.4
    """
    gap = np.asarray(gap, np.float64)
    retained = np.asarray(gap_retained, np.float64)
    if gap.shape != retained.shape or gap.ndim != 2 or gap.size == 0:
        raise ValueError(
            f"gap {gap.shape} and gap_retained {retained.shape}: two arrays [examples, "
            f"layers] of one shape, not empty, are needed"
        )
    if not (np.isfinite(gap).all() and np.isfinite(retained).all()):
        raise ValueError("a gap is not finite: a model's log-probabilities are not")
    if not threshold >= 0:
        raise ValueError(f"threshold={threshold}: 0 or above")
    kept = retained > threshold
    weights = np.where(kept, retained, 0.0)
    total = weights.sum(axis=1)
    scored = total > 0
    lacking = np.where(kept, np.clip(gap, 0.0, weights), 0.0).sum(axis=1)
    per_example = np.where(scored, lacking / np.where(scored, total, 1.0), np.nan)
    score = float(per_example[scored].mean()) if scored.any() else None
    return Depth(score, per_example, kept, gap, retained)


def layer_gaps(
    model: GPT2,
    source: Params,
    batches: Iterable[Batch],
    *,
    full: Params,
    end_id: int | None = None,
    counted: Sequence[np.ndarray] | None = None,
    read: str = "patching",
) -> np.ndarray:
    """Return how much less likely the answer is with the source's states, by layer.

    With patching, ``D_l = mean_t (log p_full(y_t) - log p_patched(y_t))`` over the
    tokens that count, teacher-forced: patched is the full model in which layer l, at
    the places that predict these tokens, holds the source's states. Other places keep
    the full model's: what is asked is whether these states carry the fact.

    By the lens, ``D_l = mean_t (log q(y_t | h_l^full) - log q(y_t | h_l^source))`` with
    q the full model's final normalisation and head, applied to layer l as it is.

    Args:
      model: The model of both.
      source: Parameters whose states are asked.
      batches: Batches of one shape of the examples.
      full: Parameters of the model that reads them.
      end_id: The end-of-text token.
      counted: Which tokens count.
      read: ``"patching"`` or ``"lens"``.

    Returns:
      float64[n,N], in nats a token; higher = the source lacks more.

    Raises:
      ValueError: As :func:`unlearning_depth`.
    """
    if read not in READERS:
        raise ValueError(f"read={read!r}: one of {', '.join(READERS)}")
    labelled = counted_batches(batches, end_id, counted)
    gaps = Partial(READERS[read], model, full, source)
    return example_rows(gaps, labelled, axis=1).T.astype(np.float64)


def patching_gaps(model: GPT2, full: Params, source: Params, batch: Batch) -> jax.Array:
    """Return the gaps of patching on the labels of a batch, float32[N,B]."""
    labels_BT = jnp.asarray(batch["labels"])
    # The state at place t predicts token t + 1.
    predicts_BT = jnp.pad(labels_BT[:, 1:] != IGNORED_LABEL, ((0, 0), (0, 1)))
    own, theirs = (layer_states(model, p, batch) for p in (full, source))

    def patched_loss(layer: tuple) -> jax.Array:
        number, own_BTD, theirs_BTD = layer
        states = jnp.where(predicts_BT[..., None], theirs_BTD, own_BTD)
        hidden = continue_from(model, full, states, number, batch)
        return label_loss(model, full, hidden, labels_BT)

    numbers = jnp.arange(1, model.layers + 1)
    patched = jax.lax.map(patched_loss, (numbers, own[1:], theirs[1:]))
    return patched - label_loss(model, full, model.final_norm(full, own[-1]), labels_BT)


def lens_gaps(model: GPT2, full: Params, source: Params, batch: Batch) -> jax.Array:
    """Return the gaps of the logit lens on the labels of a batch, float32[N,B]."""

    def lens_loss(states_BTD: jax.Array) -> jax.Array:
        hidden = model.final_norm(full, states_BTD)
        return label_loss(model, full, hidden, jnp.asarray(batch["labels"]))

    own, theirs = (
        layer_states(model, p, batch, keep=lens_loss)[1:] for p in (full, source)
    )
    return theirs - own


READERS = {"patching": patching_gaps, "lens": lens_gaps}


def label_loss(
    model: GPT2, params: Params, hidden_BTD: jax.Array, labels_BT: jax.Array
) -> jax.Array:
    """Return ``-mean_t log p(label)`` of each example, float32[B]."""
    losses = next_token_losses(hidden_BTD, model.head(params), labels_BT)
    return mean_over_labels(losses, labels_BT)


def counted_batches(
    batches: Iterable[Batch], end_id: int | None, counted: Sequence[np.ndarray] | None
) -> list[Batch]:
    """Return the batches with labels on the tokens that count, and on no others.

    Arguments and errors as for :func:`unlearning_depth`.
    """
    if counted is None and end_id is None:
        raise ValueError(
            "end_id=None, counted=None: give end_id, the tokenizer's eos_token_id, to "
            "count labelled tokens without it, or counted, the tokens that count"
        )
    found, number = [], 0
    for batch in batches:
        labels = np.full_like(batch["labels"], IGNORED_LABEL)
        for row in np.flatnonzero(real_rows(batch)):
            ids = np.asarray(batch["input_ids"][row])
            size = int(np.sum(batch["attention_mask"][row]))
            if counted is None:
                mask = np.asarray(batch["labels"][row, :size]) != IGNORED_LABEL
                mask[-1] &= ids[size - 1] != end_id
            else:
                mask = token_mask(counted, number, size)
            if not mask[1:].any():  # nothing predicts the first token
                raise ValueError(
                    f"examples[{number}] has no token that counts (nothing predicts "
                    f"its first): leave it out, or choose other tokens with counted"
                )
            labels[row, :size] = np.where(mask, ids[:size], IGNORED_LABEL)
            number += 1
        found.append({**batch, "labels": labels})
    if counted is not None and len(counted) != number:
        raise ValueError(f"counted has {len(counted)} masks for {number} examples")
    return found


def token_mask(counted: Sequence[np.ndarray], number: int, size: int) -> np.ndarray:
    """Return which tokens of an example count; refuse what is no mask of them."""
    mask = np.asarray(counted[number]) if number < len(counted) else np.ones(size, bool)
    if mask.dtype != bool or mask.shape != (size,):
        raise ValueError(
            f"counted[{number}] is {mask.dtype}{list(mask.shape)}: bool[{size}], one a "
            f"token, is needed"
        )
    return mask
