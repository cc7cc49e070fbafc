"""Selective synaptic dampening, on losses whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning.edits.ssd import dampen, dampen_synapses
from jaxunlearn.unlearning.forms import Sets


def linear(params, batch):
    """Losses whose gradients are the inputs, wherever the parameters stand."""
    return (batch["x"] * params["w"]).sum(-1) + batch["y"] * params["b"]


def of(x, y, weight=None):
    rows = {"x": np.array(x, np.float32), "y": np.array(y, np.float32)}
    if weight is not None:
        rows["weight"] = np.array(weight, np.float32)
    return rows


PARAMS = {"b": jnp.float32(-3.0), "w": jnp.array([2.0, -0.7, 0.0], jnp.float32)}
FORGET = [of([[3.0, 1.0, 1.0], [1.0, 1.0, 9.0]], [0.0, 4.0])]
RETAIN = [
    of([[0.1, 2.0, 0.0]] * 3, [0.0, 0.0, 0.5]),
    # The last row is padding, with garbage in it.
    of([[0.3, 1.0, 0.0], [0.2, 1.5, 0.0], [99.0, 99.0, 99.0]], [0, 0, 99], [1, 1, 0]),
]
SETS = Sets(FORGET, RETAIN)


def by_hand(alpha, lambda_=1.0, exponent=1.0):
    """The equations in float64, from the gradients themselves."""
    forget = np.array([[3.0, 1.0, 1.0, 0.0], [1.0, 1.0, 9.0, 4.0]])
    retain = np.array(
        [
            [0.1, 2.0, 0.0, 0.0],
            [0.1, 2.0, 0.0, 0.0],
            [0.1, 2.0, 0.0, 0.5],
            [0.3, 1.0, 0.0, 0.0],
            [0.2, 1.5, 0.0, 0.0],
        ]
    )
    f = (forget**2).mean(0)
    d = (np.concatenate([forget, retain]) ** 2).mean(0)
    theta = np.array([2.0, -0.7, 0.0, -3.0])
    factor = np.minimum((lambda_ * d / f) ** exponent, 1.0)
    return np.where(f > alpha * d, theta * factor, theta), f > alpha * d


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 2.0},
        {"alpha": 3.45},
        {"alpha": 2.0, "lambda_": 0.3},
        {"alpha": 0.1, "lambda_": 2.0},
        {"alpha": 1.0, "exponent": 0.5},
        {"alpha": 1.0, "lambda_": 0.0},
    ],
)
def test_it_is_the_papers_equation(options):
    found = dampen_synapses(linear, PARAMS, SETS, layers=".", **options)
    expected, _ = by_hand(**options)
    np.testing.assert_allclose(found["w"], expected[:3], rtol=2e-6)
    np.testing.assert_allclose(found["b"], expected[3], rtol=2e-6)


def test_the_published_golden_value():
    importance = jnp.array([5.0, 20.0, 10.0, 200.0])
    found = dampen(jnp.ones(4), importance, jnp.ones(4), alpha=10.0, lambda_=1.0)
    np.testing.assert_array_equal(found, np.array([1, 0.05, 1, 0.005], np.float32))


def test_what_is_not_selected_stays_to_the_bit():
    importance = jax.tree.map(lambda x: jnp.abs(x) + 1.0, PARAMS)
    for alpha in (1.0, 1e6, float("inf")):
        found = dampen(PARAMS, importance, importance, alpha=alpha)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    _, selected = by_hand(2.0)
    found = dampen_synapses(linear, PARAMS, SETS, layers=".", alpha=2.0)
    assert selected.tolist() == [True, False, True, True]
    assert found["w"][1] == PARAMS["w"][1]
    assert found["w"][0] != PARAMS["w"][0]


def test_other_layers_stay_to_the_bit():
    found = dampen_synapses(linear, PARAMS, SETS, layers="^w$", alpha=2.0)
    assert found["b"] == PARAMS["b"]
    np.testing.assert_allclose(found["w"], by_hand(2.0)[0][:3], rtol=2e-6)


def test_it_does_not_depend_on_the_batches():
    whole = dampen_synapses(linear, PARAMS, SETS, layers=".", alpha=2.0)
    rows = jax.tree.map(lambda x: x[:, None], FORGET[0])
    one_by_one = [jax.tree.map(lambda x, i=i: x[i], rows) for i in range(2)]
    cut = dampen_synapses(
        linear, PARAMS, Sets(one_by_one, RETAIN), layers=".", alpha=2.0
    )
    for a, b in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_16_bit_parameters_stay_in_their_dtype():
    low = tree.cast(PARAMS, "bfloat16")
    found = dampen_synapses(linear, low, SETS, layers=".", alpha=2.0)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.bfloat16.dtype}
    np.testing.assert_allclose(
        np.asarray(found["w"], np.float32), by_hand(2.0)[0][:3], rtol=2**-7
    )
    assert found["w"][1] == low["w"][1]


@pytest.mark.parametrize("alpha", [3.51, float("inf")])
def test_where_nothing_is_selected_the_error_says_what_would_be(alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha}: no parameter.* 3.5 times"):
        dampen_synapses(linear, PARAMS, SETS, layers=".", alpha=alpha)


def test_where_nothing_matters_to_anything():
    importance = jnp.array([0.0, 0.0, 1.0])
    found = dampen(jnp.ones(3), importance, jnp.zeros(3), alpha=10.0)
    assert found.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["alpha", "lambda_", "exponent"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_numbers_without_meaning(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be at least 0"):
        dampen_synapses(linear, PARAMS, SETS, layers=".", **{name: value})
