"""Membership attacks: scores of examples by which an attacker looks for training data.

All are signed alike: higher = less likely a member. ``roc.py`` turns the scores
of a forget set and of a holdout into numbers about the model.

The token attacks keep every labelled token by default. OpenUnlearning leaves the last
one out in Min-K, Min-K++ and gradient norms: ``drop_last=True`` does, see
:func:`~jaxunlearn.evaluation.text.memorization.answer_tokens`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import compress

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.evaluation.text.memorization import answer_tokens, check_end
from jaxunlearn.evaluation.text.token_pass import TokenStatistics, mean_losses
from jaxunlearn.gradients.arguments import LayerLoss, layer_loss, stacked_folders
from jaxunlearn.gradients.batching import example_rows, real_rows
from jaxunlearn.gradients.per_example import SQUARED_NORMS
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.types import IGNORED_LABEL, Batch, Params, PerExampleLoss

OPEN_UNLEARNING_K = 0.4
"""Share of the tokens in Min-K and Min-K++: what OpenUnlearning and MUSE report. The
papers and mimir have 0.2."""


def loss(statistics: Sequence[TokenStatistics]) -> np.ndarray:
    """Return ``s = L(x)``, the mean token loss, float64[n], 0 or more.

    End of text included, as in OpenUnlearning.

    Raises:
      ValueError: There is no example, one has no labelled token, or a score is NaN.

    Source: Yeom et al. 2018, Privacy Risk in Machine Learning.
    """
    return checked("loss", mean_losses(statistics))


def zlib(statistics: Sequence[TokenStatistics], texts: Sequence[str]) -> np.ndarray:
    """Return ``s = L(x) / |zlib(x)|``, the loss a byte of the compressed text.

    Args:
      statistics: Of the model.
      texts: What the labelled tokens say, one text an example: of question and answer
        the answer alone (OpenUnlearning). mimir, whose examples have no prompt, takes
        the whole text.

    Returns:
      float64[n], 0 or more.

    Raises:
      ValueError: As :func:`loss`, or the numbers of examples differ.

    Source: Carlini et al. 2021, Extracting Training Data from Large Language Models,
    which has the reciprocal.
    """
    losses = loss(statistics)
    if len(texts) != len(losses):
        raise ValueError(f"{len(texts)} texts for {len(losses)} examples")
    sizes = [len(compress(text.encode("utf-8"))) for text in texts]
    return losses / np.array(sizes, np.float64)


def reference(
    statistics: Sequence[TokenStatistics],
    reference: Sequence[TokenStatistics],
) -> np.ndarray:
    """Return ``s = L_model(x) - L_reference(x)``, float64[n].

    Texts that are easy for any model then do not pass for members.

    Args:
      statistics: Of the model.
      reference: Of the reference on the same examples: in OpenUnlearning the retrained
        model, in mimir another pretrained one. Both must share the tokenizer.

    Raises:
      ValueError: As :func:`loss`, or the examples' tokens differ.

    Source: Carlini et al. 2021.
    """
    same = len(statistics) == len(reference) and all(
        np.array_equal(own.token, other.token)
        for own, other in zip(statistics, reference, strict=True)
    )
    if not same:
        raise ValueError(
            f"statistics of {len(statistics)} and reference of {len(reference)} "
            f"examples: both must be of the same data and tokenizer"
        )
    return checked("reference", mean_losses(statistics) - mean_losses(reference))


def min_k(
    statistics: Sequence[TokenStatistics],
    *,
    k: float = OPEN_UNLEARNING_K,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> np.ndarray:
    """Return minus the mean log-probability of the least likely tokens.

    ``s = -mean of the max(1, floor(k t)) lowest log p_t``: unseen text holds some very
    unlikely tokens, learned text has none left.

    Args:
      statistics: Of the model.
      k: Share of the tokens, above 0 and up to 1 (where s is the loss).
      drop_last: Leave the end-of-text token out.
      end_of_text: Its id.

    Returns:
      float64[n], 0 or more.

    Raises:
      ValueError: k is out of range, a score is NaN, or as ``answer_tokens``.

    Source: Shi et al. 2023, Detecting Pretraining Data from Large Language Models
    (arXiv 2310.16789); OpenUnlearning. mimir takes floor(k t) tokens, so that a text
    of fewer than 1 / k tokens gets NaN.
    """
    kept = answer_tokens(statistics, drop_last=drop_last, end_of_text=end_of_text)
    scores = [-mean_of_lowest(one.log_probability, k) for one in kept]
    return checked("min_k", np.array(scores))


def min_k_plus_plus(
    statistics: Sequence[TokenStatistics],
    *,
    k: float = OPEN_UNLEARNING_K,
    variance_floor: float = 1e-6,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> np.ndarray:
    """Return Min-K of log-probabilities standardised at each place.

    ``z_t = (log p_t - mu_t) / sqrt(max(sigma_t^2, floor))``, mu and sigma^2 the mean
    and the variance of ``log p`` under the model's own distribution there;
    ``s = -mean of the max(1, floor(k t)) lowest z_t``.

    Args:
      statistics: Of the model.
      k: As for :func:`min_k`.
      variance_floor: Least variance, OpenUnlearning's by default. 0 is mimir's, which
        divides by 0 where the model is certain; that is an error here.
      drop_last: Leave the end-of-text token out.
      end_of_text: Its id.

    Returns:
      float64[n].

    Raises:
      ValueError: As :func:`min_k`, or a variance is 0 without a floor.

    Source: Zhang et al. 2024, Min-K%++ (arXiv 2404.02936); OpenUnlearning.
    """
    if not variance_floor >= 0:
        raise ValueError(f"variance_floor={variance_floor}: must be 0 or more")
    kept = answer_tokens(statistics, drop_last=drop_last, end_of_text=end_of_text)
    scores = []
    for i, one in enumerate(kept):
        variance = np.asarray(one.variance_log_probability, np.float64)
        variance = np.maximum(variance, variance_floor)
        if (variance == 0).any():
            raise ValueError(
                f"statistics[{i}] has a variance of 0: set variance_floor above 0"
            )
        surplus = np.subtract(
            one.log_probability, one.mean_log_probability, dtype=np.float64
        )
        scores.append(-mean_of_lowest(surplus / np.sqrt(variance), k))
    return checked("min_k_plus_plus", np.array(scores))


def gradient_norm(
    loss: PerExampleLoss,
    params: Params,
    batches: Iterable[Batch],
    *,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> np.ndarray:
    """Return the mean over the parameter tensors of the norm of an example's gradient.

    ``s = mean_p |d L(x) / d theta_p|_2``, L the mean token loss of x alone and p the
    tensors as torch has them: a stacked leaf is one a layer. Not the global norm.

    Args:
      loss: A task or another per-example loss, without dropout. (OpenUnlearning
        switches it on, so that its scores of such a model are random.)
      params: Its parameters.
      batches: Batches of one shape, on which the result does not depend.
      drop_last: Leave the end-of-text token out of the loss, as ``answer_tokens``.
      end_of_text: Its id.

    Returns:
      float64[n], 0 or more.

    Raises:
      ValueError: There is no example, one has no token with loss, or a norm is NaN.

    Cost: a forward and a backward pass; memory of the embedding's gradient for
    the examples of a batch (GPT-2 124M: 154 MB each).

    Source: OpenUnlearning's ``mia_gradnorm`` with p = 2.
    """
    labelled = with_labels(batches, drop_last=drop_last, end_of_text=end_of_text)
    norms = Partial(
        mean_tensor_norms,
        layer_loss(loss, None),
        tree.cast(params, jnp.float32),
    )
    scores = example_rows(norms, labelled)
    return checked("gradient_norm", scores.astype(np.float64))


ATTACKS: dict[str, Callable[..., np.ndarray]] = {
    "loss": loss,
    "zlib": zlib,
    "reference": reference,
    "min_k": min_k,
    "min_k_pp": min_k_plus_plus,
    "gradient_norm": gradient_norm,
}
"""Every attack by its name in a scores file. All but ``gradient_norm``, which needs the
model, take the statistics; ``zlib`` wants the texts and ``reference`` the other model's
statistics after them."""


def mean_tensor_norms(target: LayerLoss, params: Params, batch: Batch) -> jax.Array:
    """Return the mean norm over all tensors of each example's gradient, float32[B]."""
    found, views = layer_statistics(target.loss, params, batch, SQUARED_NORMS)
    norms, stacked = [], stacked_folders(target.loss, params)
    for name, leaf in tree.named_leaves(params):
        layers = len(tree.layer_names(name, leaf, stacked))
        squares = found[name].reshape(-1, found[name].shape[-1])
        if len(squares) != layers:
            raise ValueError(
                f"{name}: this loss does not tell its {layers} layers apart; gradient "
                f"norms need a model of jaxunlearn.models"
            )
        # Gram matrices may leave a negative number of the size of rounding.
        norms.append(jnp.sqrt(jnp.maximum(squares, 0.0)))
    return jnp.concatenate(norms).mean(axis=0)


