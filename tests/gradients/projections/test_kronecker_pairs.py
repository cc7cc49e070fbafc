import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections.kronecker_pairs import (
    Block,
    kronecker_layout,
    kronecker_matrices,
    matrices_hash,
    pca_matrices,
    project_kronecker,
    stack_matrices,
)
from jaxunlearn.gradients.taps.outer_products import OuterProducts

KEY = jax.random.key(0)
B, T, D, V, N = 3, 5, 6, 11, 2
DIMENSIONS = (3, 4)
H = ("h",)
SHAPES = {
    "wte/embedding": (V, D),
    "h/mlp/kernel": (N, D, 8),
    "h/mlp/bias": (N, 1, 8),
    "head": (D, 2),
}


def outer(part):
    """The gradient that a part's factors stand for, token by token."""
    left, right = part
    if left is None:
        left = jnp.ones((*right.shape[:2], 1))
    elif jnp.issubdtype(left.dtype, jnp.integer):
        left = jax.nn.one_hot(left, V)
    return jnp.einsum("btl,btr->blr", left, right)


@pytest.fixture(scope="module")
def factors():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return {
        "wte/embedding": (
            OuterProducts(jnp.asarray(rng.integers(0, V, (B, T))), draw(B, T, D)),
            OuterProducts(draw(B, T, V), draw(B, T, D)),
        ),
        "h/mlp/kernel": (OuterProducts(draw(N, B, T, D), draw(N, B, T, 8)),),
        "h/mlp/bias": OuterProducts(None, draw(N, B, T, 8)),
        "head": OuterProducts(draw(B, T, D), draw(B, T, 2)),
    }


@pytest.fixture(scope="module")
def gradients(factors):
    """The same gradients formed, [B,...] or [B,N,...]."""
    formed = {}
    for name, parts in factors.items():
        parts = (parts,) if isinstance(parts, OuterProducts) else parts
        if len(SHAPES[name]) == 3:
            grads = sum(jax.vmap(outer, out_axes=1)(part) for part in parts)
            formed[name] = grads[:, :, 0] if name.endswith("bias") else grads
        else:
            formed[name] = sum(map(outer, parts))
    return formed


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_factored_is_the_kronecker_product_times_the_gradient(
    factors, gradients, distribution
):
    matrices = kronecker_matrices(
        SHAPES, DIMENSIONS, key=KEY, distribution=distribution
    )
    factored = project_kronecker(factors, SHAPES, matrices)
    formed = project_kronecker(gradients, SHAPES, matrices)
    np.testing.assert_allclose(factored, formed, rtol=1e-4, atol=1e-4)
    layout = kronecker_layout(SHAPES, DIMENSIONS, stacked=H)
    assert [block.layer for block in layout] == [
        "h/0/mlp/bias",
        "h/1/mlp/bias",
        "h/0/mlp/kernel",
        "h/1/mlp/kernel",
        "head",
        "wte/embedding",
    ]
    for layer, offset, size in layout:
        name = layer.replace("h/0/", "h/").replace("h/1/", "h/")
        left, right = matrices[name]
        gradient = gradients[name]
        if name != layer:
            number = int(layer.split("/")[1])
            left, right, gradient = left[number], right[number], gradient[:, number]
        expected = gradient.reshape(B, -1) @ jnp.kron(left, right)
        found = factored[:, offset : offset + size]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_inner_products_are_unbiased_and_of_kronecker_distortion(gradients):
    names = ["h/mlp/kernel", "wte/embedding"]
    shapes = {name: SHAPES[name] for name in names}
    chosen = {name: gradients[name] for name in names}

    def gram(key, distribution):
        matrices = kronecker_matrices(
            shapes, DIMENSIONS, key=key, distribution=distribution
        )
        rows = project_kronecker(chosen, shapes, matrices)
        return rows @ rows.T

    flat = np.concatenate([np.reshape(chosen[n], (B, -1)) for n in names], axis=1)
    exact = flat @ flat.T
    norms = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    for distribution in ("rademacher", "normal"):
        sample = jax.jit(jax.vmap(functools.partial(gram, distribution=distribution)))
        grams = np.asarray(sample(jax.random.split(KEY, 2000)), np.float64)
        error = grams.std(axis=0) / np.sqrt(len(grams))
        assert (np.abs(grams.mean(axis=0) - exact) < 4 * error).all()
        # One side alone has variance 2 / k; both, (1 + 2/k)(1 + 2/m) - 1 at most.
        variance = ((grams - exact) ** 2).mean(axis=0) / norms**2
        assert (variance < (1 + 2 / 3) * (1 + 2 / 4) - 1).all()


def test_a_layers_matrices_depend_on_its_name_alone():
    everything = kronecker_matrices(SHAPES, DIMENSIONS, key=KEY, stacked=H)
    turned = dict(reversed(SHAPES.items()))
    again = kronecker_matrices(turned, DIMENSIONS, key=KEY, stacked=H)
    for name in SHAPES:
        for side in (0, 1):
            assert np.array_equal(again[name][side], everything[name][side])
    # The same layer alone, and not stacked.
    one = kronecker_matrices({"h/1/mlp/kernel": (D, 8)}, DIMENSIONS, key=KEY)
    for side in (0, 1):
        stacked = everything["h/mlp/kernel"][side]
        assert np.array_equal(one["h/1/mlp/kernel"][side], stacked[1])
        assert not np.array_equal(stacked[0], stacked[1])
    square = kronecker_matrices({"a": (9, 9)}, (4, 4), key=KEY)["a"]
    assert not np.array_equal(*square)


