import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import patterns, tree

LAYERS, WIDTH = 12, 4


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return {
        "wte": {"embedding": draw(7, WIDTH)},
        "h": {
            "attn": {"c_attn": {"kernel": draw(LAYERS, WIDTH, 3 * WIDTH)}},
            "ln_1": {"scale": draw(LAYERS, WIDTH)},
        },
        "ln_f": {"bias": draw(WIDTH)},
    }


def selected(params, pattern, stacked=None):
    mask = tree.select(params, pattern, stacked=stacked)
    return [n for n, _ in tree.selected_slices(params, mask, stacked=stacked)]


def test_a_block_is_addressed_by_its_number(params):
    assert selected(params, "^h/11/") == ["h/11/attn/c_attn/kernel", "h/11/ln_1/scale"]
    # Not block 1 and block 11: the pattern sees the whole number.
    assert selected(params, "h/1/ln_1") == ["h/1/ln_1/scale"]
    assert selected(params, "h/(0|1)/.*kernel$") == [
        "h/0/attn/c_attn/kernel",
        "h/1/attn/c_attn/kernel",
    ]
    assert selected(params, "^(wte|ln_f)/") == ["ln_f/bias", "wte/embedding"]


def test_the_pattern_is_not_matched_against_the_stacked_name(params):
    with pytest.raises(ValueError, match="matches no parameter"):
        tree.select(params, "^h/attn")


@pytest.mark.parametrize("pattern", [".", "", "scale", "^h/3/", "kernel|bias"])
def test_masks_broadcast_and_count_what_slices_hold(params, pattern):
    mask = tree.select(params, pattern)
    slices = list(tree.selected_slices(params, mask))
    size = sum(array.size for _, array in slices)
    assert tree.selected_size(params, mask) == size
    kept = tree.masked(params, mask)
    assert jax.tree.structure(kept) == jax.tree.structure(params)
    assert sum(int((x != 0).sum()) for x in jax.tree.leaves(kept)) == size
    squares = sum(float((array**2).sum()) for _, array in slices)
    np.testing.assert_allclose(tree.norm(params, mask) ** 2, squares, rtol=1e-5)


def test_slices_are_the_layers(params):
    found = dict(tree.selected_slices(params, tree.select(params, ".")))
    assert len(found) == 2 + 2 * LAYERS
    for i in range(LAYERS):
        np.testing.assert_array_equal(
            found[f"h/{i}/ln_1/scale"], params["h"]["ln_1"]["scale"][i]
        )


def test_select_needs_shapes_only(params):
    shapes = jax.eval_shape(lambda: params)
    from_shapes, from_arrays = (tree.select(x, "h/2/") for x in (shapes, params))
    assert jax.tree.all(jax.tree.map(np.array_equal, from_shapes, from_arrays))


def test_one_stacked_layer_is_still_addressed_by_its_number():
    params = {"h": {"bias": jnp.ones((1, 3))}}
    assert selected(params, "h/0/", ("h",)) == ["h/0/bias"]


def test_numbered_layers_are_not_stacked():
    params = {"h": {"0": {"bias": jnp.ones(3)}, "1": {"bias": jnp.ones(3)}}}
    assert selected(params, "h/1/bias", ("h",)) == ["h/1/bias"]
    assert tree.stacked_prefix("model/layers/bias", ("model/layers",)) == "model/layers"


def test_an_ordinary_layer_may_have_any_name():
    """A dense layer called ``h`` or ``layers`` is one layer, not one a row."""
    for name in ("h", "layers"):
        params = {name: {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}}
        assert selected(params, f"^{name}/") == [f"{name}/bias", f"{name}/kernel"]
        assert tree.layer_names(f"{name}/kernel", np.zeros((5, 3))) == [
            f"{name}/kernel"
        ]
        with pytest.raises(ValueError, match="matches no parameter.*say stacked="):
            tree.select(params, f"^{name}/0/")


