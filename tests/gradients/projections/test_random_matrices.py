import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients.projections import random_matrices as random_projections
from jaxunlearn.gradients.projections.random_matrices import (
    named_keys,
    project_dense,
    project_hadamard,
    project_sparse,
    random_rows,
    walsh_hadamard,
)

KEY = jax.random.key(0)
LENGTH = 90
DIMENSION = 24


def hadamard_in_pieces(gradients, dimension, *, key):
    with mock.patch.object(random_projections, "HADAMARD_LENGTH", 32):
        return project_hadamard(gradients, dimension, key=key)


dense = jax.jit(
    project_dense, static_argnames=("dimension", "distribution", "block_size")
)
sparse = jax.jit(project_sparse, static_argnames=("dimension", "nonzeros"))
PROJECTIONS = {
    "rademacher": functools.partial(dense, distribution="rademacher"),
    "normal": functools.partial(dense, distribution="normal"),
    "sparse": functools.partial(sparse, nonzeros=4),
    "hadamard": jax.jit(project_hadamard, static_argnames=("dimension",)),
    "pieces": jax.jit(hadamard_in_pieces, static_argnames=("dimension",)),
}


@pytest.fixture(scope="module")
def vectors():
    """Five gradients of 90 numbers: two alike, a constant, one and two entries."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((3, LENGTH)) * rng.lognormal(0, 1, LENGTH)
    dense[1] += dense[0]
    dense[2] = 1.0
    few = np.zeros((2, LENGTH))
    few[0, 17] = few[1, 17] = 3.0
    few[1, 81] = -2.0
    return jnp.asarray(np.concatenate([dense, few]), jnp.float32)


@pytest.fixture(scope="module", params=PROJECTIONS)
def project(request):
    return PROJECTIONS[request.param]


@pytest.fixture(scope="module")
def grams(project, vectors):
    """Gram matrices of the projected vectors, under 2,000 keys."""

    def gram(key):
        rows = project(vectors, DIMENSION, key=key)
        return rows @ rows.T

    keys = jax.random.split(KEY, 2000)
    return np.asarray(jax.jit(jax.vmap(gram))(keys), np.float64)


def test_inner_products_are_unbiased(grams, vectors):
    exact = np.asarray(vectors, np.float64) @ np.asarray(vectors, np.float64).T
    error = grams.std(axis=0) / np.sqrt(len(grams))
    # Of 75 entries the worst stays within 5 standard errors (p = 4e-5).
    assert (np.abs(grams.mean(axis=0) - exact) <= 5 * error + 1e-5).all()


def test_the_distortion_is_that_of_johnson_and_lindenstrauss(grams, vectors):
    norms = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    distortion = grams / np.outer(norms, norms)
    exact = np.asarray(vectors @ vectors.T) / np.outer(norms, norms)
    # Var <Pg, Ph> <= 2 / k for unit vectors, here with 4 of its own standard errors.
    variance = ((distortion - exact) ** 2).mean(axis=0)
    assert (variance <= 2 / DIMENSION * (1 + 4 * np.sqrt(8 / len(grams)))).all()


def test_the_same_key_gives_the_same_bits(project, vectors):
    first = project(vectors, DIMENSION, key=KEY)
    assert first.shape == (5, DIMENSION)
    assert np.array_equal(first, project(vectors, DIMENSION, key=KEY))
    other = project(vectors, DIMENSION, key=jax.random.key(1))
    assert not np.allclose(first, other)


def test_each_example_travels_alone(project, vectors):
    together = project(vectors, DIMENSION, key=KEY)
    turned = project(vectors[::-1], DIMENSION, key=KEY)[::-1]
    np.testing.assert_allclose(together, turned, rtol=1e-5, atol=1e-5)
    lonely = project(vectors.at[1:].set(0), DIMENSION, key=KEY)
    np.testing.assert_allclose(together[0], lonely[0], rtol=1e-5, atol=1e-5)
    assert not lonely[1:].any()


def test_a_tree_is_the_sum_of_its_leaves_whatever_their_order(project, vectors):
    a, b = vectors[:, :45], vectors[:, 45:]
    whole = project({"a": {"kernel": a.reshape(5, 9, 5)}, "b": b}, DIMENSION, key=KEY)
    turned = project({"b": b, "a": {"kernel": a.reshape(5, 9, 5)}}, DIMENSION, key=KEY)
    assert np.array_equal(whole, turned)
    parts = [
        project({"a": {"kernel": 0 * a.reshape(5, 9, 5)}, "b": b}, DIMENSION, key=KEY),
        project({"a": {"kernel": a.reshape(5, 9, 5)}, "b": 0 * b}, DIMENSION, key=KEY),
    ]
    np.testing.assert_allclose(whole, parts[0] + parts[1], rtol=1e-5, atol=1e-5)
    # Leaves of equal values are projected independently.
    twins = {"a": {"kernel": -b.reshape(5, 9, 5)}, "b": b}
    assert np.abs(project(twins, DIMENSION, key=KEY)).max() > 1e-3


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_the_matrix_does_not_depend_on_the_block(vectors, distribution):
    options = {"key": KEY, "distribution": distribution}
    whole = dense(vectors, DIMENSION, block_size=1000, **options)
    for block_size in (37, 90):
        found = dense(vectors, DIMENSION, block_size=block_size, **options)
        np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)
    matrix = random_rows(
        named_keys(KEY, [""])[0],
        jnp.arange(LENGTH),
        DIMENSION,
        distribution=distribution,
    )
    expected = vectors @ matrix / np.sqrt(DIMENSION)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)


def test_the_matrix_never_exists_whole():
    """Of 4,000,000 x 4096 numbers (65 GB), only a block is in memory."""
    shape = jax.ShapeDtypeStruct((1, 4_000_000), jnp.float32)
    compiled = jax.jit(lambda g: project_dense(g, 4096, key=KEY)).lower(shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 200e6


@pytest.mark.parametrize("dimension", [1, 32, 33])
def test_random_entries_have_mean_0_and_variance_1(dimension):
    numbers = jnp.arange(-(-40_000 // dimension))
    for distribution in ("rademacher", "normal"):
        rows = random_rows(KEY, numbers, dimension, distribution=distribution)
        assert rows.shape == (len(numbers), dimension)
        assert abs(float(rows.mean())) < 4 / np.sqrt(rows.size)
        assert abs(float((rows**2).mean()) - 1) < 4 * np.sqrt(2 / rows.size)
        if distribution == "rademacher":
            assert set(np.unique(rows)) == {-1.0, 1.0}
    # A row is the same whichever rows are drawn beside it.
    again = random_rows(KEY, numbers[3:5], dimension, distribution="normal")
    assert np.array_equal(again, rows[3:5])


@pytest.mark.parametrize("length", [1, 2, 8, 64, 128, 8192])
def test_walsh_hadamard_is_scipys_and_its_own_inverse(length):
    from scipy.linalg import hadamard

    x = np.random.default_rng(0).standard_normal((2, length)).astype(np.float32)
    found = walsh_hadamard(jnp.asarray(x))
    tolerance = 1e-6 * length
    if length <= 128:
        np.testing.assert_allclose(found, x @ hadamard(length), atol=tolerance)
    np.testing.assert_allclose(walsh_hadamard(found) / length, x, atol=1e-5)


def test_hadamard_of_the_full_length_is_a_rotation(vectors):
    rows = PROJECTIONS["hadamard"](vectors[:, :64], 64, key=KEY)
    exact = vectors[:, :64] @ vectors[:, :64].T
    np.testing.assert_allclose(rows @ rows.T, exact, rtol=1e-4, atol=1e-4)


def test_a_sparse_coordinate_goes_to_s_entries():
    for nonzeros in (1, 4):
        rows = sparse(3.0 * jnp.eye(LENGTH), DIMENSION, key=KEY, nonzeros=nonzeros)
        parts = np.reshape(rows, (LENGTH, nonzeros, -1))
        assert ((parts != 0).sum(axis=2) == 1).all()
        found = parts[parts != 0]
        np.testing.assert_allclose(np.abs(found), 3.0 / np.sqrt(nonzeros), rtol=1e-6)
    # In each part another one, but for chance: 1 in 6.
    places = np.abs(parts).argmax(axis=2)
    assert (places == places[:, :1]).all(axis=1).mean() < 0.1


def test_low_precision_gradients_are_summed_in_float32(project):
    ones = jnp.ones((5, LENGTH), jnp.bfloat16)
    low = project(ones, DIMENSION, key=KEY)
    assert low.dtype == jnp.float32
    exact = project(ones.astype(jnp.float32), DIMENSION, key=KEY)
    np.testing.assert_allclose(low, exact, rtol=1e-5, atol=1e-5)


def test_misuse_is_an_error(vectors):
    with pytest.raises(ValueError, match="dimension=0: must be at least 1"):
        project_dense(vectors, 0, key=KEY)
    with pytest.raises(ValueError, match="dimension=0"):
        project_hadamard(vectors, 0, key=KEY)
    with pytest.raises(ValueError, match="block_size=0: must be at least 1"):
        project_dense(vectors, 4, key=KEY, block_size=0)
    with pytest.raises(ValueError, match="distribution='cauchy': one of rademacher, n"):
        project_dense(vectors, 4, key=KEY, distribution="cauchy")
    for nonzeros in (0, 3, 8):
        with pytest.raises(ValueError, match="must be at least 1 and divide dimension"):
            project_sparse(vectors, 4, key=KEY, nonzeros=nonzeros)
