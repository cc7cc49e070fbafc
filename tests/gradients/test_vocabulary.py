"""Tokens beyond the vocabulary are told by batch, and nothing else is asked."""

import jax
import numpy as np
import pytest

from jaxunlearn import influence
from jaxunlearn.gradients.vocabulary import check_tokens
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.tasks import language_task

MODEL = GPT2(GPT2Config(vocab_size=7, n_positions=8, n_embd=4, n_layer=1, n_head=1))


def batch(*ids):
    ids = np.asarray([ids], np.int32)
    return {"input_ids": ids, "labels": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.parametrize("loss", [MODEL.per_example_loss, language_task(MODEL)])
def test_a_token_beyond_is_refused(loss):
    check_tokens("train", loss, [batch(0, 6), batch(1, 2)])
    for token in (7, -1):
        with pytest.raises(ValueError, match=f"train: batch 1 holds the token {token}"):
            check_tokens("train", loss, [batch(0, 6), batch(1, token)])
    padded = batch(0, 7)
    padded["attention_mask"][0, 1] = 0
    check_tokens("train", loss, [padded])
    check_tokens("train", lambda params, batch: None, [batch(70)])
    check_tokens("train", loss, [{"x": np.ones(2)}])


def test_scores_refuse_them_before_work():
    params = MODEL.init(key=jax.random.key(0))
    for name, pair in {
        "train": (batch(0, 9), batch(0, 1)),
        "query": (batch(0, 1), batch(0, 9)),
    }.items():
        with pytest.raises(ValueError, match=f"{name}: batch 0 holds the token 9"):
            influence.scores(language_task(MODEL), params, *pair, method="gradient_dot")
