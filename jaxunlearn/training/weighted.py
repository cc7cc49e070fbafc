"""Training as a function of one weight an example: what influence differentiates.

A run is ``step(state, batch, weights) -> state`` over a fixed sequence of batches; the
weights, one an example and the same in all its exposures, scale the examples' gradients
and nothing else. All at 1 is the run that was really made; an example at 0 is left out,
while initialisation, order, schedule and batch sizes stay as they were.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_weights
from jaxunlearn.gradients.mean_products import twice_differentiable
from jaxunlearn.types import Batch, Params, PerExampleLoss

State = Any
"""Any tree of arrays: what a training step hands to the next."""


class WeightedStep(Protocol):
    """One training step, pure, and differentiable in state and weights."""

    def __call__(self, state: State, batch: Batch, weights: jax.Array, /) -> State:
        """Return the next state; ``weights`` float32[B] are of the batch's examples."""
        ...


class RunState(NamedTuple):
    """The state of :func:`make_weighted_step`."""

    params: Params  # float32, whatever the model is stored in
    opt_state: optax.OptState


def initial_state(params: Params, transform: optax.GradientTransformation) -> RunState:
    """Return the state before the first step, made of a float32 copy of ``params``.

    Raises:
      ValueError: The optimiser's update has no derivative where a gradient is exactly
        0, as a token's embedding has until the token is met. Adam divides by sqrt(v),
        whose derivative at v = 0 is infinite. The remedy, ``eps_root=1e-30`` in
        ``optax.adam`` or ``optax.adamw``, is far below what float32 can see beside
        ``eps``, and leaves the run as it is.

    >>> initial_state(jnp.zeros(3), optax.adam(0.1))
    Traceback (most recent call last):
    ...
    ValueError: the optimiser's update has no derivative where a gradient is 0 ...
    """
    check_differentiable(params, transform)
    masters = tree.master_weights(params)
    return RunState(masters, transform.init(masters))


def check_differentiable(
    params: Params, transform: optax.GradientTransformation
) -> None:
    """Refuse an optimiser without derivative where a gradient is 0."""
    # Of the shapes alone, so that a state can be made inside jit and vmap too.
    with jax.ensure_compile_time_eval():
        point = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), params)
        leaves, structure = jax.tree.flatten(jax.tree.map(jnp.zeros_like, point))
        # One entry is 1, or the norm in gradient clipping would be at its own kink.
        leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].set(1.0)
        opt_state = transform.init(point)
        updates, pullback = jax.vjp(
            lambda gradient: transform.update(gradient, opt_state, point)[0],
            jax.tree.unflatten(structure, leaves),
        )
        derivative = pullback(jax.tree.map(jnp.ones_like, updates))
        finite = [bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(derivative)]
    if not all(finite):
        raise ValueError(
            "the optimiser's update has no derivative where a gradient is 0 (Adam's "
            "1 / sqrt(v) at v = 0): build it with eps_root=1e-30, which leaves the run "
            "itself as it is in float32"
        )


def mean_shares(batch: Batch) -> jax.Array:
    """Return the share c_i of each example in the batch's mean loss, float32[B]."""
    weight = example_weights(batch)
    return weight / jnp.maximum(weight.sum(), 1.0)


def make_weighted_step(
    loss: PerExampleLoss,
    transform: optax.GradientTransformation,
    *,
    shares: Callable[[Batch], jax.Array] = mean_shares,
    renormalise: bool = False,
) -> WeightedStep:
    """Return the training step whose gradient is ``sum_i w_i c_i grad l_i``.

    Args:
      loss: Per-example loss, twice differentiable. For a run with dropout, one that
        takes its key from the batch.
      transform: The optimiser; Adam needs ``eps_root`` (see :func:`initial_state`).
      shares: From a batch to the examples' shares c_i, float32[B], 0 for padding. The
        default is the mean over examples; for a run of ``jaxunlearn.training`` give
        ``functools.partial(example_shares, recipe)``.
      renormalise: Divide the gradient by ``sum_i w_i c_i / sum_i c_i``. At weight 0 the
        example is then removed from the batch's mean too, as in training on the shorter
        batch, and the others' learning rate rises in its place. Scores and retraining
        must agree on it.

    Returns:
      ``step(state, batch, weights) -> state`` on :class:`RunState`, to be jitted by the
      caller. Reverse mode only.

    Cost: an ordinary step. Its pullback costs about 2.5 gradients a cotangent.
    """
    gradient = weighted_gradient(loss)

    def step(state: RunState, batch: Batch, weights: jax.Array) -> RunState:
        shared = weights * shares(batch)
        if renormalise:
            whole = shares(batch).sum()
            # A batch that is left out whole gives no gradient: 0 / 1.
            rest = jnp.where(shared.sum() == 0, 1.0, shared.sum())
            shared = shared * (whole / rest)
        updates, opt_state = transform.update(
            gradient(state.params, batch, shared), state.opt_state, state.params
        )
        return RunState(optax.apply_updates(state.params, updates), opt_state)

    return step


