import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import in_order
from jaxunlearn.data.text.examples import Example, TokenizedData
from jaxunlearn.evaluation.internals.representations import (
    example_features,
    layer_cka,
    linear_cka,
)
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.models.states_by_layer import layer_states

TINY = GPT2Config(vocab_size=97, n_positions=24, n_embd=16, n_layer=2, n_head=2)
LENGTHS = (5, 12, 9, 2, 11, 7, 8)

compiled_cka = jax.jit(linear_cka, static_argnames="unbiased")


@pytest.fixture(scope="module")
def model():
    return GPT2(TINY)


@pytest.fixture(scope="module")
def params(model):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))

    def draw(path, x):
        normal = 0.2 * rng.standard_normal(x.shape)
        return jnp.asarray(normal + (path[-1].key == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    ids = [rng.integers(97, size=n).astype(np.int32) for n in LENGTHS]
    return TokenizedData(tuple(Example(x, x, i) for i, x in enumerate(ids)), 0, 0, 96)


def rotation(width, seed=0):
    normal = np.random.default_rng(seed).standard_normal((width, width))
    return np.linalg.qr(normal)[0]


def features(size, width, seed):
    return 5 + np.random.default_rng(seed).standard_normal((size, width))


def kernel_cka(x, y, *, unbiased):
    """The definition, by n x n kernels in float64."""

    def hsic(k, m):
        n = len(k)
        if not unbiased:
            h = np.eye(n) - 1 / n
            return np.trace(k @ h @ m @ h) / (n - 1) ** 2
        k, m = (a * (1 - np.eye(n)) for a in (k, m))
        whole = k.sum() * m.sum() / ((n - 1) * (n - 2))
        rows = 2 / (n - 2) * k.sum(0) @ m.sum(0)
        return (np.trace(k @ m) + whole - rows) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


# Wider than there are examples (kernels are formed), and narrower (features are).
@pytest.mark.parametrize("size", [9, 50])
@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_is_its_kernel_form_and_knows_no_rotation_or_scale(size, unbiased):
    x, y = features(size, 12, 1), features(size, 7, 2)
    y[:, :3] += x[:, :3]
    value = float(compiled_cka(x, y, unbiased=unbiased))
    tolerance = dict(abs=2e-5)
    assert value == pytest.approx(kernel_cka(x, y, unbiased=unbiased), **tolerance)
    assert float(compiled_cka(y, x, unbiased=unbiased)) == pytest.approx(
        value, **tolerance
    )
    turned = 1e6 * (x @ rotation(12)) - 3e6
    assert float(compiled_cka(turned, y, unbiased=unbiased)) == pytest.approx(
        value, **tolerance
    )
    order = np.random.default_rng(3).permutation(size)
    assert float(compiled_cka(x[order], y[order], unbiased=unbiased)) == pytest.approx(
        value, **tolerance
    )
    assert float(compiled_cka(x, turned, unbiased=unbiased)) == pytest.approx(
        1, **tolerance
    )


def test_only_the_unbiased_value_of_unrelated_features_is_near_zero():
    x, y = features(40, 400, 4), features(40, 400, 5)
    assert float(compiled_cka(x, y)) > 0.8
    assert abs(float(compiled_cka(x, y, unbiased=True))) < 0.05


def test_cka_of_what_does_not_vary_is_not_a_number():
    x = features(8, 3, 6)
    constant = np.full((8, 3), 0.1)
    assert np.isnan(compiled_cka(x, constant))
    assert np.isnan(compiled_cka(constant, constant, unbiased=True))


def test_fourth_powers_of_large_and_small_features_are_finite():
    x, y = features(9, 4, 9), features(9, 4, 10)
    value = float(compiled_cka(x, y))
    for scale in (1e-15, 1e15):
        assert float(compiled_cka(scale * x, y)) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("position", ["last", "mean"])
def test_features_are_those_of_each_example_alone(model, params, data, position):
    found = np.stack(
        [
            example_features(
                model, params, in_order(data, batch_size=4), layer=i, position=position
            )
            for i in range(3)
        ]
    )
    for row, example in enumerate(data.examples[:2]):
        alone = layer_states(model, params, {"input_ids": example.input_ids[None]})
        expected = alone[:, 0, -1] if position == "last" else alone[:, 0].mean(axis=1)
        np.testing.assert_allclose(found[:, row], expected, rtol=2e-5, atol=2e-5)
    assert found.shape == (3, len(LENGTHS), 16)
    assert found.dtype == np.float32
    padded = dataclasses.replace(data, pad_id=3)
    other = example_features(
        model, params, in_order(padded, batch_size=7), layer=2, position=position
    )
    np.testing.assert_allclose(other, found[2], rtol=2e-5, atol=2e-5)


def test_layers_are_compared_one_by_one(model, params, data):
    batches = in_order(data, batch_size=4)
    np.testing.assert_allclose(
        layer_cka(model, params, params, batches), np.ones(3), atol=1e-5
    )
    # Only the second block differs: the layers before it are still the same.
    blocks = jax.tree.map(
        lambda x: x.at[1].add(
            np.random.default_rng(2).standard_normal(x.shape[1:]).astype(np.float32)
        ),
        params["h"],
    )
    changed = {**params, "h": blocks}
    found = layer_cka(model, params, changed, batches)
    assert found.shape == (3,)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:2], 1, atol=1e-5)
    assert found[2] < 0.9
    by_hand = linear_cka(
        *(
            example_features(model, p, batches, layer=2, position="mean")
            for p in (params, changed)
        ),
        unbiased=True,
    )
    assert found[2] == pytest.approx(float(by_hand), abs=1e-6)
    biased = layer_cka(model, params, changed, batches, unbiased=False)
    assert biased[2] > found[2]


def test_misuse(model, params, data):
    batches = in_order(data, batch_size=4)
    with pytest.raises(ValueError, match="layer=3: 0 .* to 2"):
        example_features(model, params, batches, layer=3)
    with pytest.raises(ValueError, match="position='first': one of last, mean"):
        example_features(model, params, batches, layer=1, position="first")
    with pytest.raises(ValueError, match="data is empty"):
        layer_cka(model, params, params, in_order(TokenizedData((), 0, 0)))
    few = TokenizedData(data.examples[:3], 0, 0)
    with pytest.raises(ValueError, match="3 examples: .* needs 4 or more"):
        layer_cka(model, params, params, in_order(few))
    with pytest.raises(ValueError, match=r"shapes \(9, 4\) and \(8, 4\)"):
        linear_cka(jnp.ones((9, 4)), jnp.ones((8, 4)))
    with pytest.raises(ValueError, match="1 examples: .* needs 2 or more"):
        linear_cka(jnp.ones((1, 4)), jnp.ones((1, 4)))
