import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.evaluation.internals.parameters import (
    calibrated_mix,
    interpolate,
    linear_path,
    parameter_distance,
)
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.tree import named_leaves, select, selected_slices

TINY = GPT2Config(vocab_size=97, n_positions=24, n_embd=16, n_layer=11, n_head=2)


def draw(seed):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: GPT2(TINY).init(key=jax.random.key(0)))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), shapes
    )


@pytest.fixture(scope="module")
def two():
    return draw(1), draw(2)


def same_bits(a, b):
    return all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for (_, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True)
    )


def point(x, y):
    """Two parameters: what moves, and -0.0, which a sum would lose."""
    return {"w": jnp.array([x, y], jnp.float32), "b": jnp.array([-0.0], jnp.float32)}


def test_distances_are_those_of_each_layers_parameters_together(two):
    before, after = two
    rows = parameter_distance(before, after)
    names = [row["layer"] for row in rows]
    assert names == ["wte", "wpe", *(f"h/{i}" for i in range(11)), "ln_f"]
    for row in rows:
        mask = select(before, f"^{row['layer']}/")
        a, b = (
            np.concatenate([np.ravel(x) for _, x in selected_slices(p, mask)])
            for p in two
        )
        expected = np.linalg.norm(np.float64(b) - a) / np.linalg.norm(np.float64(a))
        assert row["parameter_distance"] == pytest.approx(expected, rel=1e-5)


def test_distance_is_relative_and_of_what_moved_alone(two):
    before, _ = two
    assert {r["parameter_distance"] for r in parameter_distance(before, before)} == {0}
    half = jax.tree.map(lambda x: 0.5 * x, before)
    for row in parameter_distance(before, half):
        assert row["parameter_distance"] == pytest.approx(0.5, rel=1e-6)
    kernel = before["h"]["mlp"]["c_fc"]["kernel"]
    block = {**before["h"]["mlp"], "c_fc": {**before["h"]["mlp"]["c_fc"]}}
    block["c_fc"]["kernel"] = kernel.at[7].add(1.0)
    moved = {**before, "h": {**before["h"], "mlp": block}}
    touched = [
        r["layer"] for r in parameter_distance(before, moved) if r["parameter_distance"]
    ]
    assert touched == ["h/7"]
    # In half precision the sums are still float32, and models may differ in dtype.
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), before)
    for row in parameter_distance(before, low):
        assert 0 < row["parameter_distance"] < float(jnp.finfo(jnp.bfloat16).eps)


def test_a_layer_of_zeros_has_no_relative_distance():
    zeros = {"wte": jnp.zeros(3), "ln_f": jnp.zeros(2)}
    moved = {"wte": jnp.ones(3), "ln_f": jnp.zeros(2)}
    found = {
        r["layer"]: r["parameter_distance"] for r in parameter_distance(zeros, moved)
    }
    assert found == {"wte": None, "ln_f": 0.0}


def test_the_ends_of_a_line_are_the_models_bit_for_bit():
    start, end = point(0.1, 1e30), point(0.3, -7.0)
    end["b"] = -end["b"]
    assert same_bits(interpolate(start, end, 0.0), start)
    assert same_bits(interpolate(start, end, 1.0), end)
    middle = interpolate(point(1.0, 0.0), point(3.0, -2.0), 0.25)
    np.testing.assert_array_equal(middle["w"], [1.5, -0.5])
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), start)
    assert interpolate(half, half, 0.3)["w"].dtype == jnp.bfloat16


def test_a_path_has_the_losses_along_it_and_their_rise_above_the_chord():
    seen = []

    def cubic(params):
        seen.append(params)
        return float(params["w"][0]) ** 3

    losses = {
        # x from -1 to 2: x^3 lies below its chord where convex, above where concave.
        "cubic": cubic,
        "line": lambda p: 4.0 + 2.0 * float(p["w"][0]),
        "bump": lambda p: 1.0 - float(p["w"][1]) ** 2,
    }
    start, end = point(-1.0, -1.0), point(2.0, 1.0)
    path = linear_path(losses, start, end, points=7)
    assert same_bits(seen[0], start)
    assert same_bits(seen[-1], end)
    np.testing.assert_allclose(path.t, np.arange(7) / 6)
    x = -1 + 3 * path.t
    np.testing.assert_allclose(path.losses["cubic"], x**3, atol=1e-5)
    assert path.barrier["cubic"] == pytest.approx(
        max(x**3 - (-1 + 9 * path.t)), abs=1e-5
    )
    assert path.barrier["line"] == pytest.approx(0, abs=1e-6)
    assert path.barrier["bump"] == pytest.approx(1.0)
    valley = linear_path({"v": lambda p: float(p["w"][1]) ** 2}, start, end)
    assert valley.barrier == {"v": 0.0}
    given = linear_path(losses, start, end, points=[0, 0.5, 1])
    assert given.losses["bump"].tolist() == [0.0, 1.0, 0.0]
    # Backwards: the same values in the other order, the same barrier.
    back = linear_path({"cubic": cubic}, end, start, points=7)
    np.testing.assert_allclose(
        back.losses["cubic"], path.losses["cubic"][::-1], atol=1e-5
    )
    assert back.barrier["cubic"] == pytest.approx(path.barrier["cubic"], abs=1e-5)


