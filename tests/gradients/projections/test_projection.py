import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections.kronecker_pairs import matrices_hash
from jaxunlearn.gradients.projections.projection import (
    Block,
    Projection,
    check_matrices,
    project,
    row_layout,
)
from jaxunlearn.gradients.taps.outer_products import OuterProducts

GRADIENTS = {
    "head": jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 7)), "float32")
}
SHAPES = {"head": (5, 7)}
PCA = {"head": (jnp.eye(5, 2), jnp.eye(7, 3))}
PROJECTIONS = [
    Projection("dense", (6,)),
    Projection("dense", (6,), distribution="normal"),
    Projection("sparse", (6,), nonzeros=2),
    Projection("hadamard", (6,)),
    Projection("kronecker", (2, 3)),
    Projection("kronecker", (2, 3), distribution="normal"),
    Projection(
        "kronecker", (2, 3), distribution="pca", matrices_hash=matrices_hash(PCA)
    ),
]
IDS = [f"{p.kind}-{p.distribution}" for p in PROJECTIONS]


@pytest.fixture(params=PROJECTIONS, ids=IDS)
def projection(request):
    return request.param


def rows_of(projection, gradients=GRADIENTS):
    matrices = PCA if projection.distribution == "pca" else None
    return project(projection, gradients, shapes=SHAPES, matrices=matrices)


def test_it_comes_back_from_json_and_gives_the_same_bits(projection):
    text = json.dumps(dataclasses.asdict(projection))
    again = Projection(**json.loads(text))
    assert again == projection
    assert hash(again) == hash(projection)
    first = rows_of(projection)
    assert first.dtype == jnp.float32
    assert np.array_equal(first, rows_of(again))
    compiled = jax.jit(lambda g: rows_of(again, g))(GRADIENTS)
    np.testing.assert_allclose(compiled, first, rtol=1e-5, atol=1e-5)
    layout = row_layout(projection, SHAPES)
    assert first.shape == (3, sum(block.size for block in layout)) == (3, 6)
    if projection.distribution != "pca":
        other = rows_of(dataclasses.replace(projection, seed=1))
        assert not np.allclose(first, other)


def test_it_is_linear(projection):
    doubled = {"head": 2 * GRADIENTS["head"]}
    assert np.array_equal(rows_of(projection, doubled), 2 * rows_of(projection))


def test_the_layout_of_one_row():
    assert row_layout(Projection("dense", (9,))) == (Block("all", 0, 9),)
    assert row_layout(Projection(), SHAPES) == (Block("head", 0, 35),)


def test_a_tree_and_its_flat_names_are_one():
    tree = {"mlp": {"kernel": GRADIENTS["head"]}}
    flat = {"mlp/kernel": GRADIENTS["head"]}
    for given in (tree, flat):
        rows = project(Projection(), given, shapes={"mlp/kernel": (5, 7)})
        # 16 x 16 is wider than the matrix: nothing is projected away.
        np.testing.assert_allclose(rows, GRADIENTS["head"].reshape(3, 35), rtol=1e-6)


def test_a_projection_takes_no_other_arguments():
    for options, message in [
        ({"kind": "fourier"}, "kind='fourier': one of kronecker, dense, sparse, hada"),
        ({"dimensions": (4,)}, r"dimensions=\(4,\): kronecker takes 2"),
        ({"kind": "dense"}, r"dimensions=\(16, 16\): dense takes 1"),
        ({"dimensions": (4, 0)}, "each at least 1"),
        ({"distribution": "cauchy"}, "distribution='cauchy': one of rademacher, norm"),
        (
            {"kind": "dense", "dimensions": (4,), "distribution": "pca"},
            "distribution='pca': one of rademacher, normal, or pca for kronecker",
        ),
        ({"distribution": "pca"}, "matrices_hash=None: give the hash"),
        ({"matrices_hash": "0"}, "matrices_hash='0': give the hash .*and only with it"),
        (
            {"kind": "sparse", "dimensions": (9,), "nonzeros": 2},
            "nonzeros=2: must be at least 1 and divide 9",
        ),
        ({"nonzeros": 2}, "nonzeros=2 does not go with kronecker"),
        (
            {"kind": "hadamard", "dimensions": (8,), "distribution": "normal"},
            "distribution='normal' does not go with hadamard",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            Projection(**options)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="needs each parameter's matrix shape"):
        project(Projection(), GRADIENTS)
    with pytest.raises(ValueError, match="shapes={}: a Kronecker projection needs"):
        row_layout(Projection(), {})
    with pytest.raises(ValueError, match="matrices=None: a pca projection needs"):
        project(PROJECTIONS[-1], GRADIENTS, shapes=SHAPES)
    with pytest.raises(ValueError, match="holds no array: select at least one"):
        project(Projection("dense", (4,)), {})


def test_matrices_are_known_by_their_hash():
    check_matrices(PROJECTIONS[-1], PCA)
    check_matrices(Projection(), None)
    other = {"head": (jnp.eye(5, 2), 2 * jnp.eye(7, 3))}
    for projection, matrices in [
        (PROJECTIONS[-1], other),
        (PROJECTIONS[-1], None),
        (Projection(), PCA),
    ]:
        with pytest.raises(ValueError, match="use the matrices that it was made with"):
            check_matrices(projection, matrices)


def test_outer_products_need_no_gradient():
    rng = np.random.default_rng(1)
    left = jnp.asarray(rng.standard_normal((3, 4, 5)), jnp.float32)
    right = jnp.asarray(rng.standard_normal((3, 4, 7)), jnp.float32)
    formed = jnp.einsum("btl,btr->blr", left, right)
    projection = Projection("kronecker", (2, 3))
    factored = project(projection, {"head": OuterProducts(left, right)}, shapes=SHAPES)
    whole = project(projection, {"head": formed}, shapes=SHAPES)
    np.testing.assert_allclose(factored, whole, rtol=1e-4, atol=1e-5)
