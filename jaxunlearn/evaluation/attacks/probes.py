"""Probes: what hidden states still say, layer by layer, when the output keeps quiet."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.evaluation.attacks.relearned import halves
from jaxunlearn.gradients.batching import example_rows
from jaxunlearn.models.cross_entropy import head_logits
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.states_by_layer import layer_states
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

PENALTY = 0.1


class LogitLens(NamedTuple):
    """What each layer would say, were it the last; strengths are the layers 0 to N.

    Attributes:
      probability: Geometric mean over the true tokens of their probability.
      reciprocal_rank: Mean over the true tokens of 1 / rank; 1: each is the likeliest.
    """

    probability: Recovered
    reciprocal_rank: Recovered


def logit_lens(
    model: GPT2,
    params: Params,
    batches: Iterable[Batch],
) -> LogitLens:
    """Decode the states of every layer by the model's own last norm and head.

    Args:
      model: The model.
      params: Its parameters.
      batches: The forget set in batches of one shape, which changes nothing beyond
        rounding.

    Cost: a forward pass with N + 1 heads; logits of one example at a time.

    Source: nostalgebraist 2020, interpreting GPT: the logit lens.
    """
    found = example_rows(Partial(lens_of_batch, model, params), batches, axis=1)
    layers = tuple(range(model.layers + 1))
    return LogitLens(*(Recovered(layers, x.astype(np.float64)) for x in found))


def lens_of_batch(model: GPT2, params: Params, batch: Batch) -> tuple:
    """Return probability and reciprocal rank at every layer, [N+1,B] each."""
    labels = jnp.asarray(batch["labels"])[:, 1:]

    def example(part: tuple) -> tuple:
        states_TD, labels_T = part
        counted = labels_T != IGNORED_LABEL
        number = jnp.maximum(counted.sum(), 1)
        normed = model.final_norm(params, states_TD[None, :-1])
        logits = head_logits(normed, model.head(params))[0]
        at = jnp.where(counted, labels_T, 0)[:, None]
        true = jnp.take_along_axis(logits, at, axis=1)
        rank = 1 + jnp.sum(logits > true, axis=1)
        log_p = true[:, 0] - jax.nn.logsumexp(logits, axis=1)
        return (
            jnp.exp(jnp.sum(jnp.where(counted, log_p, 0.0)) / number),
            jnp.sum(jnp.where(counted, 1.0 / rank, 0.0)) / number,
        )

    def keep(states_BTD: jax.Array) -> tuple:
        return jax.lax.map(example, (states_BTD, labels))

    return layer_states(model, params, batch, keep=keep)


def membership_probe(
    model: GPT2,
    params: Params,
    forget: Iterable[Batch],
    holdout: Iterable[Batch],
    *,
    seed: int = 0,
) -> Recovered:
    """Tell forgotten from never seen examples by a linear probe of each layer.

    The probe reads, averaged over an example's labelled tokens y, how the normed state
    in front of each points to it: the product, width by width, of state and output
    embedding of y, whose plain sum would be y's logit. A ridge classifier is fitted on
    half of either set and judged on the other half, so no example it is judged on has
    touched it: in a model that saw neither set its AUC is 0.5 but for the draw of those
    examples, which the interval covers. Topic may set the two sets apart as well, in
    any model: compare with the reference.

    Args:
      model: The model.
      params: Its parameters.
      forget: The forgotten examples, n, in batches of one shape, which changes nothing
        beyond rounding.
      holdout: Examples like them that no model saw, m, likewise.
      seed: Of the halves.

    Returns:
      Strengths are the layers 0 to N; values are those of :func:`auc_values`.

    Raises:
      ValueError: A set has fewer than 4 examples.
    """
    ours = pointing_features(model, params, forget)
    others = pointing_features(model, params, holdout)
    seen, asked = zip(
        *(halves(features.shape[1], seed=seed) for features in (ours, others)),
        strict=True,
    )
    values = []
    for x, y in zip(ours, others, strict=True):
        score = ridge_probe(x[seen[0]], y[seen[1]])
        values.append(auc_values(score(x[asked[0]]), score(y[asked[1]])))
    return Recovered(tuple(range(len(values))), np.stack(values))


def pointing_features(
    model: GPT2,
    params: Params,
    batches: Iterable[Batch],
) -> np.ndarray:
    """Return ``mean_t ln_f(state_t) * E[y_t+1]`` of each layer, float32[N+1,n,D]."""
    return example_rows(Partial(pointing_of_batch, model, params), batches, axis=1)


def pointing_of_batch(model: GPT2, params: Params, batch: Batch) -> jax.Array:
    """Return the :func:`pointing_features` of one batch, [N+1,B,D]."""
    labels = jnp.asarray(batch["labels"])[:, 1:]
    counted = labels != IGNORED_LABEL
    share = counted / jnp.maximum(counted.sum(axis=1, keepdims=True), 1)
    head = model.head(params).astype(jnp.float32)
    wanted = share[..., None] * head[jnp.where(counted, labels, 0)]

    def keep(states_BTD: jax.Array) -> jax.Array:
        normed = model.final_norm(params, states_BTD[:, :-1])
        return jnp.sum(wanted * normed.astype(jnp.float32), axis=1)

    return layer_states(model, params, batch, keep=keep)


def ridge_probe(
    forget: np.ndarray, holdout: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a linear score ``[k, D] -> [k]``, higher = more like ``forget``.

    Ridge regression on +1 and -1, both classes of the same weight, features of unit
    variance, penalty :data:`PENALTY` times the mean eigenvalue.

    Args:
      forget: float[n, D].
      holdout: float[m, D].
    """
    x = np.concatenate([forget, holdout]).astype(np.float64)
    sizes = (len(forget), len(holdout))
    center = (x[: sizes[0]].mean(axis=0) + x[sizes[0] :].mean(axis=0)) / 2
    # A feature that does not vary says nothing, and is left at 0.
    spread = x.std(axis=0)
    scale = np.where(spread > 1e-6 * spread.max(initial=0.0), spread, np.inf)
    root = np.sqrt(np.repeat(1 / np.array(sizes), sizes))
    known = (x - center) / scale * root[:, None]
    target = np.repeat([1.0, -1.0], sizes) * root
    # In the space of examples: there are often fewer of them than features.
    products = known @ known.T
    penalty = PENALTY * np.trace(products) / len(products) or 1.0
    solved = np.linalg.solve(products + penalty * np.eye(len(products)), target)
    direction = (known.T @ solved) / scale
    return lambda features: (features - center) @ direction


def auc_values(forget: np.ndarray, holdout: np.ndarray) -> np.ndarray:
    """Return one value an example, whose mean is the AUC and whose spread its error.

    An AUC is no mean over examples. But with ``V_i`` the share of holdout scores below
    forget score i (ties half), and ``W_j`` likewise, ``AUC = mean V = mean W`` and its
    variance is ``var V / n + var W / m`` (DeLong). The values ``AUC + (n + m)/n (V_i -
    AUC)`` and ``AUC + (n + m)/m (W_j - AUC)`` have both, so that intervals made for
    means hold.

    Args:
      forget: float[n] scores, higher = more like a member.
      holdout: float[m] scores.

    Returns:
      float64[n + m].

    Source: DeLong et al. 1988, Comparing the areas under correlated ROC curves.
    """
    wins = (forget[:, None] > holdout) + 0.5 * (forget[:, None] == holdout)
    area, total = wins.mean(), len(forget) + len(holdout)
    return area + np.concatenate(
        [
            total / len(forget) * (wins.mean(axis=1) - area),
            total / len(holdout) * (wins.mean(axis=0) - area),
        ]
    )
