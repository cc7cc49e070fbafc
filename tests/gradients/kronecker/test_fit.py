import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxunlearn import tree
from jaxunlearn.gradients.fisher import sampled_labels
from jaxunlearn.gradients.kronecker.files import load_factors, save_factors
from jaxunlearn.gradients.kronecker.fit import fit_ekfac, fit_kfac
from jaxunlearn.gradients.kronecker.inverse import (
    Damping,
    kronecker_inverse_vp,
    kronecker_vp,
    rotate,
    rotate_back,
)

EPSILON = float(jnp.finfo(jnp.float32).eps)


def close(a, b, factor=100.0):
    """Equal up to ``factor`` roundings of the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=factor * EPSILON * np.abs(b).max())


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# A network of dense layers over tokens, then one over what they pool to.


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        h = nn.tanh(nn.Dense(4, name="first")(x))
        h = nn.LayerNorm(name="norm")(h)
        pooled = (h * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return nn.Dense(3, name="second")(pooled)


def logits(params, batch):
    return Network().apply({"params": params}, batch["x"], batch["mask"])


def loss(params, batch):
    scores = jax.nn.log_softmax(logits(params, batch))
    return -jnp.take_along_axis(scores, batch["labels"][:, None], axis=1)[:, 0]


def make_batch(count=6, seed=0):
    random = np.random.default_rng(seed)
    mask = np.ones((count, 4), np.float32)
    mask[0, 2:] = 0
    return {
        "x": random.normal(size=(count, 4, 5)).astype(np.float32),
        "mask": mask,
        "labels": random.integers(0, 3, count).astype(np.int32),
        "weight": random.uniform(0.5, 2.0, count).astype(np.float32),
    }


@pytest.fixture(scope="module")
def params():
    batch = make_batch()
    start = Network().init(jax.random.key(0), batch["x"], batch["mask"])["params"]
    return jax.tree.map(lambda x: x + 0.3 * normal(*x.shape), start)


@pytest.fixture(scope="module")
def own(params):
    """Per-example gradients, by vmap(grad)."""

    def one(example):
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.grad(lambda p: loss(p, alone)[0])(params)

    return jax.jit(jax.vmap(one))(make_batch())


@pytest.fixture(scope="module")
def factors(params):
    return jax.jit(functools.partial(fit_ekfac, loss))(params, make_batch())


def flat(vectors):
    """Rows of several vectors."""
    return np.concatenate(
        [np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(vectors)],
        axis=1,
    )


def same(a, b, factor=1000.0):
    """The factors give the same inverse: bases may differ in sign."""
    assert [m.name for m in a.matrices] == [m.name for m in b.matrices]
    for name in a.eigenvalues:
        close(a.eigenvalues[name], b.eigenvalues[name], factor)


def test_no_parameter_is_left_out(params, factors):
    covered = sum(x.size for x in factors.eigenvalues.values())
    assert covered == sum(x.size for x in jax.tree.leaves(params))
    assert sorted(factors.eigenvalues) == ["first", "norm/bias", "norm/scale", "second"]


def test_lambda_is_that_of_the_gradients_themselves(factors, own):
    weight = make_batch()["weight"]
    for name, rows in rotate(factors, own).items():
        mean = np.einsum("b,b...->...", weight, rows**2) / weight.sum()
        close(factors.eigenvalues[name], mean)


def test_parameters_without_a_matrix_get_the_exact_second_moment(factors, own):
    weight = make_batch()["weight"]
    mean = weight @ np.square(own["norm"]["scale"]) / weight.sum()
    close(factors.eigenvalues["norm/scale"][0], mean)


@pytest.mark.parametrize("damping", [0.03, Damping("mean_eigenvalue", 0.2)])
def test_products_are_those_of_the_explicit_matrix(params, factors, damping):
    size = sum(x.size for x in jax.tree.leaves(params))
    unit = jax.vmap(ravel_pytree(params)[1])(jnp.eye(size))
    added = {
        name: 0.03 if damping == 0.03 else 0.2 * np.mean(x)
        for name, x in factors.eigenvalues.items()
    }
    dense, inverse = np.zeros((2, size, size))
    start = 0
    order = {"first": ("bias", "kernel"), "second": ("bias", "kernel")}
    for name in sorted(factors.eigenvalues):
        values = np.asarray(factors.eigenvalues[name], np.float64)
        left, right = (
            np.eye(n) if q is None else np.asarray(q, np.float64)
            for n, q in zip(values.shape, factors.bases[name], strict=True)
        )
        kron = np.kron(left, right)
        whole = kron @ np.diag(values.ravel()) @ kron.T
        solved = kron @ np.diag(1 / (values.ravel() + added[name])) @ kron.T
        if name in order:
            # The tree has the bias before the kernel, the matrix after it.
            columns = values.shape[1]
            turn = np.roll(np.arange(values.size), columns)
            whole, solved = whole[np.ix_(turn, turn)], solved[np.ix_(turn, turn)]
        part = slice(start, start + values.size)
        dense[part, part], inverse[part, part] = whole, solved
        start += values.size
    close(flat(kronecker_vp(factors, unit)), dense)
    found = flat(kronecker_inverse_vp(factors, unit, damping=damping))
    np.testing.assert_allclose(found, inverse, atol=1e-5 * np.abs(inverse).max())


def test_coordinates_keep_inner_products_and_go_back(factors, own):
    there = rotate(factors, own)
    products = sum(np.einsum("alr,blr->ab", x, x) for x in there.values())
    close(products, flat(own) @ flat(own).T)
    jax.tree.map(close, rotate_back(factors, there, params_of(own)), own)


def params_of(vectors):
    return jax.tree.map(lambda x: x[0], vectors)


def test_several_vectors_are_each_alone(factors, own):
    many = kronecker_inverse_vp(factors, own)
    one = kronecker_inverse_vp(factors, params_of(own))
    jax.tree.map(close, params_of(many), one)


def test_directions_without_curvature_and_damping_are_zero(factors, own):
    flattened = kronecker_inverse_vp(
        jax.tree.map(jnp.zeros_like, factors), own, damping=0.0
    )
    assert all(not x.any() for x in jax.tree.leaves(flattened))


def test_neither_microbatches_nor_batches_nor_padding_matter(params, factors):
    batch = make_batch()
    fit = jax.jit(functools.partial(fit_ekfac, loss, batch_size=4))
    same(fit(params, batch), factors)
    halves = [
        jax.tree.map(lambda x, part=part: x[part], batch)
        for part in (slice(3), slice(3, 6))
    ]
    same(fit_ekfac(loss, params, halves), factors)
    padded = {k: np.concatenate([v, v[:1]]) for k, v in batch.items()}
    padded["weight"][-1] = 0
    padded["x"] = np.pad(padded["x"], [(0, 0), (0, 3), (0, 0)], constant_values=5.0)
    padded["mask"] = np.pad(padded["mask"], [(0, 0), (0, 3)])
    same(jax.jit(functools.partial(fit_ekfac, loss))(params, padded), factors)


def test_kfac_estimates_the_fisher_matrix_at_its_own_scale(params, own):
    factors = jax.jit(functools.partial(fit_kfac, loss))(params, make_batch())
    weight = make_batch()["weight"]
    # One token and a bias: the trace of A (x) S is the mean |l|^2 |r|^2 if the two are
    # uncorrelated, and so near the mean squared gradient.
    norms = sum(np.square(x).reshape(6, -1).sum(1) for x in own["second"].values())
    ratio = float(factors.eigenvalues["second"].sum()) / (weight @ norms / weight.sum())
    assert 0.5 < ratio < 2
    assert factors.method == "kfac"


def test_layers_not_selected_come_out_as_zeros(params, factors, own):
    chosen = fit_ekfac(loss, params, make_batch(), layers="second")
    close(chosen.eigenvalues["second"], factors.eigenvalues["second"], 1000)
    found = kronecker_inverse_vp(chosen, own)
    assert not any(x.any() for x in jax.tree.leaves([found["first"], found["norm"]]))
    jax.tree.map(
        functools.partial(close, factor=1000),
        found["second"],
        kronecker_inverse_vp(factors, own)["second"],
    )
    kernel = fit_ekfac(loss, params, make_batch(), layers="second/kernel")
    assert kernel.eigenvalues["second/kernel"].shape == (4, 3)


def test_the_true_fisher_is_that_of_drawn_labels(params):
    key = jax.random.key(3)
    batch = make_batch()
    fit = functools.partial(fit_ekfac, loss, fisher="true", logits=logits)
    found = jax.jit(lambda params, batch: fit(params, batch, key=key))(params, batch)
    drawn = sampled_labels(logits(params, batch), batch, key=key)
    same(found, jax.jit(functools.partial(fit_ekfac, loss))(params, drawn))
    assert found.fisher == "true"


def test_a_killed_fit_goes_on_with_the_same_bits(params, tmp_path):
    batch = make_batch()
    done = []

    def kill(count, total):
        done.append((count, total))
        if len(done) == 5:
            raise KeyboardInterrupt

    fit = functools.partial(fit_ekfac, loss, params, batch, batch_size=2)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        fit(state_path=path, progress=kill)
    assert done == [(1, 3), (2, 3), (3, 3), (1, 3), (2, 3)]
    resumed, alone = fit(state_path=path), fit(state_path=tmp_path / "other")
    jax.tree.map(np.testing.assert_array_equal, resumed, alone)
    with pytest.raises(ValueError, match="other work.*data"):
        fit_ekfac(loss, params, make_batch(seed=1), batch_size=2, state_path=path)


def test_factors_come_back_from_a_file(params, factors, tmp_path):
    path = tmp_path / "factors.npz"
    save_factors(path, factors, params)
    back = load_factors(path, params)
    assert jax.tree.structure(back) == jax.tree.structure(factors)
    jax.tree.map(np.testing.assert_array_equal, back, factors)
    with pytest.raises(ValueError, match="other parameters"):
        load_factors(path, tree.scaled(2.0, params))
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"is damaged, or no \.npz file: fit"):
        load_factors(path, params)
    with pytest.raises(FileNotFoundError):
        load_factors(tmp_path / "none.npz", params)


def test_misuse_is_named(params, factors, own):
    batch = make_batch()
    fit = functools.partial(fit_ekfac, loss, params)
    with pytest.raises(ValueError, match="fisher='model'"):
        fit(batch, fisher="model")
    with pytest.raises(ValueError, match="key=jax.random.key"):
        fit(batch, fisher="true")
    with pytest.raises(ValueError, match="do not go with fisher='empirical'"):
        fit(batch, key=jax.random.key(0))
    with pytest.raises(ValueError, match='"index"'):
        fit([batch], fisher="true", key=jax.random.key(0))
    for name, value in [("eigh", "half"), ("largest_factor", 0)]:
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            fit(batch, **{name: value})
    with pytest.raises(ValueError, match="given as an iterator"):
        fit(iter([batch]))
    with pytest.raises(ValueError, match="no batch"):
        fit([])
    with pytest.raises(ValueError, match="matches no parameter"):
        fit(batch, layers="third")
    with pytest.raises(ValueError, match="damping rule 'share'"):
        kronecker_inverse_vp(factors, own, damping=Damping("share", 1.0))
    with pytest.raises(ValueError, match="no leaf 'first/kernel'"):
        rotate(factors, {"second": own["second"]})
    turned = {**own, "first": jax.tree.map(lambda x: x.T, own["first"])}
    with pytest.raises(ValueError, match=r"shape \(4, 5, 6\)"):
        rotate(factors, turned)
    mixed = {**own, "second": params["second"]}
    with pytest.raises(ValueError, match="different leading axes"):
        rotate(factors, mixed)