@pytest.mark.parametrize("folder", ["blocks", "encoder/layers"])
def test_whatever_folder_is_said_to_be_stacked_is_addressed_by_number(folder):
    outer, _, inner = folder.partition("/")
    blocks = {"mlp": {"kernel": jnp.ones((4, 2, 3))}, "scale": jnp.ones((4, 2))}
    params = {outer: {inner: blocks} if inner else blocks, "h": {"bias": jnp.ones(4)}}
    told = (folder,)
    assert selected(params, f"^{folder}/3/", told) == [
        f"{folder}/3/mlp/kernel",
        f"{folder}/3/scale",
    ]
    assert selected(params, "bias", told) == ["h/bias"]
    mask = dict(tree.named_leaves(tree.select(params, "/(0|2)/mlp", stacked=told)))
    assert mask[f"{folder}/mlp/kernel"].ravel().tolist() == [True, False, True, False]
    assert not mask["h/bias"].any()
    with pytest.raises(ValueError, match=f"addressed as {folder}/<number>"):
        tree.select(params, "^h/3/", stacked=told)


def test_a_pattern_that_matches_nothing_names_the_nearest(params):
    with pytest.raises(ValueError, match="matches no parameter") as caught:
        tree.select(params, "h/11/ln_2/scale")
    message = str(caught.value)
    assert "layers='h/11/ln_2/scale'" in message
    assert "h/11/ln_1/scale" in message
    assert "wte/embedding" in message


def test_a_broken_pattern_is_named(params):
    with pytest.raises(ValueError, match=r"layers='h/\(' is not a regular expression"):
        tree.select(params, "h/(")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sums_are_float32_and_parameters_keep_their_dtype(params, dtype):
    low = tree.cast(params, dtype)
    dtypes = {
        "subtract": tree.subtract(low, low),
        "scaled": tree.scaled(0.5, low),
        "zeros": tree.zeros_like(low),
        "vdot": tree.vdot(low, low),
        "norm": tree.norm(low),
    }
    for name, result in dtypes.items():
        assert {x.dtype for x in jax.tree.leaves(result)} == {jnp.float32.dtype}, name
    for result in (tree.add_scaled(low, 0.1, params), tree.masked(low, low)):
        assert {x.dtype for x in jax.tree.leaves(result)} == {jnp.dtype(dtype)}


def test_cast_leaves_integers_alone():
    mixed = {"step": jnp.arange(3), "x": jnp.ones(2)}
    result = tree.cast(mixed, jnp.bfloat16)
    assert result["step"].dtype == jnp.int32
    assert result["x"].dtype == jnp.bfloat16


