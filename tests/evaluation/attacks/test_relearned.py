import jax
import numpy as np
import optax
import pytest

from jaxunlearn import tree
from jaxunlearn.data import collate, epoch_order, in_order
from jaxunlearn.evaluation.attacks import halves, measure_of, probability, relearning

RATE = 1e-2


@pytest.fixture(scope="module")
def slow(model, params, data):
    """Three steps of optax's AdamW over the epoch order of seed 3, three at a time."""
    quiet = model.without_dropout()
    transform = optax.adamw(RATE, weight_decay=0.0)
    state, own, path = transform.init(params), params, [params]

    def loss(params, batch):
        # A mean over tokens: each example by its number of labels.
        counts = (batch["labels"][:, 1:] >= 0).sum(axis=1)
        losses = quiet.per_example_loss(params, batch)
        return (losses * counts).sum() / counts.sum()

    gradient = jax.jit(jax.grad(loss))
    order = epoch_order(3, 0, 7)
    for begin in (0, 3, 6):
        rows = order[begin : begin + 3]
        batch = collate(data, rows, batch_size=3, length=data.length)
        change, state = transform.update(gradient(own, batch), state, own)
        own = optax.apply_updates(own, change)
        path.append(own)
    return path


def run(model, params, data, measures, **options):
    settings = {"learning_rate": RATE, "batch_size": 3, "seed": 3}
    return relearning(model, params, data, measures, **settings | options)


def test_it_is_plain_adamw_measured_on_the_way(model, params, data, slow):
    measure = measure_of(model, in_order(data), probability)
    steps = []
    found, norms = run(
        *(model, params, data),
        [measure, lambda p: np.array([float(np.abs(p["wte"]["embedding"]).sum())])],
        steps=(0, 1, 3),
        on_step=steps.append,
    )
    assert found.strengths == (0, 1, 3)
    assert steps == [1, 2, 3]
    for row, norm, at in zip(found.values, norms.values, (0, 1, 3), strict=True):
        np.testing.assert_allclose(row, measure(slow[at]), rtol=1e-3)
        total = np.abs(slow[at]["wte"]["embedding"]).sum()
        np.testing.assert_allclose(norm, total, rtol=1e-5)
    again = run(model, params, data, [measure], steps=(0, 3))[0]
    np.testing.assert_array_equal(again.values[1], found.values[2])  # same bits
    assert found.values[2].mean() > found.values[0].mean()


def test_parameters_are_left_alone_and_the_order_is_the_seeds(model, params, data):
    before = jax.tree.map(np.array, params)
    measure = measure_of(model, in_order(data), probability)
    a, b = (run(model, params, data, [measure], steps=(0, 1), seed=s) for s in (3, 4))
    jax.tree.map(np.testing.assert_array_equal, before, params)
    np.testing.assert_array_equal(a[0].values[0], b[0].values[0])
    assert not np.array_equal(a[0].values[1], b[0].values[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_attack_is_as_strong_on_weights_stored_in_16_bits(
    model, params, data, dtype
):
    """A step of 1e-4 beside a weight of 0.1 is lost in bfloat16."""
    measure = measure_of(model, in_order(data), probability)
    low = tree.cast(params, dtype)
    found = [
        run(model, p, data, [measure], steps=(0, 1, 8), learning_rate=1e-4)[0].values
        for p in (low, tree.cast(low, "float32"))
    ]
    np.testing.assert_array_equal(*found)
    assert found[0][2].mean() > found[0][0].mean()


def test_halves_divide_the_set():
    for size in (4, 7, 30):
        known, held_out = halves(size, seed=1)
        assert sorted([*known, *held_out]) == list(range(size))
        assert len(known) == size // 2
    assert not np.array_equal(halves(30, seed=1)[0], halves(30, seed=2)[0])
    with pytest.raises(ValueError, match="3 examples"):
        halves(3)


@pytest.mark.parametrize("steps", [(1, 2), (0, 2, 2), ()])
def test_bad_steps(model, params, data, steps):
    with pytest.raises(ValueError, match="must begin with 0 and rise"):
        run(model, params, data, [], steps=steps)


def test_divergence_says_what_to_lower(model, params, data):
    with pytest.raises(ValueError, match="lower learning_rate=1e[+]30"):
        run(model, params, data, [], steps=(0, 3), learning_rate=1e30)