def with_labels(
    batches: Iterable[Batch], *, drop_last: bool, end_of_text: int | None
) -> list[Batch]:
    """Return the batches, on demand without the label of each last token."""
    check_end(drop_last, end_of_text)
    found, number = [], 0
    for batch in batches:
        labels = np.array(batch["labels"])
        for row in np.flatnonzero(real_rows(batch)):
            places = 1 + np.flatnonzero(labels[row, 1:] != IGNORED_LABEL)
            last = places[-1] if len(places) else 0
            if drop_last and last and end_of_text in (None, labels[row, last]):
                labels[row, last], places = IGNORED_LABEL, places[:-1]
            if len(places) == 0:
                raise ValueError(
                    f"example {number} has no token with loss: leave it out"
                )
            number += 1
        found.append({**batch, "labels": labels})
    return found


def mean_of_lowest(values: Any, k: float) -> float:
    """Return the mean of the ``max(1, floor(k n))`` lowest of n values."""
    if not 0 < k <= 1:
        raise ValueError(f"k={k}: a share of the tokens, above 0 and up to 1")
    count = max(1, int(k * len(values)))
    return float(np.sort(values)[:count].mean(dtype=np.float64))


def checked(name: str, scores: np.ndarray) -> np.ndarray:
    """Return scores; refuse a NaN."""
    if np.isnan(scores).any():
        raise ValueError(
            f"{name}: NaN of example {np.flatnonzero(np.isnan(scores))[0]}, so the "
            f"model's outputs are not finite; it is broken, not private"
        )
    return scores
