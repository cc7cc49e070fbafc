"""A wrapped task comes back from disk bit for bit, and never as the bare model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import load_tokenizer, train_tokenizer
from jaxunlearn.evaluation.loading import NamedModel, load_model, without_wrapper
from jaxunlearn.models import GPT2, GPT2Config, load_config, load_pretrained
from jaxunlearn.sealed import write_sealed
from jaxunlearn.tasks import classification_task, language_task
from jaxunlearn.unlearning import load_wrapper, offset_decoder, save_wrapper
from jaxunlearn.unlearning.wrappers.offset import OffsetTask
from jaxunlearn.unlearning.wrappers.saving import WRAPPER, is_wrapper

MODEL = GPT2(GPT2Config(vocab_size=270, n_positions=24, n_embd=8, n_layer=2, n_head=2))


def drawn(seed, dtype="bfloat16"):
    shapes = jax.eval_shape(lambda: MODEL.init(key=jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), dtype), shapes
    )


PARAMS, REINFORCED = drawn(0), drawn(1)
TASK = OffsetTask(language_task(MODEL), REINFORCED, 0.75)


@pytest.fixture
def saved(tmp_path):
    """A wrapper's folder, with a source that has a licence."""
    tokenizer = train_tokenizer(["a text of words"], vocab_size=270)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text('{"model_type": "gpt2", "k": 3}')
    (tmp_path / "source" / "LICENSE").write_text("free")
    path = tmp_path / "wrapper"
    save_wrapper(TASK, PARAMS, path, tokenizer, source=tmp_path / "source")
    return path


def test_it_comes_back_bit_for_bit(saved, same_bits):
    task, params = load_wrapper(saved)
    assert same_bits(params, PARAMS)
    assert same_bits(task.reinforced, REINFORCED)
    assert not same_bits(params, task.reinforced)
    assert (task.alpha, task.task.model) == (0.75, load_pretrained(saved / "own")[0])
    assert load_tokenizer(saved).get_vocab()
    assert (saved / "LICENSE").read_text() == "free"
    assert load_config(saved).n_positions == 24
    assert json.loads((saved / "config.json").read_text())["k"] == 3


def test_what_knows_no_wrapper_finds_no_weights(saved):
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_pretrained(saved)


def test_evaluation_meets_the_offset_and_insides_do_not(saved, same_bits):
    found = load_model(saved)
    model, both = offset_decoder(TASK, PARAMS)
    assert same_bits(found.params, both)
    assert found.model.alpha == model.alpha
    inside = without_wrapper(found)
    assert same_bits(inside.params, PARAMS)
    assert inside.model == load_pretrained(saved / "own")[0]
    plain = NamedModel("plain", MODEL, PARAMS)
    assert without_wrapper(plain) is plain


def test_an_earlier_wrapper_is_replaced_and_nothing_else(saved, same_bits, tmp_path):
    save_wrapper(TASK, REINFORCED, saved)
    assert same_bits(load_wrapper(saved)[1], REINFORCED)
    with pytest.raises(ValueError, match="holds something else"):
        save_wrapper(TASK, PARAMS, tmp_path)
    with pytest.raises(ValueError, match="holds something else"):
        save_wrapper(TASK, PARAMS, tmp_path / "source" / "LICENSE")
    assert not is_wrapper(tmp_path)


def test_what_is_damaged_or_unknown_is_refused(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no wrapper.json"):
        load_wrapper(tmp_path)
    text = (saved / WRAPPER).read_text()
    (saved / WRAPPER).write_text(text.replace("0.75", "0.0"))
    with pytest.raises(ValueError, match=r"wrapper\.json is damaged"):
        load_wrapper(saved)
    write_sealed(saved / WRAPPER, {"wrapper": "later", "alpha": 1.0})
    with pytest.raises(ValueError, match="of the wrapper 'later'"):
        load_wrapper(saved)
    (saved / WRAPPER).write_text(text)
    weights = saved / "reinforced" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or was changed"):
        load_wrapper(saved)


def test_what_has_no_decoder_is_refused_before_writing(tmp_path):
    other = OffsetTask(classification_task(lambda params, x: x @ params), 0.0, 1.0)
    for task in (other, language_task(MODEL)):
        with pytest.raises(ValueError, match="only what whp returned for a language"):
            save_wrapper(task, PARAMS, tmp_path / "new")
    assert not list(tmp_path.iterdir())
