"""A wrapped language task generates and is evaluated as any decoder is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.models.generation import generate
from jaxunlearn.tasks import classification_task, language_task
from jaxunlearn.unlearning.wrappers.decoders import offset_decoder
from jaxunlearn.unlearning.wrappers.offset import OffsetTask

MODEL = GPT2(
    GPT2Config(
        vocab_size=61,
        n_positions=24,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
)


def drawn():
    shapes = jax.eval_shape(lambda: MODEL.init(key=jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.float32(0.3 * rng.normal(size=x.shape)), shapes)


PARAMS = drawn()
# Surer of the same tokens, so that these are no longer the likeliest.
REINFORCED = jax.tree.map(lambda x: 1.5 * x + 0.01, PARAMS)
TASK = OffsetTask(language_task(MODEL), REINFORCED, 5.0)
IDS = np.random.default_rng(2).integers(61, size=(3, 9)).astype(np.int32)
LENGTHS = np.array([9, 4, 6])
MASK = (np.arange(9) < LENGTHS[:, None]).astype(np.int32)
BATCH = {
    "input_ids": IDS,
    "labels": np.where(MASK == 1, IDS, -100),
    "attention_mask": MASK,
}


def test_its_logits_and_losses_are_the_tasks():
    model, both = offset_decoder(TASK, PARAMS)
    np.testing.assert_allclose(
        model.logits(both, BATCH), TASK.outputs(PARAMS, BATCH), rtol=1e-5, atol=1e-5
    )
    losses = TASK(PARAMS, BATCH)
    np.testing.assert_allclose(model.per_example_loss(both, BATCH), losses, rtol=1e-5)
    np.testing.assert_allclose(language_task(model)(both, BATCH), losses, rtol=1e-5)
    assert np.all(np.abs(losses - language_task(MODEL)(PARAMS, BATCH)) > 1e-3)


def test_it_generates_what_its_logits_say():
    model, both = offset_decoder(TASK, PARAMS)
    found = jax.jit(lambda both: generate(model, both, IDS, MASK, max_new_tokens=5))(
        both
    )
    look = jax.jit(lambda ids: TASK.outputs(PARAMS, {"input_ids": ids}))
    for row, length in enumerate(LENGTHS):
        tokens = [int(x) for x in IDS[row, :length]]
        for _ in range(5):
            padded = np.zeros((1, 14), np.int32)
            padded[0, : len(tokens)] = tokens
            tokens.append(int(jnp.argmax(look(padded)[0, len(tokens) - 1])))
        assert found[row].tolist() == tokens[length:]
    plain = generate(MODEL, PARAMS, IDS, MASK, max_new_tokens=5)
    assert found.tolist() != plain.tolist()


def test_it_is_an_argument_of_compiled_programs():
    model, both = offset_decoder(TASK, PARAMS)
    look = jax.jit(lambda model, both, batch: model.per_example_loss(both, batch))
    found = look(model, both, BATCH)
    np.testing.assert_allclose(found, TASK(PARAMS, BATCH), rtol=1e-5)


def test_at_strength_0_it_is_the_model():
    task = OffsetTask(TASK.task, TASK.reinforced, 0.0)
    model, both = offset_decoder(task, PARAMS)
    found = model.logits(both, BATCH)
    np.testing.assert_allclose(found, MODEL.logits(PARAMS, BATCH), rtol=1e-5, atol=1e-5)


def test_a_task_without_a_decoder():
    task = OffsetTask(classification_task(lambda params, x: x @ params), 0.0, 1.0)
    with pytest.raises(ValueError, match="task=ClassificationTask has no model"):
        offset_decoder(task, PARAMS)
