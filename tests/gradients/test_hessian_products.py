import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxunlearn.gradients import hvp
from jaxunlearn.tree import cast, vdot

SIZE = 5


def network_loss(params, batch):
    """A small network, curved in every parameter."""
    hidden = jnp.tanh(batch["x"] @ params["in"]["kernel"] + params["in"]["bias"])
    scores = jax.nn.log_softmax(hidden @ params["out"]["kernel"])
    return -jnp.take_along_axis(scores, batch["y"][:, None], axis=1)[:, 0]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def tree():
        return {
            "in": {"kernel": draw(3, 4), "bias": draw(4)},
            "out": {"kernel": draw(4, 2)},
        }

    batch = {
        "x": draw(SIZE, 3),
        "y": jnp.asarray(rng.integers(2, size=SIZE)),
        "weight": jnp.float32([1, 0, 2, 0.5, 1]),
    }
    return tree(), batch, tree(), tree()


@pytest.fixture(scope="module")
def exact(problem):
    """The dense Hessian, times the flattened vector."""
    params, batch, vector, _ = problem
    flat, unflatten = ravel_pytree(params)
    direction, _ = ravel_pytree(vector)

    def mean(flat):
        losses = network_loss(unflatten(flat), batch)
        return jnp.sum(batch["weight"] * losses) / jnp.sum(batch["weight"])

    return jax.jit(jax.hessian(mean))(flat) @ direction


def flat(tree):
    return ravel_pytree(tree)[0]


def compiled(**options):
    return jax.jit(functools.partial(hvp, network_loss, **options))


def assert_close(a, b):
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(a, b, rtol=0, atol=50 * eps * np.abs(b).max())


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 5, 8])
def test_it_is_the_dense_hessian_in_any_microbatch(problem, exact, batch_size):
    params, batch, vector, _ = problem
    product = compiled(batch_size=batch_size)(params, batch, vector)
    assert_close(flat(product), exact)


def test_examples_of_weight_zero_do_not_count(problem, exact):
    params, batch, vector, _ = problem
    changed = batch | {"x": batch["x"].at[1].set(100.0)}
    assert_close(flat(compiled()(params, changed, vector)), exact)


def test_the_product_is_symmetric_and_linear(problem):
    params, batch, u, v = problem
    product = compiled()
    hu, hv = product(params, batch, u), product(params, batch, v)
    np.testing.assert_allclose(vdot(v, hu), vdot(u, hv), rtol=1e-5)
    both = jax.tree.map(lambda a, b: 2 * a - 3 * b, u, v)
    assert_close(flat(product(params, batch, both)), 2 * flat(hu) - 3 * flat(hv))


def test_a_quadratic_gives_its_matrix():
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((SIZE, 3, 3)).astype(np.float32)
    matrices = matrices + matrices.swapaxes(1, 2)

    def loss(params, batch):
        return 0.5 * jnp.einsum("i,bij,j->b", params, batch["matrix"], params)

    v = jnp.float32([1, -2, 3])
    product = hvp(loss, jnp.zeros(3), {"matrix": matrices}, v)
    assert_close(product, matrices.mean(axis=0) @ v)


def test_it_is_float32_whatever_the_parameters_are(problem):
    params, batch, vector, _ = problem
    low = cast(params, jnp.bfloat16)
    found = compiled()(low, batch, cast(vector, jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.float32.dtype}
    widened = [cast(cast(x, jnp.bfloat16), jnp.float32) for x in (params, vector)]
    assert_close(flat(found), flat(compiled()(widened[0], batch, widened[1])))


def test_a_vector_of_another_shape_is_refused(problem):
    params, batch, vector, _ = problem
    with pytest.raises(ValueError, match="vector must be a tree of params' shapes"):
        hvp(network_loss, params, batch, {"in": vector["in"]})
    wrong = vector | {"out": {"kernel": jnp.ones((2, 4))}}
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        hvp(network_loss, params, batch, wrong)


# --- functions that have one derivative only, as fused attention kernels --------------


@jax.custom_vjp
def calls_itself(x):
    return x**2


calls_itself.defvjp(lambda x: (calls_itself(x), x), lambda x, g: (2 * x * g,))


@jax.custom_vjp
def kernel_without_rule(x):
    return x**2


def _without_rule(x):
    """Stand in for a kernel: the primitive underneath has no forward-mode rule."""
    from jax.extend.core import Primitive

    fused = Primitive("dot_product_attention_fwd_wrapper")
    fused.def_abstract_eval(lambda x: x)
    fused.def_impl(lambda x: x**2)
    return fused.bind(x), x


kernel_without_rule.defvjp(_without_rule, lambda x, g: (2 * x * g,))


@pytest.mark.parametrize(
    ("kernel", "batch_size"),
    [(kernel_without_rule, None), (kernel_without_rule, 1), (calls_itself, None)],
)
def test_a_kernel_with_one_derivative_names_the_remedy(kernel, batch_size):
    def loss(params, batch):
        return kernel(params * batch["x"])

    batch = {"x": jnp.ones(3)}
    assert jax.grad(lambda p: loss(p, batch).sum())(jnp.float32(2)) == 12
    with pytest.raises(ValueError, match='set attention="xla"') as caught:
        hvp(loss, jnp.float32(2), batch, jnp.float32(1), batch_size=batch_size)
    assert caught.value.__cause__ is not None


def test_the_losss_own_errors_pass_through():
    def loss(params, batch):
        raise TypeError("my own mistake")

    with pytest.raises(TypeError, match="my own mistake"):
        hvp(loss, jnp.float32(1), {"x": jnp.ones(3)}, jnp.float32(1))


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="the fused kernel needs an NVIDIA GPU"
)
def test_fused_attention_names_the_remedy():
    from jaxunlearn.models import GPT2, GPT2Config

    config = GPT2Config(
        vocab_size=97,
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=1,
        attention="cudnn",
        dtype="bfloat16",
    )
    model = GPT2(config)
    params = model.init(key=jax.random.key(0))
    ids = jnp.zeros((2, 64), jnp.int32)
    batch = {"input_ids": ids, "labels": ids}
    with pytest.raises(ValueError, match='set attention="xla"'):
        hvp(model.per_example_loss, params, batch, params)
