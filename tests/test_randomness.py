import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients.fisher import sampled_labels
from jaxunlearn.gradients.hutchinson import hutchinson_trace
from jaxunlearn.gradients.projections.projection import Projection, project
from jaxunlearn.gradients.solvers.eigenpairs import nystroem_eigenpairs
from jaxunlearn.models import GPT2, GPT2Config, generate
from jaxunlearn.randomness import pinned, random_key
from jaxunlearn.training import Recipe
from jaxunlearn.training.recipe import batch_gradient, step_key

MODEL = GPT2(GPT2Config(vocab_size=97, n_positions=16, n_embd=16, n_layer=1, n_head=2))
ONES = np.ones(80, np.float32)
HALF = jax.ShapeDtypeStruct((99,), jnp.float16)


@contextlib.contextmanager
def rbg_drawn_otherwise():
    """What is usual on TPU pods, in the older layout of threefry's draws."""
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        yield


SETTINGS = {
    "rbg": rbg_drawn_otherwise,
    "unsafe_rbg": lambda: jax.default_prng_impl("unsafe_rbg"),
    "x64": lambda: jax.enable_x64(True),
}


def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(97, size=(4, 8)).astype(np.int32)
    return {"input_ids": ids, "labels": ids, "index": np.arange(5, 9, dtype=np.int32)}


@pytest.fixture(scope="module")
def params():
    return MODEL.init(key=random_key(0))


def losses(params, rows):
    """Losses with dropout of some of the examples."""
    part = {name: array[rows] for name, array in batch().items()}
    key = step_key(Recipe(seed=3), MODEL, 7)
    return np.asarray(jax.jit(MODEL.per_example_loss)(params, part, key=key))


def gradient(params, size):
    recipe = Recipe(batch_size=4, microbatch_size=size, seed=3)
    key = step_key(recipe, MODEL, 7)
    parts = jax.jit(batch_gradient, static_argnums=(0, 1))
    return parts(MODEL, recipe, params, batch(), key)[1]


@pytest.fixture(scope="module")
def usual(params):
    return losses(params, slice(None))


@pytest.mark.parametrize("setting", SETTINGS)
def test_dropout_depends_on_neither_settings_nor_batch(params, usual, setting):
    with SETTINGS[setting]():
        found = losses(params, slice(2, None))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, usual[2:], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_depend_on_neither_settings_nor_microbatch(params, setting):
    whole = gradient(params, 4)
    with SETTINGS[setting]():
        found = gradient(params, 2)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.float32.dtype}
    apart = tree.norm(tree.subtract(found, whole)) / tree.norm(whole)
    assert float(apart) < 1e-6


def draws(make_key):
    """One draw of every kind that the package makes by a key."""

    def drawn():
        key, leaves = (
            make_key(4),
            {"a": ONES[:80].reshape(2, 40), "b": ONES[:30].reshape(2, 3, 5)},
        )
        trace = hutchinson_trace(
            lambda v: v * jnp.arange(40), ONES[:40], key=key, probes=2
        )
        return {
            "labels": sampled_labels(
                np.zeros((4, 8, 97), np.float32), batch(), key=key
            )["labels"],
            "trace": trace.standard_error,
            "eigenvalues": nystroem_eigenpairs(
                lambda v: v * jnp.arange(9), ONES[:9], rank=2, key=key
            ).eigenvalues,
            "rounded": tree.rounded(jnp.linspace(1, 2, 99, dtype="float32"), HALF),
        } | {
            kind: project(Projection(kind, (6,), seed=2), leaves)
            for kind in ("dense", "sparse", "hadamard")
        }

    return jax.tree.map(np.asarray, jax.jit(drawn)())


@pytest.mark.parametrize("setting", ["rbg", "x64"])
def test_every_draw_is_that_of_its_seed(setting):
    expected = draws(random_key)
    with SETTINGS[setting]():
        found = draws(jax.random.key)
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_a_sample_is_that_of_its_key(params):
    ids = batch()["input_ids"]

    def drawn(key):
        return np.asarray(
            generate(
                MODEL,
                params,
                ids[:, :4],
                np.ones((4, 4), np.int32),
                max_new_tokens=3,
                temperature=9.0,
                key=key,
            )
        )

    with jax.default_prng_impl("rbg"):
        found = drawn(jax.random.key(1))
    np.testing.assert_array_equal(found, drawn(jax.random.key(1)))
    assert (found != drawn(jax.random.key(2))).any()


def test_a_function_without_a_key_is_left_alone():
    @pinned
    def function(x, *, key=None):
        return x, key

    assert function(2) == function(x=2) == function(2, key=None) == (2, None)
