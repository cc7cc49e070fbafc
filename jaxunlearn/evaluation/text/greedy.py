"""What a model answers: texts from prompts, in batches of one shape."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxunlearn.data.text.examples import opened, start_ids
from jaxunlearn.data.text.tokenizer import encode
from jaxunlearn.gradients.batching import Static, compiled
from jaxunlearn.models.generation import generate
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Batch, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MULTIPLE_OF = 16  # prompts are padded to a multiple, so that few programs serve all


def answers(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    temperature: float = 0.0,
    key: jax.Array | None = None,
) -> list[str]:
    """Return the continuation of each prompt, cut at the end of text and stripped.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer; the end-of-text token ends an answer.
      prompts: Texts, at least one token each. They are not cut: with the answer, each
        has to fit the model.
      max_new_tokens: Most tokens of an answer.
      batch_size: Prompts at a time; greedy answers do not depend on it.
      temperature: 0 is greedy; above, tokens are drawn.
      key: Needed above 0.

    Raises:
      ValueError: There is no prompt, one has no token, or one is too long; the message
        names it.
    """
    settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    drawn = {"temperature": temperature, "key": key}
    texts = continuations(model, params, tokenizer, prompts, **settings, **drawn)
    return [text.strip() for text in texts]


def continuations(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    **settings: Any,
) -> list[str]:
    """Return what :func:`answers` does, white space kept; its arguments."""
    ids = answer_ids(
        model,
        params,
        prompt_ids(tokenizer, prompts),
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    return texts_of(tokenizer, ids)


def texts_of(tokenizer: "PreTrainedTokenizerBase", ids: np.ndarray) -> list[str]:
    """Return rows of tokens as texts, each up to its first end of text."""
    texts = []
    for row in ids:
        stop = np.flatnonzero(row == tokenizer.eos_token_id)
        kept = row[: stop[0]] if len(stop) else row
        # Typed as text or a list of texts; for one row of tokens it is one text.
        text: Any = tokenizer.decode(kept.tolist(), skip_special_tokens=True)
        texts.append(text)
    return texts


def answer_ids(
    model: GPT2,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    eos_token_id: int | None,
    max_new_tokens: int,
    batch_size: int = 32,
    temperature: float = 0.0,
    key: jax.Array | None = None,
) -> np.ndarray:
    """Return the continuations of tokenised prompts, int32[n, max_new_tokens].

    Arguments as in :func:`answers`; after ``eos_token_id``, a row holds nothing else.
    """
    if len(prompts) == 0:
        raise ValueError("prompts is empty: there is nothing to answer")
    limit = model.positions - max_new_tokens
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= limit:
            raise ValueError(
                f"prompts[{number}] has {len(prompt)} tokens: with max_new_tokens="
                f"{max_new_tokens} the model takes 1 to {limit}"
            )
    # Prompts of like length stand together, so that short ones are not padded to the
    # longest of all; each finds its way back to its place.
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    found = np.empty((len(prompts), max_new_tokens), np.int32)
    how = Static(
        (
            ("max_new_tokens", max_new_tokens),
            ("eos_token_id", eos_token_id),
            ("temperature", temperature),
        )
    )
    for number, begin in enumerate(range(0, len(order), batch_size)):
        rows = order[begin : begin + batch_size]
        longest = max(len(prompts[i]) for i in rows)
        width = min(-(-longest // MULTIPLE_OF) * MULTIPLE_OF, limit)
        # What fills the padding changes nothing: no row looks at it.
        input_ids = np.zeros((batch_size, width), np.int32)
        mask = np.zeros((batch_size, width), np.int32)
        mask[:, 0] = 1  # a padding row needs a token to look at
        for row, i in enumerate(rows):
            input_ids[row, : len(prompts[i])] = prompts[i]
            mask[row, : len(prompts[i])] = 1
        part = None if key is None else jax.random.fold_in(key, number)
        batch = {"input_ids": input_ids, "attention_mask": mask}
        ids = compiled(Partial(generated, model, params, how, part), batch)
        found[rows] = np.asarray(ids)[: len(rows)]
    return found


def generated(
    model: GPT2, params: Params, how: Static, key: jax.Array | None, batch: Batch
) -> jax.Array:
    """Return the continuations of a batch of prompts; ``how`` names the options."""
    return generate(
        model,
        params,
        batch["input_ids"],
        batch["attention_mask"],
        **dict(how.value),
        key=key,
    )


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]
) -> list[list[int]]:
    """Return prompts as tokens, as they stand before an answer in training."""
    if len(prompts) == 0:
        raise ValueError("prompts is empty: there is nothing to answer")
    start = start_ids(tokenizer)
    return [opened(start, ids) for ids in encode(tokenizer, prompts)]