def test_a_side_no_wider_than_its_dimension_is_kept(factors, gradients):
    matrices = kronecker_matrices(SHAPES, (V, D + 2), key=KEY, stacked=H)
    rows = project_kronecker(factors, SHAPES, matrices)
    names = sorted(SHAPES)
    flat = np.concatenate([np.reshape(gradients[n], (B, -1)) for n in names], axis=1)
    np.testing.assert_allclose(rows, flat, rtol=1e-4, atol=1e-4)


def test_pca_keeps_what_varies():
    rng = np.random.default_rng(0)
    left_basis = np.linalg.qr(rng.standard_normal((7, 2)))[0]
    right_basis = np.linalg.qr(rng.standard_normal((9, 3)))[0]
    left = rng.standard_normal((20, 4, 2)) @ left_basis.T
    right = rng.standard_normal((20, 4, 3)) @ right_basis.T
    covariances = [np.einsum("btl,btm->lm", x, x) / 80 for x in (left, right)]
    matrices = pca_matrices(*covariances, (2, 3))
    for side in matrices:
        width = side.shape[1]
        np.testing.assert_allclose(side.T @ side, np.eye(width), atol=1e-5)
    products = OuterProducts(jnp.asarray(left, "f4"), jnp.asarray(right, "f4"))
    rows = project_kronecker({"a": products}, {"a": (7, 9)}, {"a": matrices})
    flat = np.einsum("btl,btr->blr", left, right).reshape(20, -1)
    # Gradients in the subspace keep all inner products: no random projection does.
    np.testing.assert_allclose(rows @ rows.T, flat @ flat.T, atol=1e-4)
    for side, wide in zip(pca_matrices(*covariances, (8, 9)), (7, 9), strict=True):
        assert np.array_equal(side, np.eye(wide))
    counts = jnp.asarray([0.0, 5.0, 1.0, 9.0])
    lookup, _ = pca_matrices(counts, jnp.eye(3), (2, 2))
    assert np.array_equal(lookup, np.eye(4)[:, [3, 1]])


def test_given_matrices_are_stacked_layer_by_layer(gradients):
    drawn = kronecker_matrices(SHAPES, DIMENSIONS, key=KEY, stacked=H)
    by_layer = {
        "wte/embedding": drawn["wte/embedding"],
        "head": drawn["head"],
    } | {
        f"h/{i}/mlp/{leaf}": tuple(side[i] for side in drawn[f"h/mlp/{leaf}"])
        for i in range(N)
        for leaf in ("kernel", "bias")
    }
    stacked = stack_matrices(SHAPES, by_layer, stacked=H)
    assert np.array_equal(
        project_kronecker(gradients, SHAPES, stacked),
        project_kronecker(gradients, SHAPES, drawn),
    )
    order = dict(reversed(by_layer.items()))
    assert matrices_hash(by_layer) == matrices_hash(order)
    changed = by_layer | {"head": (drawn["head"][0], 2 * drawn["head"][1])}
    assert matrices_hash(by_layer) != matrices_hash(changed)
    with pytest.raises(ValueError, match=r"matrices\['head'\] project widths \(6, 3\)"):
        stack_matrices(SHAPES, by_layer | {"head": (jnp.eye(6), jnp.eye(3))}, stacked=H)
    del by_layer["h/1/mlp/bias"]
    with pytest.raises(ValueError, match="matrices lacks h/1/mlp/bias: give"):
        stack_matrices(SHAPES, by_layer, stacked=H)


def test_a_row_is_laid_out_without_gaps():
    layout = kronecker_layout(SHAPES | {"scan/bias": (2, 1, 3)}, DIMENSIONS, stacked=H)
    assert layout[0].offset == 0
    for before, after in zip(layout, layout[1:], strict=False):
        assert after.offset == before.offset + before.size
    assert layout[-3:-1] == (Block("scan/bias/0", 38, 3), Block("scan/bias/1", 41, 3))
    assert layout[-1] == Block("wte/embedding", 44, 12)
    with pytest.raises(ValueError, match=r"shapes\['b'\]=\(4,\): expected a matrix"):
        kronecker_layout({"b": (4,)}, DIMENSIONS)
    with pytest.raises(ValueError, match="dimension=0: must be at least 1"):
        kronecker_layout(SHAPES, (0, 4))


def test_gradients_and_shapes_must_name_the_same(gradients):
    matrices = kronecker_matrices(SHAPES, DIMENSIONS, key=KEY, stacked=H)
    fewer = {name: g for name, g in gradients.items() if name != "head"}
    with pytest.raises(ValueError, match="only one of them has head"):
        project_kronecker(fewer, SHAPES, matrices)