def test_the_mix_holds_the_bar_with_the_least_of_the_original():
    original, unlearned = point(1.0, 5.0), point(0.0, 5.0)
    # w[0] of the mixture is rho: the score is 2 rho^2, its bar 2 tau.
    mix = calibrated_mix(
        original,
        unlearned,
        retain_score=lambda p: 2 * float(p["w"][0]) ** 2,
        tau=0.81,
        tolerance=1e-4,
    )
    assert mix.status == "reached"
    assert mix.bar == pytest.approx(1.62)
    assert 0.9 <= mix.rho <= 0.9 + 1e-4
    np.testing.assert_allclose(mix.params["w"], [mix.rho, 5.0], rtol=1e-6)
    assert all((t.score >= mix.bar) == (t.rho >= mix.rho) for t in mix.trials)
    assert len(mix.trials) <= 5 + np.ceil(np.log2(1 / (4 * 1e-4)))


def test_the_ends_of_mixing():
    original, unlearned = point(1.0, 5.0), point(0.0, 4.0)
    kept = calibrated_mix(original, unlearned, retain_score=lambda p: 1.0)
    assert (kept.status, kept.rho) == ("unneeded", 0.0)
    assert same_bits(kept.params, unlearned)
    # Nothing but the original itself is good enough, or even a number.
    only = calibrated_mix(
        original,
        unlearned,
        retain_score=lambda p: 1.0 if float(p["w"][1]) == 5.0 else float("nan"),
        tolerance=0.5,
    )
    assert (only.status, only.rho) == ("reached", 1.0)
    assert same_bits(only.params, original)
    # The bar is the original's: a better unlearned model does not raise it.
    better = calibrated_mix(
        original, unlearned, retain_score=lambda p: 6.0 - float(p["w"][1])
    )
    assert (better.status, better.bar) == ("unneeded", 0.95)


def test_a_score_that_dips_is_said_not_to_be_monotone():
    original, unlearned = point(1.0, 0.0), point(0.0, 0.0)

    def dips(params):
        rho = float(params["w"][0])
        return 0.0 if rho < 0.2 or 0.6 < rho < 0.9 else 1.0

    mix = calibrated_mix(original, unlearned, retain_score=dips)
    assert mix.status == "not_monotone"
    assert 0.2 <= mix.rho <= 0.2 + 1e-3
    assert dips(mix.params) == 1.0


def test_misuse(two):
    a, b = point(1.0, 0.0), point(0.0, 0.0)

    def one(params):
        return 1.0

    other = {**b, "b": jnp.zeros(2)}
    for compare in (
        parameter_distance,
        lambda x, y: interpolate(x, y, 0.5),
        lambda x, y: linear_path({"l": one}, x, y),
        lambda x, y: calibrated_mix(x, y, retain_score=one),
    ):
        with pytest.raises(ValueError, match=r"b is .*\[1\] in one .*\[2\] in the oth"):
            compare(a, other)
        with pytest.raises(ValueError, match="b is .* and absent in the other"):
            compare(a, {"w": a["w"]})
    with pytest.raises(ValueError, match="b is float32.* bfloat16"):
        interpolate(a, {**b, "b": jnp.zeros(1, jnp.bfloat16)}, 0.5)
    with pytest.raises(ValueError, match="t=nan"):
        interpolate(a, b, float("nan"))
    with pytest.raises(ValueError, match="losses is empty"):
        linear_path({}, a, b)
    for points in (1, [0.0], [0.0, 0.5], [0.0, 0.7, 0.2, 1.0], [0.1, 1.0]):
        with pytest.raises(ValueError, match="points="):
            linear_path({"l": one}, a, b, points=points)
    for options in ({"tau": 0.0}, {"tau": 1.1}, {"tolerance": 0.0}, {"intervals": 0}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            calibrated_mix(a, b, retain_score=one, **options)
    for score in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"retain_score\(original\)="):
            calibrated_mix(a, b, retain_score=lambda p, score=score: score)
