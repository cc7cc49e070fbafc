"""What a model makes of each labelled token: one forward pass, from which many scores.

Probability, extraction strength, exact memorisation and the membership scores differ
only in what they do with these numbers, so they are computed once.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.gradients.batching import example_rows
from jaxunlearn.models.cross_entropy import head_logits
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

CHUNK_TOKENS = 1024


class TokenStatistics(NamedTuple):
    """One example under teacher forcing: its t labelled next tokens, in order.

    The last of them is the end-of-text token, unless the example was cut.

    Attributes:
      token: int32[t], the label.
      log_probability: float32[t], log p of the label.
      correct: bool[t], whether no token is likelier than the label.
      mean_log_probability: float32[t], ``mu_t = sum_v p_v log p_v``.
      variance_log_probability: float32[t], ``sum_v p_v (log p_v - mu_t)^2``.
    """

    token: np.ndarray
    log_probability: np.ndarray
    correct: np.ndarray
    mean_log_probability: np.ndarray
    variance_log_probability: np.ndarray


def token_statistics(
    model: GPT2,
    params: Params,
    batches: Iterable[Batch],
) -> list[TokenStatistics]:
    """Return the statistics of each example of ``batches``, in their order.

    Args:
      model: The model.
      params: Its parameters.
      batches: Batches of one shape, which changes nothing beyond rounding. Give
        several data sets the same to compile once for all.

    Cost: one forward pass; logits exist for 1,024 tokens at a time.
    """
    found = example_rows(Partial(batch_statistics, model, params), batches)
    places = found[0] != IGNORED_LABEL
    return [
        TokenStatistics(*(column[row, at] for column in found))
        for row, at in enumerate(places)
    ]


def mean_losses(statistics: Sequence[TokenStatistics]) -> np.ndarray:
    """Return ``L = -mean_t log p_t`` of each example, float64[n], end of text included.

    Raises:
      ValueError: There is no example, or one without a labelled token.
    """
    if len(statistics) == 0:
        raise ValueError("statistics is empty: there is no example to measure")
    empty = [i for i, one in enumerate(statistics) if len(one.token) == 0]
    if empty:
        raise ValueError(f"examples {empty[:5]} have no labelled token")
    return np.array(
        [-np.mean(one.log_probability, dtype=np.float64) for one in statistics]
    )


def batch_statistics(model: GPT2, params: Params, batch: Batch) -> tuple:
    """Return five arrays [B,T-1] in the order of :class:`TokenStatistics`."""
    hidden = model.hidden_states(params, batch)
    head = model.head(params)
    size, length, width = hidden.shape
    step = min(max(1, CHUNK_TOKENS // size), length - 1)
    chunks = -(-(length - 1) // step)
    pad = chunks * step - (length - 1)
    next_labels = jnp.asarray(batch["labels"])[:, 1:]
    labels = jnp.maximum(next_labels, 0)
    hidden = jnp.pad(hidden[:, :-1], ((0, 0), (0, pad), (0, 0)))
    labels = jnp.pad(labels, ((0, 0), (0, pad)))

    def one_chunk(chunk: tuple[jax.Array, jax.Array]) -> tuple:
        return logit_statistics(head_logits(chunk[0], head), chunk[1])

    parts = jax.lax.map(
        one_chunk,
        (
            hidden.reshape(size, chunks, step, width).swapaxes(0, 1),
            labels.reshape(size, chunks, step).swapaxes(0, 1),
        ),
    )
    parts = [
        x.swapaxes(0, 1).reshape(size, chunks * step)[:, : length - 1] for x in parts
    ]
    return (next_labels, *parts)


def logit_statistics(logits_BTV: jax.Array, labels_BT: jax.Array) -> tuple:
    """Return log p, correctness, mean and variance of log p at each place, [B,T]."""
    log_p = jax.nn.log_softmax(logits_BTV.astype(jnp.float32), axis=-1)
    of_label = jnp.take_along_axis(log_p, labels_BT[..., None], axis=-1)[..., 0]
    p = jnp.exp(log_p)
    # Where p underflows to 0, p log p is 0; log p may be -inf.
    finite = jnp.where(p > 0, log_p, 0.0)
    mean = jnp.sum(p * finite, axis=-1)
    variance = jnp.sum(p * jnp.square(finite - mean[..., None]), axis=-1)
    correct = jnp.argmax(logits_BTV, axis=-1) == labels_BT
    return of_label, correct, mean, variance
