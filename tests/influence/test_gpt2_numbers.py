"""GPT-2's numbers, whatever JAX it runs on: all leaves tapped, and the golden values.

``tests/golden/make_gpt2_influence.py`` made these without a tap, in float64.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxunlearn import influence, tree
from jaxunlearn.gradients import Projection, gradient_products, layer_taps
from jaxunlearn.gradients.per_example import per_example_norms
from jaxunlearn.models.gpt2 import GPT2, GPT2Config

GOLDEN = Path(__file__).parent.parent / "golden" / "gpt2_influence.npz"
SHAPE = dict(vocab_size=97, n_positions=6, n_embd=16, n_layer=3, n_head=2)
EXAMPLES, QUERIES = 5, 2
ROUNDING = 32 * float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def made(**options):
    """Return the loss, parameters, training examples and queries of the golden file."""
    model = GPT2(GPT2Config(**SHAPE, **options))
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))
    random = np.random.default_rng(0)
    leaves = {
        name: 0.3 * random.normal(size=leaf.shape) + name.endswith("scale")
        for name, leaf in tree.named_leaves(shapes)
    }
    params = jax.tree.unflatten(
        jax.tree.structure(shapes), [x.astype(np.float32) for x in leaves.values()]
    )
    ids = random.integers(0, 97, (EXAMPLES + QUERIES, 6)).astype(np.int32)
    train, query = (
        {"input_ids": x, "labels": x} for x in (ids[:EXAMPLES], ids[EXAMPLES:])
    )
    return model.per_example_loss, params, train, query


@pytest.fixture(scope="module")
def network():
    return made()


def close(found, expected, tolerance):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("remat", [False, True])
def test_all_leaves_are_tapped(remat):
    loss, params, train, _ = made(remat=remat)
    found = {}

    def trace(params, train):
        taps = layer_taps(loss, params, train)
        found.update(untapped=taps.untapped, products=taps.products, views=taps.views)

    jax.eval_shape(trace, params, train)
    assert found["untapped"] == ()
    leaves = dict(tree.named_leaves(params))
    assert set(found["views"]) == set(found["products"]) == set(leaves)
    for name, view in found["views"].items():
        assert view.stack == ((3,) if name.startswith("h/") else ()), name
        assert np.prod((*view.stack, view.rows, view.columns)) == leaves[name].size
    # The tied matrix is seen where it is looked up and where it is multiplied by.
    assert len(found["products"]["wte/embedding"]) == 2


def test_products_and_norms(network, golden):
    loss, params, train, query = network
    found = influence.scores(loss, params, train, query, method="gradient_dot")
    close(found.scores, golden["products"], ROUNDING)
    close(gradient_products(loss, params, train, query), golden["products"], ROUNDING)
    close(per_example_norms(loss, params, train), golden["norms"], ROUNDING)
    assert found.coverage["tapped"] == found.coverage["of"] == 11_520


def test_ekfac(network, golden):
    loss, params, train, query = network
    found = influence.scores(
        loss, params, train, query, method="ekfac", layers="/(attn|mlp)/"
    )
    close(found.scores, golden["ekfac"], 1e-4)
    assert found.coverage["tapped"] == found.coverage["parameters"] == 9_648


def test_a_row_of_an_index(network, golden):
    """As many numbers as the layers have, 3 by 2 of each at most: not one more."""
    loss, params, train, _ = network
    projection = Projection(dimensions=(3, 2))
    given = (loss, params, train, projection)
    blocks = influence.gradient_row_layout(*given)
    # 12 leaves a block, 3 blocks: kernels 6 numbers, biases and scales 2.
    assert len(blocks) == 3 * 12 + 4
    assert sum(block.size for block in blocks) == 3 * (4 * 6 + 8 * 2) + 2 + 2 + 6 + 6
    rows = influence.projected_gradients(*given)
    assert rows.shape == golden["rows"].shape == (EXAMPLES, 136)
    close(rows, golden["rows"], ROUNDING)
