import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn.training.weighted import (
    initial_state,
    make_weighted_run,
    make_weighted_step,
    mean_shares,
    take_batch,
    weighted_gradient,
)

EPS = float(np.finfo(np.float32).eps)
SGD = optax.sgd(1.0)


def gradient_of_mean(run, rows):
    batch = jax.tree.map(lambda x: x[np.asarray(rows)], run.data)
    return jax.grad(lambda p: jnp.mean(run.loss(p, batch)))(run.params)


def gradient_of_step(run, weights, rows=(0, 1, 2, 3), **options):
    """What a step of SGD with learning rate 1 takes away."""
    step = make_weighted_step(run.loss, SGD, **options)
    state = initial_state(run.params, SGD)
    batch = take_batch(run.data, jnp.array(rows, jnp.int32))
    after = step(state, batch, jnp.array(weights, jnp.float32))
    return jax.tree.map(jnp.subtract, run.params, after.params)


def assert_close(a, b):
    # A difference of parameters of size 1 to 2 is rounded to their precision.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=4 * EPS), a, b)


def test_all_weights_one_is_training_as_usual(small_run):
    assert_close(
        gradient_of_step(small_run, [1, 1, 1, 1]),
        gradient_of_mean(small_run, [0, 1, 2, 3]),
    )


def test_weight_zero_leaves_out_and_renormalising_removes(small_run):
    shorter = gradient_of_mean(small_run, [0, 1, 3])
    assert_close(
        gradient_of_step(small_run, [1, 1, 0, 1]),
        jax.tree.map(lambda g: 0.75 * g, shorter),
    )
    assert_close(gradient_of_step(small_run, [1, 1, 0, 1], renormalise=True), shorter)
    for renormalise in (False, True):
        nothing = gradient_of_step(small_run, [0] * 4, renormalise=renormalise)
        assert not any(x.any() for x in jax.tree.leaves(nothing))


def test_padding_has_no_share(small_run):
    assert_close(
        gradient_of_step(small_run, [1, 1, 1, 1], rows=[4, 5, -1, -1]),
        gradient_of_mean(small_run, [4, 5]),
    )
    batch = take_batch(small_run.data, jnp.array([4, 5, -1, -1]))
    assert mean_shares(batch).tolist() == [0.5, 0.5, 0, 0]
    assert mean_shares(take_batch(small_run.data, jnp.array([-1]))).tolist() == [0]


def test_shares_are_the_callers(small_run):
    shares = jnp.array([0.5, 0.25, 0.125, 0.125])
    found = gradient_of_step(small_run, [1, 1, 1, 1], shares=lambda batch: shares)
    batch = jax.tree.map(lambda x: x[:4], small_run.data)
    expected = jax.grad(lambda p: shares @ small_run.loss(p, batch))(small_run.params)
    assert_close(found, expected)


def test_the_cheap_pullback_is_that_of_the_gradient(small_run):
    batch = jax.tree.map(lambda x: x[:4], small_run.data)
    shares = jnp.array([0.5, -1.0, 2.0, 0.0])

    def plain(params, shares):
        return jax.grad(lambda p: shares @ small_run.loss(p, batch))(params)

    direction = jax.tree.map(lambda x: jnp.cos(x) + 1, small_run.params)
    gradient = weighted_gradient(small_run.loss)
    cheap, cheap_pull = jax.vjp(
        lambda p, s: gradient(p, batch, s), small_run.params, shares
    )
    slow, slow_pull = jax.vjp(plain, small_run.params, shares)
    assert_close(cheap, slow)
    assert_close(cheap_pull(direction), slow_pull(direction))


def test_a_loss_without_second_derivative_is_told_what_to_do(small_run):
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (square(x), x), lambda x, c: (2 * x * c,))
    gradient = weighted_gradient(lambda p, b: square(p) * b["x"])
    _, pull = jax.vjp(
        lambda p: gradient(p, {"x": jnp.ones(2)}, jnp.ones(2)), jnp.float32(1)
    )
    with pytest.raises(ValueError, match='attention="xla"'):
        pull(jnp.float32(1))


@pytest.mark.parametrize(
    ("transform", "differentiable"),
    [
        (optax.adam(0.1), False),
        (optax.adamw(0.1, eps_root=1e-30), True),
        (optax.rmsprop(0.1, eps=0.0), False),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), True),
        (optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9), True),
    ],
)
def test_an_optimiser_with_a_kink_at_zero_is_refused(
    small_run, transform, differentiable
):
    if differentiable:
        initial_state(small_run.params, transform)
        return
    with pytest.raises(ValueError, match="eps_root"):
        initial_state(small_run.params, transform)


def test_a_state_can_be_made_where_the_run_is_traced(small_run):
    """As a run over seeds does, whose start is drawn from the seed."""

    def start(seed, transform):
        shift = jax.random.normal(jax.random.fold_in(jax.random.key(0), seed))
        params = jax.tree.map(lambda x: x + shift, small_run.params)
        return initial_state(params, transform).params["bias"]

    sound, unsound = optax.adam(0.1, eps_root=1e-30), optax.adam(0.1)
    biases = jax.jit(jax.vmap(lambda seed: start(seed, sound)))(jnp.arange(3))
    assert len(np.unique(biases)) == 3
    with pytest.raises(ValueError, match="eps_root"):
        jax.jit(jax.vmap(lambda seed: start(seed, unsound)))(jnp.arange(3))


def test_eps_root_leaves_adam_as_it_is(small_run):
    runs = []
    for transform in (optax.adam(0.1), optax.adam(0.1, eps_root=1e-30)):
        params, state = small_run.params, transform.init(small_run.params)
        for rows in small_run.order:
            batch = jax.tree.map(lambda x, r=rows: x[r], small_run.data)
            gradient = jax.grad(lambda p, b=batch: small_run.loss(p, b).mean())(params)
            updates, state = transform.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        runs.append(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *runs))


def test_a_run_is_its_steps_in_order(small_run):
    transform = optax.sgd(0.3, momentum=0.9)
    step = make_weighted_step(small_run.loss, transform)
    weights = jnp.linspace(0.0, 2.0, small_run.examples)
    starts = [small_run.params, jax.tree.map(lambda x: -x, small_run.params)]
    states = [initial_state(p, transform) for p in starts]
    orders = jnp.stack([small_run.order, small_run.order[::-1]])
    train = make_weighted_run(
        step,
        lambda seed: jax.tree.map(lambda *x: jnp.stack(x)[seed], *states),
        small_run.data,
        lambda seed: orders[seed],
        lambda state: small_run.loss(state.params, small_run.query),
    )
    for seed in (0, 1):
        state = states[seed]
        for rows in orders[seed]:
            state = step(state, take_batch(small_run.data, rows), weights[rows])
        np.testing.assert_allclose(
            jax.jit(train)(weights, seed),
            small_run.loss(state.params, small_run.query),
            rtol=1e-5,
        )
