import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.models import generate, tying

EPS = np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def gradient(tiny, batch):
    """The compiled gradient of the summed loss, by whatever tree it is given."""
    model, _ = tiny
    return jax.jit(jax.grad(lambda p: model.per_example_loss(p, batch).sum()))


@pytest.fixture(scope="module")
def apart(tiny):
    """Parameters whose head differs from their table."""
    _, params = tiny
    head = jnp.flip(tying.token_table(params), axis=0)
    return {**params, "lm_head": {"kernel": head}}


def test_untied_parameters_are_the_same_model(tiny, batch, assert_same_bits):
    model, params = tiny
    untied = tying.untie(params)
    assert set(untied) == {*params, "lm_head"}
    logits = jax.jit(model.logits)
    assert_same_bits({"x": logits(untied, batch)}, {"x": logits(params, batch)})
    assert tying.untie(untied) is untied


def test_the_tied_gradient_is_the_sum_of_the_untied_one(tiny, gradient):
    _, params = tiny
    tied, untied = gradient(params), gradient(tying.untie(params))
    both = tree.subtract(tying.tie(untied), tied)
    assert float(tree.norm(both)) < 20 * EPS * float(tree.norm(tied))
    for part in ("wte", "lm_head"):
        assert float(tree.norm(untied[part])) > 1e-3
    assert tying.tie(tied) is tied


def test_tying_is_the_transpose_of_untying(tiny):
    """``<tie(d), v> = <d, untie(v)>`` for every direction d and every v."""
    _, params = tiny
    rng = np.random.default_rng(0)

    def draw(like):
        return jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), like)

    v, d = draw(params), draw(tying.untie(params))
    left, right = tree.vdot(tying.tie(d), v), tree.vdot(d, tying.untie(v))
    assert float(left) == pytest.approx(float(right), rel=1e-4)


def test_a_head_of_its_own_is_used_wherever_logits_are(tiny, apart, batch):
    model, params = tiny
    hidden = np.asarray(jax.jit(model.hidden_states)(params, batch), np.float64)
    head = np.float64(apart["lm_head"]["kernel"])
    logits = jax.jit(model.logits)(apart, batch)
    np.testing.assert_allclose(logits, hidden @ head.T, atol=1e-4)
    np.testing.assert_allclose(
        jax.jit(model.per_example_loss)(apart, batch),
        model.loss_of_logits(logits, batch),
        rtol=20 * EPS,
    )
    ids, mask = batch["input_ids"][:, :4], np.ones((3, 4), np.int32)
    first = generate(model, apart, ids, mask, max_new_tokens=1)[:, 0]
    np.testing.assert_array_equal(first, np.argmax(logits[:, 3], axis=-1))


def test_a_row_a_token_is_the_same_loss(tiny, batch, apart, assert_same_bits):
    model, params = tiny
    losses = jax.jit(model.per_example_loss)
    for start in (params, apart):
        rows = tying.token_rows(start, batch)
        own = tying.with_token_rows(start, batch, rows)
        assert_same_bits({"x": losses(*own)}, {"x": losses(start, batch)})