def weighted_gradient(
    loss: PerExampleLoss,
) -> Callable[[Params, Batch, jax.Array], Params]:
    """Return ``(params, batch, a) -> sum_i a_i grad l_i``, with a cheap pullback.

    The pullback of u is ``(H u, (<grad l_i, u>)_i)``, H the Hessian of ``sum_i a_i
    l_i``: both come out of one forward-over-reverse pass, in 0.7 of the time of
    differentiating the gradient in reverse.
    """

    def gradient(params: Params, batch: Batch, shares: jax.Array) -> Params:
        return jax.grad(lambda p: jnp.sum(shares * loss(p, batch)))(params)

    def forward(*arguments: Any) -> tuple[Params, tuple]:
        return gradient(*arguments), arguments

    def backward(arguments: tuple, direction: Params) -> tuple:
        params, batch, shares = arguments

        def gradient_and_losses(params: Params) -> tuple[Params, jax.Array]:
            def total(params: Params) -> tuple[jax.Array, jax.Array]:
                losses = loss(params, batch)
                return jnp.sum(shares * losses), losses

            return jax.grad(total, has_aux=True)(params)

        with twice_differentiable():
            _, (product, slopes) = jax.jvp(gradient_and_losses, (params,), (direction,))
        return product, None, slopes

    differentiable = jax.custom_vjp(gradient)
    differentiable.defvjp(forward, backward)
    return differentiable


def take_batch(data: Batch, rows: jax.Array) -> Batch:
    """Return the examples at ``rows`` int32[B] of ``data``; negative is padding.

    ``index`` is set to ``rows`` and ``weight`` to that of ``data``, 0 for padding.
    """
    rows = jnp.asarray(rows)
    batch = {name: jnp.asarray(x)[jnp.maximum(rows, 0)] for name, x in data.items()}
    weight = batch.get("weight", jnp.ones(rows.shape, jnp.float32))
    return {**batch, "index": rows, "weight": jnp.where(rows < 0, 0.0, weight)}


def make_weighted_run(
    step: WeightedStep,
    state: Callable[[jax.Array], State],
    data: Batch,
    order: Callable[[jax.Array], jax.Array],
    outcomes: Callable[[State], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return ``train(weights, seed) -> outcomes``: a whole run as one pure function.

    It is what :func:`unrolled_influence` differentiates when that is given the same
    step, ``state(seed)``, and ``[take_batch(data, rows) for rows in order(seed)]``.

    Args:
      step: Training step, see :func:`make_weighted_step`.
      state: From the seed to the state before the first step.
      data: All N examples as one batch, on the device.
      order: From the seed to int32[S, B], the examples of each step.
      outcomes: From the last state to float32[Q], such as the losses of queries.

    Returns:
      ``train(weights float32[N], seed int32[]) -> float32[Q]``, to be jitted and mapped
      over by the caller. It compiles once, whatever S.
    """

    def train(weights: jax.Array, seed: jax.Array) -> jax.Array:
        def one_step(state: State, rows: jax.Array) -> tuple[State, None]:
            batch = take_batch(data, rows)
            return step(state, batch, weights[jnp.maximum(rows, 0)]), None

        return outcomes(jax.lax.scan(one_step, state(seed), order(seed))[0])

    return train
