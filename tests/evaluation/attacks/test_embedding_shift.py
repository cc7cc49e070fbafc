import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.data import collate, in_order, subset
from jaxunlearn.evaluation.attacks import measure_of, probability, soft_prompt
from jaxunlearn.models.tying import with_token_rows


@pytest.fixture(scope="module")
def data(tokens, records):
    """The records; in the middle of one answer a token bears no loss."""
    data = tokens(records)
    (last,) = np.flatnonzero(data.examples[5].labels >= 0)[1:2]
    data.examples[5].labels[last] = -100
    return data


@pytest.fixture(scope="module")
def found(model, params, data):
    return attack(model, params, data)


def attack(model, params, data, **options):
    known, held_out = subset(data, range(3)), subset(data, range(3, 7))
    settings = {"batch_size": 4, "length": 12} | options
    known, held_out = (in_order(part, **settings) for part in (known, held_out))
    return soft_prompt(model, params, known, held_out, steps=(0, 1, 8))


def test_the_attack_is_the_same_on_weights_stored_in_16_bits(model, params, data):
    low = tree.cast(params, "bfloat16")
    one, other = (attack(model, p, data) for p in (low, tree.cast(low, "float32")))
    np.testing.assert_array_equal(one.values, other.values)


def test_no_offset_is_no_attack(model, params, data, found):
    plain = measure_of(model, in_order(subset(data, range(3, 7))), probability)
    np.testing.assert_allclose(found.values[0], plain(params), rtol=1e-5)
    assert found.strengths == (0, 1, 8)


def test_the_first_step_is_adam_s_along_the_gradient_of_the_prompts(
    model, params, data, found
):
    """One step of Adam from zero is the sign of the gradient times the rate."""
    batch = collate(data, range(7), batch_size=7, length=12)
    starts = [int(np.argmax(e.labels >= 0)) for e in data.examples]
    prompts = np.arange(12) < np.array(starts)[:, None]

    def losses(offset):
        rows = params["wte"]["embedding"][batch["input_ids"]]
        rows = rows + jnp.asarray(prompts)[..., None] * offset
        return model.per_example_loss(*with_token_rows(params, batch, rows))

    zero = jnp.zeros(16)
    slope = jax.jit(jax.grad(lambda offset: losses(offset)[:3].mean()))(zero)
    rate = 0.1 * np.sqrt(np.mean(np.square(params["wte"]["embedding"])))
    expected = np.exp(-np.asarray(jax.jit(losses)(-rate * np.sign(slope))))[3:]
    np.testing.assert_allclose(found.values[1], expected, rtol=1e-3)


def test_batches_change_nothing(model, params, data, found):
    other = attack(model, params, data, batch_size=2)
    np.testing.assert_allclose(other.values[:2], found.values[:2], rtol=1e-4)


def test_it_finds_what_helps_the_examples_it_knows(model, params, data):
    known = in_order(subset(data, range(4)), batch_size=4, length=12)
    found = soft_prompt(model, params, known, known, steps=(0, 8))
    assert np.log(found.values[1]).mean() > np.log(found.values[0]).mean()


def test_bad_input(model, params, data, tokens):
    text, data = in_order(tokens([{"text": "w1 w2"}])), in_order(data)
    with pytest.raises(ValueError, match="known: examples .* have no prompt"):
        soft_prompt(model, params, text, data)
    with pytest.raises(ValueError, match="held_out: .* have no prompt"):
        soft_prompt(model, params, data, text)
    with pytest.raises(ValueError, match="begin with 0"):
        soft_prompt(model, params, data, data, steps=(1,))
