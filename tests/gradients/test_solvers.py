"""Laws of all solvers: what they return is the solution of the dense system."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients import solvers
from jaxunlearn.gradients.mean_products import restricted
from jaxunlearn.gradients.solvers import Status

EPS = np.finfo(np.float32).eps
SIZE = 30
SHAPES = {"a": (4, 5), "h": {"kernel": (2, 3), "bias": (4,)}}
DAMPING = 0.1
KEY = jax.random.key(0)


def unflatten(flat):
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda x: type(x) is tuple)
    parts = np.split(flat, np.cumsum([np.prod(s) for s in leaves])[:-1])
    parts = [
        jnp.asarray(p.reshape(s), jnp.float32)
        for p, s in zip(parts, leaves, strict=True)
    ]
    return structure.unflatten(parts)


def flatten(value):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(value)])


def with_spectrum(spectrum, seed=0):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
    return (q * spectrum) @ q.T


def linear_map(matrix):
    matrix = jnp.asarray(matrix, jnp.float32)

    def product(vector):
        flat, back = jax.flatten_util.ravel_pytree(vector)
        return back(matrix @ flat)

    return product


RIGHT_SIDE = np.random.default_rng(1).standard_normal(SIZE)
B = unflatten(RIGHT_SIDE)
POSITIVE = with_spectrum(np.geomspace(0.1, 5, SIZE))
RANK_FIVE = with_spectrum(np.r_[[1, 2, 3, 4, 5], np.zeros(SIZE - 5)])
GRADIENTS = np.random.default_rng(2).standard_normal((7, SIZE))
G = jax.vmap(lambda row: jax.tree.map(jnp.asarray, row))(
    jax.tree.map(lambda *x: jnp.stack(x), *[unflatten(row) for row in GRADIENTS])
)
EMPIRICAL_FISHER = GRADIENTS.T @ GRADIENTS / 7


def dense(matrix, damping=DAMPING, right_side=RIGHT_SIDE):
    return np.linalg.solve(matrix + damping * np.eye(SIZE), right_side)


def system(matrix, mask=None):
    """Everything that one or another solver knows a matrix by, chosen leaves only."""
    mask = jax.tree.map(lambda x: np.ones(x.shape, bool), B) if mask is None else mask
    return {
        "mask": jax.tree.map(np.broadcast_to, mask, SHAPES),
        "matrix": jnp.asarray(matrix, jnp.float32),
        "diagonal": tree.masked(unflatten(np.diag(matrix)), mask),
        "gradients": jax.vmap(lambda g: tree.masked(g, mask))(G),
    }


def product_of(s):
    return restricted(linear_map(s["matrix"]), s["mask"])


# Every exact solver, and the matrix whose system it can solve exactly.
EXACT = {
    "cg": (
        POSITIVE,
        lambda s, b, d: solvers.cg(product_of(s), b, damping=d, tolerance=1e-5),
    ),
    "lissa": (
        POSITIVE,
        lambda s, b, d: solvers.lissa(
            product_of(s), b, damping=d, key=KEY, tolerance=1e-5
        ),
    ),
    "lanczos": (
        RANK_FIVE,
        lambda s, b, d: solvers.lanczos(product_of(s), b, damping=d, rank=5, key=KEY),
    ),
    "nystroem": (
        RANK_FIVE,
        lambda s, b, d: solvers.nystroem(product_of(s), b, damping=d, rank=8, key=KEY),
    ),
    "woodbury_dual": (
        EMPIRICAL_FISHER,
        lambda s, b, d: solvers.woodbury_dual(s["gradients"], b, damping=d),
    ),
    "diagonal": (
        np.diag(np.arange(1.0, SIZE + 1)),
        lambda s, b, d: solvers.diagonal(s["diagonal"], b, damping=d),
    ),
}
COMPILED = {name: jax.jit(solve) for name, (_, solve) in EXACT.items()}


@pytest.fixture(params=EXACT, scope="module")
def exact(request):
    matrix = EXACT[request.param][0]
    known = system(matrix)
    return matrix, lambda b, d=DAMPING: COMPILED[request.param](known, b, d)


def assert_solves(found, matrix, right_side=RIGHT_SIDE, damping=DAMPING):
    assert solvers.message(found.status).startswith("CONVERGED")
    expected = dense(matrix, damping, right_side)
    error = np.linalg.norm(flatten(found.value) - expected)
    # An error in x is at most the relative residual times the condition number.
    eigenvalues = np.linalg.eigvalsh(matrix) + damping
    condition = eigenvalues[-1] / eigenvalues[0]
    assert error <= 2 * condition * 1e-5 * np.linalg.norm(expected)
    assert {x.dtype for x in jax.tree.leaves(found.value)} == {jnp.float32.dtype}


def test_exact_solvers_meet_the_dense_solution(exact):
    matrix, solve = exact
    found = solve(B)
    assert_solves(found, matrix)
    assert found.damping == np.float32(DAMPING)
    image = (matrix + DAMPING * np.eye(SIZE)) @ flatten(found.value)
    residual = np.linalg.norm(image - RIGHT_SIDE) / np.linalg.norm(RIGHT_SIDE)
    np.testing.assert_allclose(found.residual, residual, rtol=0.2, atol=20 * EPS)


def test_a_right_side_of_zero_gives_zero(exact):
    found = exact[1](tree.zeros_like(B))
    assert not flatten(found.value).any()
    assert found.residual == 0
    assert found.status == Status.CONVERGED


@pytest.mark.parametrize("name", ["cg", "woodbury_dual", "diagonal"])
def test_a_right_side_of_bfloat16_is_widened(name):
    matrix = EXACT[name][0]
    low = tree.cast(B, jnp.bfloat16)
    widened = flatten(tree.cast(low, jnp.float32))
    found = COMPILED[name](system(matrix), low, DAMPING)
    assert_solves(found, matrix, right_side=widened)


def test_a_nan_is_told(exact):
    bad = {**B, "a": B["a"].at[0, 0].set(jnp.nan)}
    found = exact[1](bad)
    assert solvers.message(found.status).startswith("NOT_FINITE")


def test_scaling_both_sides_scales_nothing_else(exact):
    """(A + d I) (c x) = c b: dot products must not over- or underflow."""
    matrix, solve = exact
    found = solve(tree.scaled(1e-12, B))
    assert_solves(found, matrix, right_side=1e-12 * RIGHT_SIDE)


@pytest.mark.parametrize("name", EXACT)
def test_solving_on_chosen_leaves_only(name):
    matrix = EXACT[name][0]
    mask = tree.select(B, "^a$|^h/1/kernel", stacked=("h",))
    known = system(matrix, mask)
    chosen = flatten(known["mask"])
    right_side = tree.masked(B, mask)
    if name in ("lanczos", "nystroem"):  # these draw at random: they must know
        solve = getattr(solvers, name)
        options = dict(damping=DAMPING, rank=8, key=KEY, mask=mask)
        found = jax.jit(lambda s, b: solve(product_of(s), b, **options))(
            known, right_side
        )
    else:
        found = COMPILED[name](known, right_side, DAMPING)
    value = flatten(found.value)
    assert not value[~chosen].any()
    part = matrix[np.ix_(chosen, chosen)] + DAMPING * np.eye(chosen.sum())
    expected = np.linalg.solve(part, RIGHT_SIDE[chosen])
    np.testing.assert_allclose(value[chosen], expected, rtol=1e-3, atol=1e-4)
    assert found.status == Status.CONVERGED


def test_many_right_sides_by_vmap():
    product = linear_map(POSITIVE)
    sides = jax.tree.map(lambda x: jnp.stack([x, 0 * x, -3 * x, x**2]), B)
    solve = jax.jit(
        jax.vmap(lambda b: solvers.cg(product, b, damping=DAMPING, tolerance=1e-5))
    )
    found = solve(sides)
    for i in range(4):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        assert_solves(one, POSITIVE, flatten(jax.tree.map(lambda x, i=i: x[i], sides)))
    assert found.iterations[1] == 0


def test_every_status_has_a_message():
    for status in Status:
        assert solvers.message(jnp.int32(status)).startswith(f"{status.name}: ")


def test_identity_returns_the_right_side():
    found = solvers.identity(tree.cast(B, jnp.bfloat16))
    np.testing.assert_allclose(flatten(found.value), RIGHT_SIDE, rtol=2**-8)
    assert (found.status, found.residual, found.damping) == (0, 0, 1)


@pytest.mark.parametrize(
    ("solve", "words"),
    [
        (lambda m: solvers.cg(m, B, damping=-1.0), "damping=-1.0: must be at least 0"),
        (lambda m: solvers.cg(m, B, damping=float("nan")), "damping=nan"),
        (lambda m: solvers.cg(m, B, damping=0.1, tolerance=-1), "tolerance=-1"),
        (lambda m: solvers.cg(m, B, damping=0.1, max_steps=0), "max_steps=0"),
        (lambda m: solvers.lissa(m, B, damping=-0.1, scale=1.0), "damping=-0.1"),
        (lambda m: solvers.lissa(m, B, damping=0.1), "pass key="),
        (lambda m: solvers.lissa(m, B, damping=0.1, scale=0.0), "scale=0.0"),
        (lambda m: solvers.lissa(m, B, damping=0.1, scale=1.0, max_steps=0), "steps=0"),
        (lambda m: solvers.largest_eigenvalue(m, B, key=KEY, steps=0), "steps=0"),
        (
            lambda m: solvers.lanczos(m, B, damping=0.1, rank=31, key=KEY),
            "rank=31, steps=30: needed is 1 <= rank <= steps <= 30",
        ),
        (lambda m: solvers.lanczos(m, B, damping=0.1, rank=0, key=KEY), "rank=0"),
        (
            lambda m: solvers.lanczos(m, B, damping=0.0, rank=2, key=KEY),
            "damping=0.0: must be above 0",
        ),
        (lambda m: solvers.nystroem(m, B, damping=0.1, rank=31, key=KEY), "rank=31"),
        (lambda m: solvers.nystroem(m, B, damping=0.0, rank=3, key=KEY), "damping=0.0"),
        (lambda m: solvers.woodbury_dual(G, B, damping=0.0), "damping=0.0"),
        (
            lambda m: solvers.woodbury_dual(B, B, damping=0.1),
            "one more axis n in front",
        ),
        (
            lambda m: solvers.woodbury(None, None, jnp.ones((2, 3)), B, damping=1.0),
            r"gram has shape \(2, 3\)",
        ),
        (lambda m: solvers.datainf(G, B, damping=0.0), "damping=0.0"),
        (lambda m: solvers.datainf({"a": G["a"]}, B, damping=0.1), "one more axis n"),
        (lambda m: solvers.datainf_damping(G, share=0.0), "share=0.0"),
        (lambda m: solvers.diagonal(B, B, damping=-1), "damping=-1"),
        (lambda m: solvers.diagonal(B["a"], B, damping=1), "right_side's shapes"),
        (
            lambda m: solvers.cg(lambda v: v["a"], B, damping=0.1),
            "linear_map must return right_side's shapes",
        ),
    ],
)
def test_misuse_is_refused(solve, words):
    with pytest.raises(ValueError, match=words):
        solve(linear_map(POSITIVE))
