"""Unrolled influence: the exact derivative of a query's loss through a training run.

The run is replayed backwards. Each step's pullback turns the derivative of the query
loss with respect to the state after the step into that with respect to the state before
it and to the weights of the step's examples. States are kept every few steps, and the
steps between two kept states are computed again.

Source: Ilyas and Engstrom, MAGIC: Near-optimal data attribution for deep learning,
2025.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.training.weighted import State, WeightedStep
from jaxunlearn.types import Batch


class UnrolledInfluence(NamedTuple):
    """What :func:`unrolled_influence` returns."""

    scores: np.ndarray  # float32[Q, examples]: -d L_q / d w_i; > 0 is a proponent
    by_step: np.ndarray | None  # float32[Q, S, B]: each exposure's part of it
    query_losses: np.ndarray  # float32[Q], after the last step
    state: State  # after the last step


def unrolled_influence(
    step: WeightedStep,
    state: State,
    batches: Sequence[Batch],
    query_losses: Callable[[State], jax.Array],
    *,
    examples: int,
    checkpoint_every: int | None = None,
    query_batch_size: int | None = None,
    by_step: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> UnrolledInfluence:
    """Return ``-d L_q / d w_i`` at w = 1, exact through the whole run, for all q and i.

    ``L_q`` is a loss of the state after the last step, ``w_i`` the weight of example i
    in every step that it stands in (see ``weighted_training``). To first order,
    training without example i raises ``L_q`` by the score.

    Args:
      step: Training step, such as :func:`make_weighted_step` returns; any pure function
        of (state, batch, weights) will do, and any tree as its state.
      state: Before the first step.
      batches: Of the run, in its order, of one shape; anything with ``len`` and
        ``[t]``. Each needs ``index`` int32[B], the positions of its examples in the
        data set; negative is padding.
      query_losses: From the state after the last step to float32[Q]. For one summed
        query return one number, [1].
      examples: Size of the data set.
      checkpoint_every: Steps between kept states; None is the square root of their
        number, which needs least memory. The scores do not depend on it.
      query_batch_size: Queries that go through a step's pullback together; None is all.
      by_step: Keep each exposure's part too, for example to tell what an example's
        first exposure did from what the later ones did.
      progress: Called with (steps done, steps in all), forward and backward.

    Returns:
      :class:`UnrolledInfluence`; an example that never appears scores 0.

    Raises:
      ValueError: No batch, or no query, or an ``index`` that is missing or out of
        range; or a derivative is not finite, with the causes to look for.

    Cost: 2 S steps, and for each query S pullbacks of about 2.5 gradients. Memory:
    sqrt(S) states on the host, and as many, and Q more, on the device.
    """
    every = checked_spacing(checkpoint_every, batches)
    total = len(batches)
    advance = jax.jit(step)
    kept = []
    for t in range(total):
        if t % every == 0:
            kept.append(jax.device_get(state))
        weights = initial_weights(batches[t], examples, t)
        state = advance(state, batches[t], weights)
        if progress is not None:
            progress(t + 1, 2 * total)
    losses, cotangents = query_cotangents(query_losses, state, query_batch_size)
    pull = jax.jit(make_pullback(step, query_batch_size), donate_argnums=2)
    scores = np.zeros((len(losses), examples), np.float32)
    parts = []
    for first, states in reversed_segments(advance, kept, batches, every):
        slopes = []
        for offset in reversed(range(len(states))):
            batch = batches[first + offset]
            cotangents, slope = pull(states.pop(), batch, cotangents)
            slopes.append(slope)
            if progress is not None:
                progress(2 * total - first - offset, 2 * total)
        for offset, slope in zip(
            reversed(range(len(slopes))), jax.device_get(slopes), strict=True
        ):
            check_finite(slope, first + offset)
            add_scores(scores, -slope, batches[first + offset]["index"])
            if by_step:
                parts.append(-slope)
    exposures = np.stack(parts[::-1], axis=1) if by_step else None
    return UnrolledInfluence(scores, exposures, losses, state)


def checked_spacing(checkpoint_every: int | None, batches: Sequence[Batch]) -> int:
    """Return how many steps lie between kept states."""
    if not hasattr(batches, "__len__") or not hasattr(batches, "__getitem__"):
        raise ValueError(
            f"batches is a {type(batches).__name__}: the replay goes backwards, so "
            f"give a list, or an object with len() and [t]"
        )
    if len(batches) == 0:
        raise ValueError("batches is empty: there is no run to differentiate")
    if checkpoint_every is None:
        return math.isqrt(len(batches) - 1) + 1
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every={checkpoint_every}: at least 1, or None")
    return checkpoint_every


def initial_weights(batch: Batch, examples: int, t: int) -> np.ndarray:
    """Return ones for the examples of batch t, once its index is known to be sound."""
    if "index" not in batch:
        raise ValueError(
            f"batches[{t}] has no 'index': int32[B], each example's position in the "
            f"data set, is needed to add up its exposures"
        )
    index = np.asarray(batch["index"])
    if index.max(initial=-1) >= examples:
        raise ValueError(
            f"batches[{t}] holds index {index.max()}, but examples={examples}: give "
            f"the size of the data set"
        )
    return np.ones(index.shape, np.float32)


def split_floating(tree: State) -> tuple[list[jax.Array], Callable[[list], State]]:
    """Return the floating leaves, and how to put others into their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def join(floating: list[jax.Array]) -> State:
        whole = list(leaves)
        for place, leaf in zip(places, floating, strict=True):
            whole[place] = leaf
        return jax.tree.unflatten(structure, whole)

    return [leaves[i] for i in places], join


