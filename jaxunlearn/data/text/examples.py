"""Records to examples: tokenised, the prompt masked, too long ones cut or split."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxunlearn.data.records import Record, prompt_and_completion
from jaxunlearn.data.text.tokenizer import encode, pad_token_id, template_ids
from jaxunlearn.types import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TruncationWarning(UserWarning):
    """Some examples are longer than ``max_length`` and lost their last tokens."""


class Example(NamedTuple):
    """One row of a batch before padding.

    Attributes:
      input_ids: int32[t].
      labels: int32[t], ``input_ids`` where a token bears loss and -100 elsewhere. Not
        shifted: the model predicts ``labels[i]`` from ``input_ids[:i]``, so
        ``labels[0]`` never counts.
      record: The record it came from, counted from 0.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    record: int


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizedData:
    """Tokenised examples, and what tokenising lost.

    Attributes:
      examples: In the order of the records; a split record gives several.
      truncated: How many examples were cut at ``max_length``.
      tokens_cut: How many tokens they lost in all.
      pad_id: The id that fills padding. Any that the model has an embedding for
        gives the same numbers: no loss and no state looks at it.
    """

    examples: tuple[Example, ...]
    truncated: int
    tokens_cut: int
    pad_id: int = 0

    @property
    def length(self) -> int:
        """Return the number of tokens of the longest example."""
        return max(len(example.input_ids) for example in self.examples)


def subset(data: TokenizedData, indices: Sequence[int]) -> TokenizedData:
    """Return the chosen examples, in the order of ``indices``.

    Args:
      data: Tokenised examples.
      indices: Positions in ``data.examples``, at least one.

    Returns:
      The examples; what was cut of others does not count here any more.
    """
    if len(indices) == 0:
        raise ValueError("indices is empty: choose at least one example")
    chosen = tuple(data.examples[i] for i in indices)
    return TokenizedData(chosen, 0, 0, data.pad_id)


def tokenize(
    records: Sequence[Record],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    overflow: str = "truncate",
) -> TokenizedData:
    """Tokenize records; loss is on the completion and on the end-of-text token.

    Prompt and completion are tokenised apart, so the border between them does not
    depend on what follows. Around both stand the tokens of the tokenizer's own
    template, those in front without loss, and at the end, where the template has none,
    the end-of-text token; what the text brings itself is not doubled. The end bears
    loss although it may also be the padding token: padding is known by its place, never
    by its id.

    Args:
      records: At least one record, see ``prompt_and_completion``.
      tokenizer: A Hugging Face tokenizer with an end-of-text token.
      max_length: The most tokens of an example: 2 or more, 3 or more to split.
      overflow: What becomes of longer examples. "truncate" cuts their end off, and
        with it the end of text, which was not reached. "split" cuts a text into
        pieces of ``max_length`` tokens, each an example of its own (the last piece
        has at least 2 tokens, since one alone predicts nothing); a record with a
        prompt is truncated all the same, because its continuation means nothing
        without the prompt.

    Returns:
      The examples and the counts of what was cut.

    Raises:
      ValueError: ``records`` is empty, a record is unsound, an option is out of range,
        or an example has no token with loss left.

    Warns:
      TruncationWarning: Examples were cut; says how many, and how many tokens.
    """
    if overflow not in ("truncate", "split"):
        raise ValueError(f"overflow must be 'truncate' or 'split', got {overflow!r}")
    check_integer("max_length", max_length, 3 if overflow == "split" else 2)
    if len(records) == 0:
        raise ValueError("records is empty: there is nothing to tokenise")
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer has no eos_token: set one, or use load_tokenizer")
    pairs = [checked_pair(i, record) for i, record in enumerate(records)]
    prompts = encode(tokenizer, [prompt for prompt, _ in pairs])
    completions = encode(tokenizer, [completion for _, completion in pairs])
    start, end = template_ids(tokenizer)
    if tokenizer.eos_token_id not in end:
        end = [*end, tokenizer.eos_token_id]

    examples, truncated, tokens_cut = [], 0, 0
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        own = prompt + completion
        begun = opened(start, own)
        closing = [] if own[-1:] == end[-1:] else end
        ids = np.array(begun + closing, np.int32)
        without_loss = len(begun) - len(completion)
        labels = ids.copy()
        labels[:without_loss] = IGNORED_LABEL
        first_with_loss = max(without_loss, 1)
        if first_with_loss >= min(len(ids), max_length):
            raise ValueError(
                f"records[{i}] has {len(ids)} tokens and loss from token "
                f"{first_with_loss} on, so max_length={max_length} leaves nothing to "
                f"learn: use max_length >= {first_with_loss + 1}, "
                f"{len(ids)} to keep all of it, or leave the record out"
            )
        if overflow == "split" and not prompt:
            cuts = cut_places(len(ids), max_length)
        else:
            cuts = [0, min(len(ids), max_length)]
            truncated += len(ids) > max_length
            tokens_cut += len(ids) - cuts[-1]
        for begin, stop in zip(cuts, cuts[1:], strict=False):
            examples.append(Example(ids[begin:stop], labels[begin:stop], i))
    if truncated:
        warnings.warn(
            f"{truncated} of {len(examples)} examples are longer than "
            f"max_length={max_length} and were cut: {tokens_cut} tokens are lost",
            TruncationWarning,
            stacklevel=2,
        )
    return TokenizedData(
        tuple(examples), truncated, tokens_cut, pad_token_id(tokenizer)
    )


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Check an integer argument.

    Raises:
      ValueError: It is not an integer, or less than ``minimum``.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise ValueError(
            f"{name} must be an integer of at least {minimum}, got {value!r}"
        )


def checked_pair(i: int, record: Any) -> tuple[str, str]:
    """Return a record's prompt and completion; say which record has none."""
    try:
        return prompt_and_completion(record)
    except ValueError as error:
        raise ValueError(f"records[{i}]: {error}") from error


def start_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that stand before every text and every prompt."""
    return template_ids(tokenizer)[0]


def opened(start: list[int], ids: list[int]) -> list[int]:
    """Return tokens with ``start`` in front, unless they begin with it themselves."""
    return ids if ids[: len(start)] == start else start + ids


def cut_places(size: int, max_length: int) -> list[int]:
    """Return where a text of so many tokens is cut, its two ends included."""
    cuts = [*range(0, size, max_length), size]
    if size > max_length and size - cuts[-2] == 1:
        cuts[-2] -= 1
    return cuts
