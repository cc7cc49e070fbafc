import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.data import collate, in_order
from jaxunlearn.training import example_losses, mean_gradient_of, mean_loss_of

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def alone(bigram, data):
    """Each example's loss, from a batch of one."""
    model, params = bigram
    return np.array(
        [
            float(model.per_example_loss(params, one)[0])
            for i in range(10)
            for one in [collate(data, [i], batch_size=1, length=12)]
        ]
    )


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("length", [None, 16])
def test_losses_do_not_depend_on_batches_or_padding(
    bigram, data, alone, batch_size, length
):
    model, params = bigram
    batches = in_order(data, batch_size=batch_size, length=length)
    losses = example_losses(model.per_example_loss, params, batches)
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, alone, rtol=8 * EPS)
    mean = mean_loss_of(model.per_example_loss, batches)
    assert mean(params) == pytest.approx(alone.mean(), rel=8 * EPS)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_the_mean_gradient_is_the_gradient_of_the_mean_loss(
    bigram, data, distance, batch_size
):
    model, params = bigram
    whole = collate(data, np.arange(10), batch_size=10, length=12)
    mean = jax.jit(lambda p: model.per_example_loss(p, whole).mean())
    expected = jax.grad(mean)(params)
    batches = in_order(data, batch_size=batch_size)
    gradient = mean_gradient_of(model.per_example_loss, batches)(params)
    assert distance(gradient, expected) < 8 * EPS
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


def test_of_gpt2_dropout_is_off(dropout_model, model, params, data, slow_gradient):
    # The slope along its gradient without dropout is that gradient's square.
    direction = slow_gradient(model, params, 4)
    step = 1e-2 / float(tree.norm(direction))
    ends = [
        example_losses(
            dropout_model.per_example_loss,
            tree.add_scaled(params, s, direction),
            in_order(data),
        )
        for s in (-step, step)
    ]
    slope = (ends[1][4] - ends[0][4]) / (2 * step)
    assert slope == pytest.approx(float(tree.vdot(direction, direction)), rel=1e-2)


def test_a_length_too_short_is_an_error(bigram, data):
    with pytest.raises(ValueError, match="has 12 tokens, length=8"):
        example_losses(bigram[0].per_example_loss, bigram[1], in_order(data, length=8))
