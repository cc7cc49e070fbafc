"""A second call of the same method compiles nothing, whatever the first one was."""

import jax
import numpy as np
import pytest

from jaxunlearn import influence
from jaxunlearn.models import GPT2, GPT2Config

CONFIG = GPT2Config(vocab_size=17, n_positions=5, n_embd=4, n_layer=2, n_head=2)


def batches(seed, count):
    draw, found = np.random.default_rng(seed), []
    for i in range(count):
        ids = draw.integers(0, 17, (2, 5)).astype(np.int32)
        index = np.arange(2 * i, 2 * i + 2, dtype=np.int32)
        whole = {"input_ids": ids, "labels": ids, "attention_mask": np.ones_like(ids)}
        found.append({**whole, "index": index})
    return found


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("datainf", {"damping": 0.1}),
        ("woodbury", {"damping": 0.1}),
        ("kfac", {}),
        ("self_influence", {}),
    ],
)
def test_a_second_call_compiles_nothing(method, options, compilations):
    def scored():
        model = GPT2(CONFIG)
        query = None if method == "self_influence" else batches(1, 1)
        found = influence.scores(
            *(model.per_example_loss, params, batches(0, 2), query),
            method=method,
            **options,
        )
        return found.scores

    params = GPT2(CONFIG).init(key=jax.random.key(0))
    first = scored()
    compilations.clear()
    np.testing.assert_array_equal(scored(), first)
    assert not compilations
