import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn.influence.methods.unrolled import unrolled_influence
from jaxunlearn.training.weighted import (
    RunState,
    initial_state,
    make_weighted_run,
    make_weighted_step,
    take_batch,
)

EPS = float(np.finfo(np.float32).eps)
TRANSFORMS = {
    "sgd": optax.sgd(0.3),
    "momentum": optax.sgd(0.3, momentum=0.9),
    "adamw": optax.adamw(
        optax.linear_schedule(0.1, 0.0, 9), weight_decay=0.1, eps_root=1e-30
    ),
    "clipped": optax.chain(optax.clip_by_global_norm(0.2), optax.sgd(0.5)),
}


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return TRANSFORMS[request.param]


def query_losses(run):
    return lambda state: run.loss(state.params, run.query)


def batches_of(run, order=None):
    order = run.order if order is None else order
    return [take_batch(run.data, rows) for rows in order]


def scores_of(run, transform, **options):
    step = options.pop("step", None) or make_weighted_step(run.loss, transform)
    return unrolled_influence(
        step,
        initial_state(run.params, transform),
        options.pop("batches", None) or batches_of(run),
        options.pop("query_losses", query_losses(run)),
        examples=options.pop("examples", run.examples),
        **options,
    )


def plain_run(run, transform, order):
    """The same training with neither our step nor our replay in it."""

    def losses(weights):
        params, opt_state = run.params, transform.init(run.params)
        for rows in order:
            batch = jax.tree.map(lambda x, r=rows: x[r], run.data)

            def total(params, batch=batch, rows=rows):
                return jnp.mean(weights[rows] * run.loss(params, batch))

            updates, opt_state = transform.update(
                jax.grad(total)(params), opt_state, params
            )
            params = optax.apply_updates(params, updates)
        return run.loss(params, run.query)

    return losses


def test_it_is_the_derivative_of_the_whole_training_function(small_run, transform):
    plain = plain_run(small_run, transform, small_run.order)
    expected = -jax.jit(jax.jacrev(plain))(jnp.ones(small_run.examples))
    found = scores_of(small_run, transform)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.scores, expected, atol=20 * EPS * scale)
    np.testing.assert_allclose(
        found.query_losses, plain(np.ones(small_run.examples)), rtol=1e-6
    )


def test_it_is_what_retraining_with_other_weights_gives(small_run, transform):
    step = make_weighted_step(small_run.loss, transform)
    state = initial_state(small_run.params, transform)
    train = make_weighted_run(
        step, lambda _: state, small_run.data, lambda _: small_run.order,
        query_losses(small_run),
    )  # fmt: skip
    shift = 1e-2
    weights = 1 + shift * np.concatenate([np.eye(12), -np.eye(12)])
    up, down = np.split(
        jax.jit(jax.vmap(train, (0, None)))(jnp.asarray(weights, jnp.float32), 0), 2
    )
    expected = -((up - down) / (2 * shift)).T
    found = scores_of(small_run, transform).scores
    # Rounding of the losses over the shift, and the third derivative times shift**2.
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("every", "size"), [(1, None), (4, 3), (100, 1)])
def test_checkpoints_and_query_groups_change_nothing(small_run, every, size):
    transform = TRANSFORMS["adamw"]
    expected = scores_of(small_run, transform)
    found = scores_of(
        small_run, transform, checkpoint_every=every, query_batch_size=size
    )
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=4 * EPS)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), found.state, expected.state)
    )


def test_the_exposures_add_up_and_the_last_is_the_gradient_product(small_run):
    found = scores_of(small_run, optax.sgd(0.3), by_step=True)
    total = np.zeros_like(found.scores)
    for part, rows in zip(found.by_step.swapaxes(0, 1), small_run.order, strict=True):
        total[:, rows] += part
    np.testing.assert_allclose(total, found.scores, atol=4 * EPS)
    before = scores_of(
        small_run, optax.sgd(0.3), batches=batches_of(small_run)[:-1]
    ).state.params
    rows = small_run.order[-1]
    last = jax.tree.map(lambda x: x[rows], small_run.data)
    pulled = jax.jacrev(small_run.loss)(found.state.params, small_run.query)
    pushed = jax.jacrev(small_run.loss)(before, last)
    product = sum(
        jnp.einsum("qij,bij->qb", a.reshape(5, 3, -1), b.reshape(4, 3, -1))
        for a, b in zip(*map(jax.tree.leaves, (pulled, pushed)), strict=True)
    )
    np.testing.assert_allclose(found.by_step[:, -1], 0.3 / 4 * product, atol=1e-6)


