"""A small GPT-2 with weights far from their start, words as tokens, and records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import collate, tokenize
from jaxunlearn.models import GPT2, GPT2Config

END = "<|endoftext|>"
FRAME = "Question: Answer: what of".split()


@pytest.fixture(scope="session")
def model():
    return GPT2(
        GPT2Config(
            vocab_size=97,
            n_positions=48,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.1,  # which no attack may use
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


@pytest.fixture(scope="session")
def params(model):
    return drawn(model, 0)


@pytest.fixture(scope="session")
def other_params(model):
    return drawn(model, 1)


def drawn(model, seed):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))

    def draw(path, x):
        normal = 0.25 * rng.standard_normal(x.shape)
        return jnp.asarray(normal + (path[-1].key == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [END, "<unk>", *FRAME, *(f"w{i}" for i in range(97 - 2 - len(FRAME)))]
    level = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=level,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def records():
    """Seven questions with answers of one to three words."""
    return [
        {
            "question": f"what of w{i}",
            "answer": " ".join(f"w{10 * i + j}" for j in range(1 + i % 3)),
        }
        for i in range(7)
    ]


@pytest.fixture(scope="session")
def tokens(tokenizer):
    """From records to tokenised data."""
    return lambda records: tokenize(records, tokenizer, max_length=48)


@pytest.fixture(scope="session")
def data(tokens, records):
    return tokens(records)


@pytest.fixture(scope="session")
def logits_of(model, params, data):
    """The logits of each example, float32[T,V] each."""
    batch = collate(data, range(7), batch_size=7, length=data.length)
    return np.asarray(jax.jit(model.logits)(params, batch))
