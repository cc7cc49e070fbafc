"""How surely a model knows an example: log odds, the scale on which models differ.

Losses and probabilities crowd together at their ends; on this scale an example's values
over models trained alike are close to Gaussian, which the measures of ``ensembles.py``
and ``privacy.py`` rely on.
"""

import numpy as np

MARGIN_LIMIT = 100.0


def language_model_margin(losses: np.ndarray) -> np.ndarray:
    """Return ``log(P / (1 - P))`` of ``P = exp(-L)``, the logit-scaled confidence.

    Args:
      losses: Mean token losses L >= 0 in nats, any shape.

    Returns:
      float64 of that shape; higher = better known. Exact where P is near 0 or 1 (by
      ``log(1 - exp(-L))`` from expm1 and log1p). L = 0 gives 100, where KLOM clips.

    Raises:
      ValueError: A loss is negative or not finite.

    Source: Carlini et al. 2022, Membership inference attacks from first principles,
    section IV-C, with the perplexity of a text in the place of a class's probability.

    >>> language_model_margin([0.0, np.log(2), 700.0]).round(6)
    array([ 100.,    0., -700.])
    """
    losses = np.asarray(losses, np.float64)
    if not (np.isfinite(losses).all() and (losses >= 0).all()):
        raise ValueError("losses holds a number that is negative or not finite")
    small = np.clip(losses, np.exp(-MARGIN_LIMIT), 1.0)
    large = np.maximum(losses, 0.5)
    rest = np.where(
        losses < np.log(2), np.log(-np.expm1(-small)), np.log1p(-np.exp(-large))
    )
    return -losses - rest


def classification_margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``z_y - log sum_{k != y} exp z_k``, the log odds of the true class.

    Args:
      logits: [..., K], K >= 2 classes.
      labels: int[...], the true class.

    Returns:
      float64[...]; higher = surer and right. Finite for any finite logits.

    Raises:
      ValueError: Shapes do not fit, a label is no class, or a logit is not finite.

    Source: Georgiev et al. 2024, Attribute-to-Delete, arXiv 2410.23232.

    >>> classification_margin([[2.0, 0.0, 0.0]], [0]).round(3)
    array([1.307])
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim == 0 or logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"logits {logits.shape} and labels {labels.shape}: [..., classes] with at "
            f"least 2 classes, and [...] needed"
        )
    classes = logits.shape[-1]
    if labels.dtype.kind not in "iu" or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}")
    if not np.isfinite(logits).all():
        raise ValueError("logits holds a number that is not finite")
    true = labels[..., None] == np.arange(classes)
    others = np.where(true, -np.inf, logits)
    highest = others.max(axis=-1)
    rest = highest + np.log(np.exp(others - highest[..., None]).sum(axis=-1))
    return logits.max(axis=-1, where=true, initial=-np.inf) - rest
