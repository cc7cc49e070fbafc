"""What can be told from features: by their neighbours, and by a linear probe.

A class that a probe finds is still in there, whatever the model says. Features come
from :func:`jaxunlearn.evaluation.internals.representations.example_features`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.evaluation.membership.roc import auc


class Probe(NamedTuple):
    """What a linear probe makes of examples that it was not fitted to.

    Attributes:
      accuracy: Share of the examples whose class it finds, 0 to 1.
      auc: Area under the ROC curve of each class against the rest, the mean over
        classes and folds: 0.5 is chance, 1 perfect.
      chance: Accuracy of always saying the commonest class.
      correct: bool[n], whether it finds the class of each example.
      converged: Whether every fit came to its end; else the numbers are those of an
        unfinished probe: raise l2.
    """

    accuracy: float
    auc: float
    chance: float
    correct: np.ndarray
    converged: bool


def linear_probe(
    features: Any, labels: Any, *, folds: int = 5, l2: float = 1.0, seed: int = 0
) -> Probe:
    """Return how well a linear map of features tells classes apart, cross-validated.

    Multinomial logistic regression: W, b minimise ``sum_i CE(W x_i + b, y_i) + l2/2
    |W|^2`` on all folds but one, and are scored on that one. Features are standardised
    by the mean and deviation of the examples that the probe is fitted to.

    Args:
      features: [n,D].
      labels: int[n] (or any values that can be compared), at least two classes.
      folds: Parts, each with its share of every class.
      l2: Strength of the penalty; of W alone, so that b is free.
      seed: Of the parts.

    Returns:
      The probe's scores. Forget examples told from unseen ones, lower is better
      forgotten, down to what the retrained model gives.

    Raises:
      ValueError: Shapes do not fit together, a number is not finite, there is one
        class, a class has fewer examples than ``folds``, or an option is out of range.

    Cost: ``folds`` fits of some hundred products with the n features, in float64 on the
    host.

    Source: Belinkov 2022, Probing classifiers (arXiv 2102.12452); UUEF (arXiv
    2503.06991) for unlearning.
    """
    x, y = checked_features(features, labels, "features")
    classes, truth = np.unique(y, return_inverse=True)
    counts = np.bincount(truth)
    if len(classes) < 2:
        raise ValueError(f"labels hold one class, {classes[0]!r}: two are needed")
    if folds < 2 or counts.min() < folds:
        raise ValueError(
            f"folds={folds}: 2 to {counts.min()}, the examples of the smallest class"
        )
    if not l2 > 0:
        raise ValueError(f"l2={l2}: above 0, else separable classes have no optimum")
    from scipy.special import log_softmax

    fold = stratified_folds(truth, folds, seed)
    correct, areas, converged = np.zeros(len(x), bool), [], True
    for number in range(folds):
        held = fold == number
        mean, deviation = x[~held].mean(axis=0), x[~held].std(axis=0)
        standard = (x - mean) / np.where(deviation == 0, 1.0, deviation)
        weights, bias, finished = fit_softmax(
            standard[~held], truth[~held], len(classes), l2
        )
        score, own = log_softmax(standard[held] @ weights + bias, axis=1), truth[held]
        correct[held] = score.argmax(axis=1) == own
        areas += [auc(score[own != c, c], score[own == c, c]) for c in np.unique(own)]
        converged = converged and finished
    return Probe(
        float(correct.mean()),
        float(np.mean(areas)),
        float(counts.max() / len(x)),
        correct,
        converged,
    )


def stratified_folds(truth: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each example: every class dealt out in random order."""
    draw = np.random.default_rng(seed)
    found = np.empty(len(truth), np.int64)
    dealt = 0
    for name in np.unique(truth):
        members = draw.permutation(np.flatnonzero(truth == name))
        # Each class goes on where the last one ended, so that folds are of one size.
        found[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return found


def fit_softmax(
    x_nD: np.ndarray, truth: np.ndarray, classes: int, l2: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return weights [D,C], bias [C] and whether L-BFGS came to its end."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    width = x_nD.shape[1]
    one_hot = np.eye(classes)[truth]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        log_p = log_softmax(x_nD @ weights + bias, axis=1)
        loss = -np.sum(one_hot * log_p) + l2 / 2 * np.sum(weights**2)
        excess = np.exp(log_p) - one_hot
        slope = np.concatenate(
            [(x_nD.T @ excess + l2 * weights).ravel(), excess.sum(axis=0)]
        )
        return loss, slope

    found = minimize(
        objective,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-6},
    )
    weights = found.x[:-classes].reshape(width, classes)
    return weights, found.x[-classes:], bool(found.success)


def nearest_neighbour_accuracy(
    features: Any, labels: Any, test_features: Any, test_labels: Any, *, k: int = 5
) -> float:
    """Return how often the k most similar examples vote for the right class.

    Similarity is the cosine. Of classes with as many votes the smallest label wins, of
    equally similar examples the earlier ones vote.

    Args:
      features: [n,D] of the examples that vote.
      labels: int[n], their classes.
      test_features: [m,D] of other examples.
      test_labels: int[m], their classes.
      k: Votes.

    Returns:
      0 to 1. Of what was forgotten, lower is better, down to the retrained model's.

    Raises:
      ValueError: Shapes do not fit together, a set is empty, or k is not 1 to n.

    Cost: 2nmD flops; memory for n m similarities.

    Source: UUEF (arXiv 2503.06991), k = 5 with the cosine on penultimate features.
    """
    x, y = checked_features(features, labels, "features")
    queries, truth = checked_features(test_features, test_labels, "test_features")
    if x.shape[1] != queries.shape[1]:
        raise ValueError(
            f"features of width {x.shape[1]} and test_features of {queries.shape[1]}: "
            f"both must come from one layer"
        )
    if not 1 <= k <= len(x):
        raise ValueError(f"k={k}: 1 to {len(x)}, the number of voting examples")
    classes, positions = np.unique(y, return_inverse=True)
    similarity = jnp.matmul(directions(queries), directions(x).T, precision="highest")
    _, nearest = jax.lax.top_k(similarity, k)
    votes = jax.nn.one_hot(jnp.asarray(positions)[nearest], len(classes)).sum(axis=1)
    return float(np.mean(classes[np.asarray(votes.argmax(axis=1))] == truth))


def directions(x_nD: np.ndarray) -> jax.Array:
    """Return rows of length 1; a row of zeros stays one."""
    x = jnp.asarray(x_nD, jnp.float32)
    lengths = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / jnp.where(lengths == 0, 1.0, lengths)


def checked_features(
    features: Any, labels: Any, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels as arrays; refuse what does not fit together."""
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(
            f"{name} of shape {x.shape} and labels of shape {y.shape}: [n,D] and [n]"
        )
    if len(x) == 0:
        raise ValueError(f"{name} is empty: there is no example")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return x, y
