"""A tiny model with its tokenizer, shared by the tests of this room."""

import types

import pytest


@pytest.fixture(scope="session")
def small():
    """Model, params, tokenizer and records of questions."""
    import jax

    from jaxunlearn.data import record_text, train_tokenizer
    from jaxunlearn.models import GPT2, GPT2Config

    colours = ["red", "blue", "green", "grey"]
    records = [
        {
            "question": f"What colour is boat {i}?",
            "answer": f"It is {colours[i % 4]}" + ", as ever" * (i % 3) + ".",
            "paraphrased_answer": f"{colours[i % 4]} it is.",
            "perturbed_answer": [f"It is {c}." for c in colours if c != colours[i % 4]],
        }
        for i in range(7)
    ]
    tokenizer = train_tokenizer(map(record_text, records), vocab_size=290)
    model = GPT2(
        GPT2Config(vocab_size=290, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    )
    params = model.init(key=jax.random.key(1))
    # Away from uniform predictions, so that ranks and variances mean something.
    params = jax.tree.map(lambda x: 4 * x, params)
    return types.SimpleNamespace(
        model=model, params=params, tokenizer=tokenizer, records=records
    )
