"""How image-classification papers judge unlearning: five numbers beside retraining.

Unlearning accuracy (UA), remaining accuracy (RA), test accuracy (TA) and the
efficacy of a membership attack (MIA) are each good where they are near the retrained
model's; :func:`average_gap` says how near. The fifth is the time it takes. Source: Jia
et al. 2023, Model Sparsity Can Simplify Machine Unlearning (arXiv 2304.04934), whose
code is OPTML-Group/Unlearn-Sparse.
"""

from collections.abc import Callable, Mapping

import numpy as np

SMALLEST_PROBABILITY = 1e-30
"""Stands in for a probability of 0, whose logarithm is infinite, as in the code of Song
and Mittal."""


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of examples whose label has the largest logit, 0 to 1.

    RA is that of the retain set, TA of the test set.

    Args:
      logits: [n,K], or probabilities.
      labels: int[n].

    Raises:
      ValueError: There is no example, the shapes do not fit, a label is no class, or
        a number is NaN.
    """
    logits, labels = examples_of("logits", logits, labels)
    return float(np.mean(logits.argmax(axis=1) == labels))


def unlearning_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return UA, one minus :func:`accuracy` on the forget set, 0 to 1.

    Higher = more of it is classified wrongly; good is not high, but near the retrained
    model's.
    """
    return 1 - accuracy(logits, labels)


def confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability of each example's true class, float64[n].

    Higher = more likely a member. This is the feature of the paper's MIA column.

    Args:
      probabilities: [n,K], rows that sum to 1.
      labels: int[n].

    Raises:
      ValueError: As :func:`accuracy`, or a row is no distribution.
    """
    p, labels = distributions(probabilities, labels)
    return p[np.arange(len(p)), labels]


def correctness(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 1.0 where an example is classified rightly and 0.0 elsewhere, float64[n].

    Arguments and errors as in :func:`confidence`; higher = more likely a member.
    """
    p, labels = distributions(probabilities, labels)
    return (p.argmax(axis=1) == labels).astype(np.float64)


def entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``-sum_i p_i log p_i`` of each example in nats, float64[n], 0 to log K.

    The labels do not matter. Arguments and errors as in :func:`confidence`; higher =
    less likely a member.
    """
    p, _ = distributions(probabilities, labels)
    return -np.sum(p * safe_log(p), axis=1)


def modified_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the entropy that knows the label, float64[n], 0 or more.

    ``-(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i)``: 0 where the model is certain
    and right, largest where it is certain and wrong. Higher = less likely a member.

    Arguments and errors as in :func:`confidence`.

    Source: Song and Mittal 2021, Systematic Evaluation of Privacy Risks of Machine
    Learning Models. Unlearn-Sparse has log p_i for log(1 - p_i), and in every row
    treats the classes of all labels of the batch as the true one, so that its value
    depends on the batch.
    """
    p, labels = distributions(probabilities, labels)
    rows = np.arange(len(p))
    terms = p * safe_log(1 - p)
    own = p[rows, labels]
    terms[rows, labels] = (1 - own) * safe_log(own)
    return -terms.sum(axis=1)


FEATURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "confidence": confidence,
    "correctness": correctness,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
}
"""What an attack may look at, by name: functions of probabilities and labels."""


def mia_efficacy(retain: np.ndarray, test: np.ndarray, forget: np.ndarray) -> float:
    """Return the share of the forget set that a trained attacker takes for unseen.

    A support-vector machine (radial kernel, C = 3, gamma = 1 / features) learns to
    tell the first ``len(test)`` of the retain set, members, from the test set, and is
    then shown the forget set.

    Args:
      retain: Feature of retained training examples, [r] or [r,F], r at least
        ``len(test)``, in random order; the paper's is :func:`confidence`.
      test: The same of unseen examples, [t] or [t,F].
      forget: The same of the forget set, [f] or [f,F].

    Returns:
      0 to 1; the paper's column is 100 times that. Higher = more of it looks unseen;
      good is near the retrained model's, for which it is not 1 either.

    Raises:
      ValueError: A set is empty, holds a number that is not finite, or has another
        number of features; or the retain set is smaller than the test set, so that
        the classes would not be balanced.

    Source: Unlearn-Sparse, ``evaluation/SVC_MIA.py``.
    """
    from sklearn.svm import SVC

    sets = {"retain": retain, "test": test, "forget": forget}
    features = {name: features_of(name, values) for name, values in sets.items()}
    widths = {name: values.shape[1] for name, values in features.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"features an example: {widths}; the same of each set needed")
    size = len(features["test"])
    if len(features["retain"]) < size:
        raise ValueError(
            f"retain has {len(features['retain'])} examples, test {size}: at least as "
            f"many needed; give fewer test examples"
        )
    attacker = SVC(C=3, kernel="rbf", gamma="auto")
    attacker.fit(
        np.concatenate([features["retain"][:size], features["test"]]),
        np.repeat([1, 0], size),
    )
    return float(np.mean(attacker.predict(features["forget"]) == 0))


def average_gap(scores: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Return ``mean |score - retrained score|`` over UA, RA, TA and MIA.

    Args:
      scores: Name -> number of the unlearned model.
      retrained: The same names -> number of the retrained model; required.

    Returns:
      0 or more in the scores' unit (the paper's is per cent), lower = nearer to the
      retrained model.

    Raises:
      ValueError: The names differ, there is none, or a number is not finite.

    >>> average_gap({"UA": 0.5, "RA": 1.0}, {"UA": 0.25, "RA": 0.75})
    0.25
    """
    if set(scores) != set(retrained) or not scores:
        raise ValueError(
            f"scores has {sorted(scores)}, retrained {sorted(retrained)}: the same "
            f"names, at least one"
        )
    gaps = np.array([abs(scores[name] - retrained[name]) for name in scores])
    if not np.isfinite(gaps).all():
        raise ValueError(f"scores={scores}, retrained={retrained}: not all are finite")
    return float(gaps.mean())


def safe_log(p: np.ndarray) -> np.ndarray:
    """Return log p, of 0 a large negative number."""
    return np.log(np.maximum(p, SMALLEST_PROBABILITY))


def examples_of(
    name: str, values: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[n,K] and int[n]; refuse what does not fit together."""
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or values.size == 0 or labels.shape != values.shape[:1]:
        raise ValueError(
            f"{name} {values.shape} and labels {labels.shape}: [examples, classes] and "
            f"[examples] needed, at least one"
        )
    if np.isnan(values).any():
        raise ValueError(
            f"{name} holds NaN in {np.isnan(values).any(axis=1).sum()} rows"
        )
    classes = values.shape[1]
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be integers in 0..{classes - 1}")
    return values, labels


def distributions(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and labels; refuse rows that are no distribution."""
    p, labels = examples_of("probabilities", probabilities, labels)
    # Rounding of a float32 softmax.
    wrong = (p < 0).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > 1e-4)
    if wrong.any():
        raise ValueError(
            f"probabilities: row {np.flatnonzero(wrong)[0]} is no distribution (sum "
            f"{p[wrong][0].sum():.6g}); take the softmax of logits first"
        )
    return p, labels


def features_of(name: str, values: np.ndarray) -> np.ndarray:
    """Return features as float64[n,F]."""
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} has shape {values.shape}: finite numbers [examples] or "
            f"[examples, features], at least one"
        )
    return values.reshape(len(values), -1)