def over_queries(pullback: Callable, cotangents: State, size: int | None) -> State:
    """Return ``vmap(pullback)``, ``size`` queries at a time."""
    if size is None:
        return jax.vmap(pullback)(cotangents)
    return jax.lax.map(pullback, cotangents, batch_size=size)


def query_cotangents(
    query_losses: Callable[[State], jax.Array], state: State, size: int | None
) -> tuple[np.ndarray, list[jax.Array]]:
    """Return the query losses and the derivative of each by the state, leaves [Q, ...].

    Raises:
      ValueError: The losses are no vector, or it is empty.
    """
    if size is not None and size < 1:
        raise ValueError(f"query_batch_size={size}: at least 1, or None")
    shape = jax.eval_shape(query_losses, state).shape
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(
            f"query_losses returns shape {shape}: a vector of one loss a query is "
            f"needed; for one summed query, of length 1"
        )

    @jax.jit
    def derivatives(state: State) -> tuple[jax.Array, list[jax.Array]]:
        floating, join = split_floating(state)
        losses, pullback = jax.vjp(lambda leaves: query_losses(join(leaves)), floating)
        one_each = jnp.eye(losses.shape[0], dtype=losses.dtype)
        return losses, over_queries(lambda unit: pullback(unit)[0], one_each, size)

    losses, cotangents = derivatives(state)
    return np.asarray(losses), cotangents


def make_pullback(step: WeightedStep, size: int | None) -> Callable:
    """Return ``(state, batch, cotangents) -> (cotangents before, slopes [Q, B])``."""

    def pull(
        state: State, batch: Batch, cotangents: list[jax.Array]
    ) -> tuple[list[jax.Array], jax.Array]:
        floating, join = split_floating(state)

        def forward(leaves: list[jax.Array], weights: jax.Array) -> list[jax.Array]:
            return split_floating(step(join(leaves), batch, weights))[0]

        ones = jnp.ones(jnp.shape(batch["index"]), jnp.float32)
        _, pullback = jax.vjp(forward, floating, ones)
        return over_queries(pullback, cotangents, size)

    return pull


def reversed_segments(
    advance: Callable, kept: list[State], batches: Sequence[Batch], every: int
) -> Iterator[tuple[int, list[State]]]:
    """Yield (first step, states before each step) of every segment, the last first."""
    while kept:
        state = kept.pop()
        first = every * len(kept)
        states = [state]
        for t in range(first, min(first + every, len(batches)) - 1):
            ones = np.ones(np.shape(batches[t]["index"]), np.float32)
            states.append(advance(states[-1], batches[t], ones))
        yield first, states


def add_scores(scores: np.ndarray, parts: np.ndarray, index: np.ndarray) -> None:
    """Add one step's parts [Q, B] to the scores of its examples, padding left out."""
    index = np.asarray(index)
    real = index >= 0
    # Not `scores[:, index] +=`, which counts an example once that stands in it twice.
    np.add.at(scores, (slice(None), index[real]), parts[:, real])


def check_finite(slope: np.ndarray, t: int) -> None:
    """Refuse a derivative that is not a number, with its causes and remedies."""
    if not np.isfinite(slope).all():
        raise ValueError(
            f"the derivative through step {t} is not finite. Either a function in the "
            f"step has none there (Adam's sqrt(v) at v = 0: build it with "
            f"eps_root=1e-30), or it grew beyond float32 on the way back: the run "
            f"magnifies small changes without limit; lower the learning rate, warm up "
            f"longer or clip gradients"
        )
