import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.models.tying import tie
from jaxunlearn.training import Recipe, Recording, gradient_store
from jaxunlearn.training.recipe import (
    batch_at,
    compiled_step,
    example_shares,
    initial_state,
    optimizer,
)
from jaxunlearn.training.recorder import check_recording, make_recording_step

EPS = float(np.finfo(np.float32).eps)
SGD = Recipe(epochs=1, batch_size=4, learning_rate=1.0, optimizer="sgd", seed=5)
PARTLY = r"wte|ln_f|^h/1/.*(kernel|ln_2/scale)"


@pytest.fixture(scope="module")
def recorded(model, params):
    """Batch -> what the recording step returns, from ``params``, for some layers."""
    transform = optimizer(SGD, 3)
    step = jax.jit(
        make_recording_step(
            model,
            SGD,
            transform,
            PARTLY,
            head_entries=1000,  # more than the vocabulary: all of it
            label_slots=11,
        )
    )
    return lambda batch: step(initial_state(params, transform), batch)


def gradients(examples, params, folder, dtype="float32"):
    """The examples' gradients, by way of the disk."""
    weights = np.ones(len(examples.index))
    gradient_store.write_step(folder, examples, weights, epoch=1, step=0, dtype=dtype)
    lines = gradient_store.read_index(folder)
    return {
        line.exposure.index: tie(gradient)
        for line, gradient in gradient_store.read_examples(lines, params)
    }


@pytest.mark.parametrize(("dtype", "eps"), [("float32", EPS), ("bfloat16", 2.0**-8)])
def test_each_gradient_is_that_of_the_example_alone(
    recorded, model, params, data, slow_gradient, distance, length, tmp_path, dtype, eps
):
    batch = batch_at(SGD, data, 0)
    _, _, examples = recorded(batch)
    mask = tree.select(params, PARTLY)
    found = gradients(examples, params, tmp_path, dtype)
    assert list(found) == batch["index"].tolist()
    for row, index in enumerate(found):
        slow = tree.masked(slow_gradient(model, params, index), mask)
        limit = 50 * EPS if dtype == "float32" else 2 * eps
        assert distance(found[index], slow) < limit
        for name, leaf in tree.selected_slices(slow, mask):
            other = dict(tree.selected_slices(found[index], mask))[name]
            assert distance(other, leaf) < limit, name
        # The norm is of the gradient as it was, not of what was stored.
        assert float(examples.norm[row]) == pytest.approx(length(slow), rel=50 * EPS)
    # Unselected leaves, and the other layers of selected ones, hold nothing.
    rest = jax.tree.map(np.logical_not, mask)
    assert float(tree.norm(found[index], rest)) == 0


@pytest.mark.parametrize("step", [0, 2])
def test_recording_leaves_the_state_of_the_plain_step(
    recorded, model, params, data, distance, step
):
    batch = batch_at(SGD, data, step)
    state, metrics, examples = recorded(batch)
    start = initial_state(jax.tree.map(jnp.copy, params), optimizer(SGD, 3))
    plain, plain_metrics = compiled_step(model, SGD, 3)(start, batch)
    moved = tree.subtract(plain.params, params)
    assert distance(tree.subtract(state.params, params), moved) < 100 * EPS
    assert int(state.step) == int(plain.step) == 1
    np.testing.assert_allclose(metrics, plain_metrics, rtol=20 * EPS)
    assert examples.index.tolist() == batch["index"].tolist()


def test_the_weighted_sum_of_the_examples_is_the_batch_gradient(
    recorded, model, params, data, distance, tmp_path
):
    batch = batch_at(SGD, data, 2)  # half of it padding
    _, _, examples = recorded(batch)
    shares = dict(
        zip(
            batch["index"].tolist(), np.asarray(example_shares(SGD, batch)), strict=True
        )
    )
    total = tree.zeros_like(params)
    for index, gradient in gradients(examples, params, tmp_path).items():
        total = tree.add_scaled(total, shares[index], gradient)
    start = initial_state(jax.tree.map(jnp.copy, params), optimizer(SGD, 3))
    state, _ = compiled_step(model, SGD, 3)(start, batch)
    # Learning rate 1: the step is the gradient, up to the parameters' rounding.
    step = tree.subtract(params, state.params)
    mask = tree.select(params, PARTLY)
    assert distance(total, tree.masked(step, mask)) < 100 * EPS


def test_padding_rows_have_no_gradient(recorded, data):
    _, _, examples = recorded(batch_at(SGD, data, 2))
    assert examples.index.tolist()[2:] == [-1, -1]
    for array in (examples.norm, examples.lookup_rows, examples.head_values):
        assert bool(jnp.isfinite(array).all())
        assert not np.asarray(array)[2:].any()
    for name, array in examples.dense.items():
        assert not np.asarray(array)[2:].any(), name


def test_the_parts_of_the_embedding_add_up(recorded, params, data, distance, tmp_path):
    _, _, examples = recorded(batch_at(SGD, data, 0))
    gradient_store.write_step(
        tmp_path, examples, np.ones(4), epoch=1, step=0, dtype="float32"
    )
    index = int(examples.index[0])
    gradient, _ = gradient_store.stored_gradient(tmp_path, params, [index])
    lookup, head = gradient["wte"]["embedding"], gradient["lm_head"]["kernel"]
    tied = tie(gradient)
    assert distance(lookup + head, tied["wte"]["embedding"]) < 4 * EPS
    # The lookup touches the example's own tokens; the softmax touches all.
    tokens = set(data.examples[index].input_ids.tolist())
    assert set(np.flatnonzero(lookup.any(axis=1)).tolist()) <= tokens
    assert bool(head.any(axis=1).all())
    assert tied["h"] is gradient["h"]
    with pytest.raises(ValueError, match="a head of its own are not recorded"):
        check_recording(Recording(), SGD, gradient)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"head_entries": 0}, "head_entries=0"),
        ({"epochs": ()}, r"epochs=\(\)"),
        ({"epochs": (0, 1)}, r"epochs=\(0, 1\).*counted from 1"),
    ],
)
def test_what_cannot_be_recorded_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recording(**settings)


def test_a_recording_must_fit_its_run(params):
    with pytest.raises(ValueError, match=r"epochs=\(1, 2\), but .* epochs 1 to 1"):
        check_recording(Recording(epochs=(1, 2)), SGD, params)
    with pytest.raises(ValueError, match=r"'wtf' matches no .* Nearest names: .*wte"):
        check_recording(Recording(layers="wtf"), SGD, params)
    with pytest.raises(ValueError, match=r"'h/12/' matches no .* counted from 0"):
        check_recording(Recording(layers="h/12/"), SGD, params)
