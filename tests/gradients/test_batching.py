import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxunlearn.gradients.batching import Static, example_rows, weighted_mean

SIZE = 7


def weighted_sum(batch):
    return {"x": jnp.einsum("b,bd->d", batch["weight"], batch["x"])}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((SIZE, 3)).astype(np.float32),
        "weight": np.float32([1, 0, 2, 0.5, 1, 0, 3]),
    }


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 6, 7, 100])
def test_the_mean_does_not_depend_on_the_microbatch(batch, batch_size):
    found = weighted_mean(weighted_sum, batch, batch_size=batch_size)["x"]
    expected = np.average(batch["x"], axis=0, weights=batch["weight"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_no_weights_means_equal_weights(batch, batch_size):
    found = weighted_mean(weighted_sum, {"x": batch["x"]}, batch_size=batch_size)["x"]
    np.testing.assert_allclose(found, batch["x"].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_padding_without_a_weight_does_not_count(batch, batch_size):
    index = np.int32([5, -1, 0, 3, -1, -1, 9])
    rows = {"x": batch["x"], "index": index}
    found = weighted_mean(weighted_sum, rows, batch_size=batch_size)["x"]
    np.testing.assert_allclose(found, batch["x"][index >= 0].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_nothing_but_padding_gives_zeros(batch, batch_size):
    padding = batch | {"weight": np.zeros(SIZE, np.float32)}
    found = weighted_mean(weighted_sum, padding, batch_size=batch_size)["x"]
    assert found.tolist() == [0, 0, 0]


def test_no_more_than_a_microbatch_is_seen_at_a_time(batch):
    seen = []

    def spy(part):
        seen.append(part["x"].shape)
        return weighted_sum(part)

    weighted_mean(spy, batch, batch_size=2)
    assert set(seen) == {(2, 3)}


def test_sums_are_float32():
    """In bfloat16 a sum of ones stops at 256."""
    ones = {"x": jnp.ones((300, 1), jnp.bfloat16)}

    def low(part):
        return jnp.sum(part["weight"][:, None] * part["x"], 0).astype(jnp.bfloat16)

    assert weighted_mean(low, ones, batch_size=1).tolist() == [1.0]


def test_a_batch_size_below_one_is_refused(batch):
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        weighted_mean(weighted_sum, batch, batch_size=0)


def test_it_traces_under_jit(batch):
    compute = jax.jit(lambda b: weighted_mean(weighted_sum, b, batch_size=3)["x"])
    np.testing.assert_allclose(
        compute(batch), weighted_mean(weighted_sum, batch, batch_size=None)["x"], 1e-6
    )


TRACED = []


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Network:
    """A model with a setting."""

    power: int


def powers(network, params, shift, batch):
    TRACED.append(network)
    return (params * batch["x"][:, 0] ** network.power) + shift.value


def layers_of_powers(batch):
    x = powers(Network(2), 0.5, Static(1.0), batch)
    return jnp.stack([x, 2 * x, 3 * x])


def cut(batch, size):
    """Batches of one shape; the last is filled up with padding of index -1."""
    count = len(batch["x"])
    for begin in range(0, count, size):
        part = {name: x[begin : begin + size] for name, x in batch.items()}
        rest = size - len(part["x"])
        index = np.arange(begin, begin + size)
        yield {
            "x": np.pad(part["x"], ((0, rest), (0, 0)), constant_values=np.nan),
            "index": np.where(index < count, index, -1),
        }


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_rows_are_those_of_the_examples_and_of_no_padding(batch, size):
    function = Partial(powers, Network(2), 0.5, Static(1.0))
    found = example_rows(function, list(cut(batch, size)))
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, 0.5 * batch["x"][:, 0] ** 2 + 1, rtol=1e-6)
    layers = example_rows(layers_of_powers, cut(batch, size), axis=1)
    np.testing.assert_array_equal(layers, np.stack([found, 2 * found, 3 * found]))


def test_a_second_call_compiles_nothing_and_other_settings_do(batch):
    def rows(power, params, shift):
        function = Partial(powers, Network(power), params, Static(shift))
        return example_rows(function, cut(batch, 3))

    rows(3, 1.0, 2.0)
    TRACED.clear()
    first, second = rows(3, 1.0, 2.0), rows(3, 2.0, 2.0)
    assert TRACED == []  # neither an equal network nor other parameters
    rounding = 4 * np.finfo(np.float32).eps * np.abs(second).max()
    np.testing.assert_allclose(second - 2, 2 * (first - 2), rtol=0, atol=rounding)
    rows(3, 1.0, 4.0)
    rows(1, 1.0, 2.0)
    assert TRACED == [Network(3), Network(1)]


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="batches is empty"):
        example_rows(lambda batch: batch["x"], [])