def test_training_that_does_nothing_has_no_influence(small_run):
    found = scores_of(small_run, optax.adamw(0.0, eps_root=1e-30))
    assert not found.scores.any()


def test_repeated_examples_and_padding(small_run):
    order = np.array([[0, 0, 1, -1], [2, 2, 2, 3], [-1, -1, -1, -1]], np.int32)
    found = scores_of(
        small_run, optax.sgd(0.3), batches=batches_of(small_run, order), by_step=True
    )
    assert not found.scores[:, 4:].any()
    assert not found.by_step[:, 0, 3].any()
    assert not found.by_step[:, 2].any()
    twice = found.by_step[:, 0, 0] + found.by_step[:, 0, 1]
    np.testing.assert_allclose(found.scores[:, 0], twice, rtol=EPS)
    thrice = found.by_step[:, 1, :3].sum(axis=1)
    np.testing.assert_allclose(found.scores[:, 2], thrice, rtol=4 * EPS)


def test_any_state_and_any_step_will_do(small_run):
    def step(state, batch, weights):
        """Weights that average, a counter and a key: no optimiser at all."""
        noise = jax.random.normal(jax.random.fold_in(state["key"], state["step"]), ())
        total = state["total"] + jnp.sum(weights * batch["x"][:, 0]) * noise
        return {**state, "total": total, "step": state["step"] + 1}

    state = {"total": jnp.float32(0), "step": jnp.int32(0), "key": jax.random.key(0)}
    # This step knows nothing of padding: its slope there belongs to no example.
    order = small_run.order.copy()
    order[4, 1:] = -1
    found = unrolled_influence(
        step,
        state,
        batches_of(small_run, order),
        lambda state: state["total"][None],
        examples=small_run.examples,
    )
    expected = np.zeros(12, np.float32)
    for t, rows in enumerate(order):
        noise = jax.random.normal(jax.random.fold_in(state["key"], t), ())
        rows = rows[rows >= 0]
        np.add.at(expected, rows, -small_run.data["x"][rows, 0] * noise)
    np.testing.assert_allclose(found.scores[0], expected, rtol=4 * EPS)
    assert int(found.state["step"]) == 9


def test_a_derivative_that_is_not_finite_is_an_error_that_names_adam(small_run):
    transform = optax.adam(0.1)
    with pytest.raises(ValueError, match="eps_root=1e-30"):
        initial_state(small_run.params, transform)
    state = RunState(small_run.params, transform.init(small_run.params))
    with pytest.raises(ValueError, match="through step 8 is not finite.*eps_root"):
        unrolled_influence(
            make_weighted_step(small_run.loss, transform),
            state,
            batches_of(small_run),
            query_losses(small_run),
            examples=small_run.examples,
        )


def test_progress_counts_forward_and_back(small_run):
    seen = []
    scores_of(small_run, optax.sgd(0.1), progress=lambda *a: seen.append(a))
    assert seen == [(i, 18) for i in range(1, 19)]


def bare(batch):
    return {name: x for name, x in batch.items() if name != "index"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": iter([])}, "goes backwards"),
        ({"batches": ()}, "batches is empty"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"query_batch_size": 0}, "query_batch_size=0"),
        ({"examples": 11}, "index 11, but examples=11"),
        ({"query_losses": lambda state: jnp.float32(1)}, r"shape \(\): a vector"),
    ],
)
def test_misuse_is_named(small_run, options, message):
    transform = optax.sgd(0.1)
    arguments = {
        "batches": batches_of(small_run),
        "query_losses": query_losses(small_run),
        "examples": small_run.examples,
        **options,
    }
    with pytest.raises(ValueError, match=message):
        unrolled_influence(
            make_weighted_step(small_run.loss, transform),
            initial_state(small_run.params, transform),
            **arguments,
        )


def test_batches_without_index_are_refused(small_run):
    with pytest.raises(ValueError, match=r"batches\[0\] has no 'index'"):
        scores_of(
            small_run, optax.sgd(0.1), batches=[bare(b) for b in batches_of(small_run)]
        )
