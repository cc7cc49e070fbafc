"""Probes: what hidden states still say, layer by layer, when the output keeps quiet."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.data import TokenizedData
from jaxunlearn.evaluation.attacks.recovery import Recovered
from jaxunlearn.evaluation.attacks.relearning import halves
from jaxunlearn.models.cross_entropy import head_logits
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.layer_states import final_norm, layer_states
from jaxunlearn.training.losses import over_batches
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
    data: TokenizedData,
    *,
    batch_size: int = 32,
    length: int | None = None,
) -> LogitLens:
    """Decode the states of every layer by the model's own last norm and head.

    Args:
      model: The model.
      params: Its parameters.
      data: The tokenised forget set.
      batch_size: Examples at a time; changes nothing beyond rounding.
      length: Tokens to pad to; None is the longest example.

    Cost: a forward pass with N + 1 heads; logits of one example at a time.

    Source: nostalgebraist 2020, interpreting GPT: the logit lens.
    """
    look = compiled_lens(model)
    settings = {"batch_size": batch_size, "length": length}
    found = over_batches(lambda batch: look(params, batch), data, **settings, axis=1)
    layers = tuple(range(model.config.n_layer + 1))
    return LogitLens(*(Recovered(layers, x.astype(np.float64)) for x in found))


@functools.cache
def compiled_lens(model: GPT2) -> Callable[[Params, Batch], tuple]:
    """Return jitted ``batch -> (probability, reciprocal rank)``, [N+1,B] each."""

    def look(params: Params, batch: Batch) -> tuple:
        labels = jnp.asarray(batch["labels"])[:, 1:]

        def example(part: tuple) -> tuple:
            states_TD, labels_T = part
            counted = labels_T != IGNORED_LABEL
            number = jnp.maximum(counted.sum(), 1)
            normed = final_norm(model, params, states_TD[None, :-1])
            logits = head_logits(normed, params["wte"]["embedding"])[0]
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

    return jax.jit(look)


def membership_probe(
    model: GPT2,
    params: Params,
    forget: TokenizedData,
    holdout: TokenizedData,
    *,
    seed: int = 0,
    batch_size: int = 32,
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
      forget: The forgotten examples, n.
      holdout: Examples like them that no model saw, m.
      seed: Of the halves.
      batch_size: Examples at a time; changes nothing beyond rounding.

    Returns:
      Strengths are the layers 0 to N; values are those of :func:`auc_values`.

    Raises:
      ValueError: A set has fewer than 4 examples.
    """
    seen, asked = zip(
        *(halves(len(data.examples), seed=seed) for data in (forget, holdout)),
        strict=True,
    )
    settings = {"batch_size": batch_size}
    ours = pointing_features(model, params, forget, **settings)
    others = pointing_features(model, params, holdout, **settings)
    values = []
    for x, y in zip(ours, others, strict=True):
        score = ridge_probe(x[seen[0]], y[seen[1]])
        values.append(auc_values(score(x[asked[0]]), score(y[asked[1]])))
    return Recovered(tuple(range(len(values))), np.stack(values))


def pointing_features(
    model: GPT2,
    params: Params,
    data: TokenizedData,
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Return ``mean_t ln_f(state_t) * E[y_t+1]`` of each layer, float32[N+1,n,D]."""
    compute = compiled_pointing(model)
    settings = {"batch_size": batch_size, "axis": 1}
    return over_batches(lambda batch: compute(params, batch), data, **settings)


@functools.cache
def compiled_pointing(model: GPT2) -> Callable[[Params, Batch], jax.Array]:
    """Return the jitted features of a batch, [N+1,B,D]."""

    def features(params: Params, batch: Batch) -> jax.Array:
        labels = jnp.asarray(batch["labels"])[:, 1:]
        counted = labels != IGNORED_LABEL
        share = counted / jnp.maximum(counted.sum(axis=1, keepdims=True), 1)
        embedding = params["wte"]["embedding"].astype(jnp.float32)
        wanted = share[..., None] * embedding[jnp.where(counted, labels, 0)]

        def keep(states_BTD: jax.Array) -> jax.Array:
            normed = final_norm(model, params, states_BTD[:, :-1])
            return jnp.sum(wanted * normed.astype(jnp.float32), axis=1)

        return layer_states(model, params, batch, keep=keep)

    return jax.jit(features)


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
