import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.evaluation.attacks import quantization, quantized
from jaxunlearn.evaluation.attacks.precision import BLOCK, NF4

RNG = np.random.default_rng(0)
H = ("h",)
PARAMS = {
    "wte": {"embedding": jnp.asarray(RNG.normal(size=(9, 16)), jnp.float32)},
    "h": {
        "kernel": jnp.asarray(RNG.normal(size=(3, 16, 10)), jnp.float32),
        "bias": jnp.asarray(RNG.normal(size=(3, 10)), jnp.float32),
    },
    "ln_f": {"scale": jnp.ones(16, jnp.float32)},
}


@pytest.fixture(scope="module")
def rounded():
    return {kind: quantized(PARAMS, kind, stacked=H) for kind in ("int8", "nf4")}


def test_int8_is_within_half_a_step_of_its_channel(rounded):
    old, new = PARAMS["h"]["kernel"], rounded["int8"].params["h"]["kernel"]
    step = np.abs(old).max(axis=1, keepdims=True) / 127
    assert (np.abs(new - old) <= step / 2 * (1 + 1e-4)).all()
    levels = np.asarray(new / step)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(new - old).max() > 0


def slow_nf4(kernel):
    """Weight by weight, as bitsandbytes lays out a torch weight [out, in]."""
    flat = np.asarray(kernel, np.float32).T.ravel()
    new = np.empty_like(flat)
    for begin in range(0, len(flat), BLOCK):
        block = flat[begin : begin + BLOCK]
        scale = np.abs(block).max()
        nearest = np.abs(block[:, None] / scale - NF4).argmin(axis=1)
        new[begin : begin + BLOCK] = NF4[nearest] * scale
    return new.reshape(kernel.shape[::-1]).T


def test_nf4_is_the_slow_way_layer_by_layer(rounded):
    old, new = PARAMS["h"]["kernel"], rounded["nf4"].params["h"]["kernel"]
    for layer in range(3):
        np.testing.assert_allclose(new[layer], slow_nf4(old[layer]), rtol=1e-6)
    # Half the widest gap of the code book, of the largest weight.
    bound = np.diff(NF4).max() / 2 * np.abs(old).max()
    assert np.abs(new - old).max() <= bound


def test_the_code_book():
    assert (len(NF4), NF4[0], NF4[7], NF4[15]) == (16, -1, 0, 1)
    assert (np.diff(NF4) > 0).all()


def test_bytes(rounded):
    rest = 4 * (9 * 16 + 3 * 10 + 16)
    assert rounded["int8"].bytes == rest + 3 * (160 + 4 * 10)
    assert rounded["nf4"].bytes == rest + 3 * (80 + 4 * 3)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_only_chosen_matrices_change_and_once_is_enough(kind, rounded):
    for name, leaf in tree.named_leaves(rounded[kind].params):
        same = np.array_equal(leaf, dict(tree.named_leaves(PARAMS))[name])
        assert same == (name != "h/kernel"), name
    again = quantized(rounded[kind].params, kind, stacked=H).params["h"]["kernel"]
    np.testing.assert_allclose(again, rounded[kind].params["h"]["kernel"], rtol=1e-5)
    one = quantized(PARAMS, kind, layers="^h/1/|^wte", stacked=H).params
    np.testing.assert_array_equal(one["h"]["kernel"][0], PARAMS["h"]["kernel"][0])
    np.testing.assert_array_equal(
        one["h"]["kernel"][1], rounded[kind].params["h"]["kernel"][1]
    )
    assert not np.array_equal(one["wte"]["embedding"], PARAMS["wte"]["embedding"])


def test_an_embedding_has_a_scale_a_row():
    large = {"wte": {"embedding": PARAMS["wte"]["embedding"].at[0].mul(1000)}}
    old = large["wte"]["embedding"]
    new = quantized(large, "int8", layers="wte").params["wte"]["embedding"]
    step = np.abs(old).max(axis=1, keepdims=True) / 127
    assert (np.abs(new - old) <= step / 2 * (1 + 1e-4)).all()


def test_zeros_and_narrow_types_stay():
    zeros = {"kernel": jnp.zeros((4, 4), jnp.bfloat16)}
    for kind in ("int8", "nf4"):
        new = quantized(zeros, kind).params["kernel"]
        assert new.dtype == jnp.bfloat16
        assert not new.any()


def test_the_attack_measures_what_is_rounded(rounded):
    found = quantization(
        PARAMS, lambda p: np.asarray(p["h"]["kernel"][:, 0, 0]), stacked=H
    )
    assert found.strengths == ("none", "int8", "nf4")
    expected = [PARAMS, rounded["int8"].params, rounded["nf4"].params]
    for row, params in zip(found.values, expected, strict=True):
        np.testing.assert_array_equal(row, params["h"]["kernel"][:, 0, 0])


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [("int4", ".", "one of int8, nf4"), ("nf4", "bias|ln_f", "matches no matrix")],
)
def test_bad_input(kind, layers, message):
    with pytest.raises(ValueError, match=message):
        quantized(PARAMS, kind, layers=layers, stacked=H)


def test_the_input_is_left_alone():
    before = jax.tree.map(np.array, PARAMS)
    quantized(PARAMS, "int8", layers=".")
    jax.tree.map(np.testing.assert_array_equal, before, PARAMS)
