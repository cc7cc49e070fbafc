"""Sampling: greedy decoding shows one answer; the truth may be another, likely one.

Two ways to further answers. Draws follow the model's probabilities, so they give a
confident refusal again and again. Branches force each of the likeliest first tokens
once and go on greedily: what stands behind a refusal shows with the first word past it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.data import Example, TokenizedData, in_order
from jaxunlearn.evaluation.attacks.recovered import Recovered, largest_so_far
from jaxunlearn.evaluation.text.greedy import answer_ids, answers, prompt_ids, texts_of
from jaxunlearn.evaluation.text.rouge_scores import check_words, rouge_l
from jaxunlearn.gradients.batching import Static, example_rows
from jaxunlearn.models.cross_entropy import head_logits
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Batch, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def sampling(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    truths: Sequence[str],
    *,
    key: jax.Array,
    samples: int = 16,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch_size: int = 32,
) -> Recovered:
    """Draw several answers a prompt and score the best of k by ROUGE-L recall.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      prompts: n prompts.
      truths: Their true answers.
      key: Of the draws.
      samples: K, answers drawn a prompt.
      temperature: Above 0.
      max_new_tokens: Most tokens of an answer.
      batch_size: Answers at a time.

    Returns:
      Strengths 0 (the greedy answer), then k = 1, 2, 4, ... K; values are the expected
      recall of the best of k draws, 0 to 1.

    Raises:
      ValueError: ``samples`` is below 1, ``temperature`` is not above 0, or a truth
        has no words.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: at least 1")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: above 0, else all are equal")
    check_words(truths)
    settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    greedy = answers(model, params, tokenizer, prompts, **settings)
    drawn = answers(
        model,
        params,
        tokenizer,
        [prompt for prompt in prompts for _ in range(samples)],
        temperature=temperature,
        key=key,
        **settings,
    )
    scores = recalls(truths, drawn, samples)
    ks = doublings(samples)
    values = [rouge_l(truths, greedy).recall, *(expected_best(scores, k) for k in ks)]
    return Recovered((0, *ks), np.stack(values))


def branching(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    truths: Sequence[str],
    *,
    branches: int = 16,
    max_new_tokens: int = 64,
    batch_size: int = 32,
) -> Recovered:
    """Continue greedily from each of the likeliest first tokens; score the best.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      prompts: n prompts.
      truths: Their true answers.
      branches: K, first tokens a prompt, from the likeliest on.
      max_new_tokens: Most tokens of an answer, at least 2.
      batch_size: Answers at a time; changes nothing.

    Returns:
      Strengths 0 (the greedy answer), then one less than the number of branches: 1, 3,
      7, ... K - 1 more; values are the best ROUGE-L recall so far, 0 to 1.

    Raises:
      ValueError: ``branches`` is not 1 to the size of the vocabulary, or a truth has
        no words.

    Source: the branches of Wang and Zhou 2024, Chain-of-thought reasoning without
    prompting, section 2.2.
    """
    if not 1 <= branches <= model.config.vocab_size:
        raise ValueError(f"branches={branches}: 1 to {model.config.vocab_size} tokens")
    check_words(truths)
    asked = prompt_ids(tokenizer, prompts)
    starts = likeliest_tokens(model, params, asked, branches, batch_size=batch_size)
    rest = answer_ids(
        model,
        params,
        [
            [*ids, int(token)]
            for ids, row in zip(asked, starts, strict=True)
            for token in row
        ],
        eos_token_id=tokenizer.eos_token_id,
        max_new_tokens=max_new_tokens - 1,
        batch_size=batch_size,
    )
    ids = np.concatenate([starts.reshape(-1, 1), rest], axis=1)
    texts = [text.strip() for text in texts_of(tokenizer, ids)]
    best = largest_so_far(recalls(truths, texts, branches).T)
    ks = doublings(branches)
    return Recovered(tuple(k - 1 for k in ks), best[[k - 1 for k in ks]])


def likeliest_tokens(
    model: GPT2,
    params: Params,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Return the likeliest next tokens of each prompt, int32[n, count], in order."""
    rows = [np.asarray(ids, np.int32) for ids in prompts]
    data = TokenizedData(tuple(Example(x, x, i) for i, x in enumerate(rows)), 0, 0)
    look = Partial(next_tokens, model, params, Static(count))
    return example_rows(look, in_order(data, batch_size=batch_size))


def next_tokens(model: GPT2, params: Params, count: Static, batch: Batch) -> jax.Array:
    """Return the likeliest tokens after the last one of each row, int32[B,count]."""
    hidden = model.hidden_states(params, batch)
    last = jnp.maximum(jnp.sum(batch["attention_mask"], axis=1) - 1, 0)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    logits = head_logits(hidden, model.head(params))[:, 0]
    return jax.lax.top_k(logits, count.value)[1]


def recalls(truths: Sequence[str], texts: Sequence[str], each: int) -> np.ndarray:
    """Return the ROUGE-L recall of ``each`` texts a truth, float64[n, each]."""
    repeated = [truth for truth in truths for _ in range(each)]
    return rouge_l(repeated, texts).recall.reshape(len(truths), each)


def expected_best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the expected best of k draws, estimated without bias from K, float64[n].

    The mean over all subsets of size k: with the scores in rising order, ``sum_i s_(i)
    C(i-1, k-1) / C(K, k)``.

    Args:
      scores: [n, K].
      k: 1 to K.

    Raises:
      ValueError: k is out of range.

    Source: the estimator behind pass@k; Chen et al. 2021, Evaluating large language
    models trained on code, eq. 1, for any score.

    >>> expected_best(np.array([[0.0, 1.0, 0.5]]), 2).round(4).tolist()
    [0.8333]
    """
    scores = np.sort(np.asarray(scores, np.float64), axis=1)
    size = scores.shape[1]
    if not 1 <= k <= size:
        raise ValueError(f"k={k}: 1 to {size}, the number of samples")
    # C(i-1, k-1) / C(K, k), by its ratio to the next: no large factorials.
    weights = np.zeros(size)
    weights[-1] = k / size
    for i in range(size - 1, k - 1, -1):
        weights[i - 1] = weights[i] * (i - k + 1) / i
    return scores @ weights


def doublings(largest: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and ``largest``.

    >>> doublings(6)
    (1, 2, 4, 6)
    """
    powers = [2**i for i in range(largest.bit_length()) if 2**i < largest]
    return (*powers, largest)