def test_algebra_is_that_of_the_flat_vector(params):
    def flat(t):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)])

    other = jax.tree.map(lambda x: jnp.sin(3 * x), params)
    a, b = flat(params), flat(other)
    eps = np.finfo(np.float32).eps
    # float32 rounding of a sum of n terms, in the size of the terms.
    np.testing.assert_allclose(
        tree.vdot(params, other), a @ b, atol=len(a) * eps * np.abs(a * b).max()
    )
    np.testing.assert_allclose(tree.norm(params), np.linalg.norm(a), rtol=10 * eps)
    np.testing.assert_array_equal(flat(tree.subtract(params, other)), a - b)
    np.testing.assert_allclose(
        flat(tree.add_scaled(params, 0.5, other)), a + 0.5 * b, rtol=0, atol=4 * eps
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_keeps_the_mean_and_whatever_the_dtype_holds(dtype):
    rng = np.random.default_rng(0)
    wide = {"x": jnp.asarray(rng.normal(size=20_000), jnp.float32)}
    like = tree.cast(wide, dtype)
    low = tree.rounded(wide, like)
    x, found = (np.asarray(t["x"], np.float64) for t in (wide, low))
    assert low["x"].dtype == like["x"].dtype
    ulp = float(jnp.finfo(dtype).eps) * 2.0 ** np.floor(np.log2(np.abs(x)))
    apart = (found - x) / ulp
    assert (np.abs(apart) < 1).all()
    # Of uniformly spread fractions f the variance is E f (1 - f) = 1 / 6.
    assert abs(apart.mean()) < 4 / (6 * len(x)) ** 0.5
    again = tree.rounded(tree.cast(low, "float32"), like)
    for a, b in ((again, low), (tree.rounded(wide, like), low)):
        assert np.asarray(a["x"]).tobytes() == np.asarray(b["x"]).tobytes()
    # A quarter of the way up, a quarter goes up: nearest would lose it all.
    step = {"x": jnp.full(20_000, 1 + jnp.finfo(dtype).eps.astype("float32") / 4)}
    went_up = np.mean(np.asarray(tree.rounded(step, like)["x"] > 1, np.float64))
    assert abs(went_up - 0.25) < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_at_the_edges(dtype):
    top = float(jnp.finfo(dtype).max)
    edges = [0.0, -0.0, top, -top, jnp.inf, -jnp.inf, float(jnp.finfo(dtype).tiny)]
    wide = jnp.asarray(edges, jnp.float32)
    low = tree.rounded({"x": wide}, {"x": wide.astype(dtype)})["x"]
    assert np.asarray(low).tobytes() == np.asarray(wide.astype(dtype)).tobytes()
    # Past the largest number stands infinity, which saving refuses by name.
    past = {"x": jnp.float32([1e38 if top < 1e38 else 3.4e38, jnp.nan])}
    beyond = np.asarray(tree.rounded(past, {"x": low})["x"], np.float32)
    np.testing.assert_array_equal(beyond, [jnp.inf, jnp.nan])


def test_master_weights_are_a_copy_in_float32(params):
    for dtype in ("float32", "bfloat16", "float16"):
        low = tree.cast(params, dtype)
        masters = tree.master_weights(low)
        for a, b in zip(jax.tree.leaves(low), jax.tree.leaves(masters), strict=True):
            assert b.dtype == jnp.float32
            assert b is not a
            np.testing.assert_array_equal(np.asarray(a, np.float32), b)


def test_a_sum_in_bfloat16_would_lose_what_is_added():
    """256 + 1/2 is 256 in bfloat16, so that steps taken one by one would be lost."""
    low = {"x": jnp.full(3, 256.0, jnp.bfloat16)}
    direction = {"x": jnp.full(3, 0.5, jnp.float32)}
    assert tree.add_scaled(low, 8.0, direction)["x"].tolist() == [260.0] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adding_a_masked_direction_leaves_the_rest_bit_equal(params, dtype):
    low = tree.cast(jax.tree.map(lambda x: x.at[1:].set(-0.0), params), dtype)
    mask = tree.select(low, "^h/(2|7)/")
    direction = tree.masked(jax.tree.map(jnp.cos, params), mask)
    moved = tree.add_scaled(low, 0.3, direction)
    for name in selected(low, "."):
        before, after = (
            dict(tree.selected_slices(x, tree.select(x, f"^{name}$")))[name]
            for x in (low, moved)
        )
        same = np.asarray(before).tobytes() == np.asarray(after).tobytes()
        assert same == (not name.startswith(("h/2/", "h/7/"))), name


def test_a_nan_outside_the_mask_does_not_leak(params):
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan), params)
    assert tree.non_finite_leaves(broken) == [n for n, _ in tree.named_leaves(params)]
    kept = tree.masked(broken, tree.select(params, "^h/5/"))
    assert tree.non_finite_leaves(kept) == []
    assert np.isfinite(tree.norm(broken, tree.select(params, "^h/5/")))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(/?.*)*X", "matches no parameter"),
        ("(.|..|...)*(?<=#)", "takes more than 0.1 seconds to match: no repetition"),
        ("a" * 1001, "has more than 1000 characters"),
        ("(" * 400 + ")" * 400, "nested too deeply|matches no parameter"),
        ("(", "is not a regular expression"),
    ],
)
def test_a_pattern_ends_whatever_it_is(monkeypatch, pattern, message):
    monkeypatch.setattr(patterns, "PATTERN_SECONDS", 0.1)
    params = {"h": {"attention" * 12: jax.ShapeDtypeStruct((3, 2), jnp.float32)}}
    begun = time.monotonic()
    with pytest.raises(ValueError, match=message):
        tree.select(params, pattern)
    assert time.monotonic() - begun < 30


def test_several_expressions_select_what_one_of_them_does():
    params = {"wte": np.ones((5, 2)), "ln_f": np.ones(3), "h": np.ones((2, 3))}
    found = tree.select(params, ["^wte", "ln"])
    assert found == {"wte": True, "ln_f": True, "h": False}
    assert tree.select(params, ["ln"]) == tree.select(params, "ln")
    with pytest.raises(ValueError, match="layers is empty"):
        tree.select(params, [])
    with pytest.raises(ValueError, match="matches no parameter"):
        tree.select(params, ["nothing", "none"])
