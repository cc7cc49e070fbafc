import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.batching import weighted_mean

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
