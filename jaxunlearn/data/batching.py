"""Examples to fixed-shape batches of numpy arrays: ordered, padded, counted.

Everything is decided by the arguments: the order of an epoch is a pure function of seed
and epoch, so a run that is resumed, or that wants to know which examples a step of the
past saw, computes it again.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxunlearn.data.records import Record
from jaxunlearn.data.text.examples import (
    TokenizedData,
    check_integer,
    tokenize,
)
from jaxunlearn.types import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order of the examples in one epoch, a permutation of 0..n-1.

    The examples are sorted by a 64-bit hash of seed, epoch and index, which no random
    number generator of any library takes part in: the order never changes.

    Args:
      seed: 0 to 2**64 - 1.
      epoch: Counted from 0.
      n: The number of examples.

    Returns:
      int64[n].

    Reference: the hash is the output function of Steele et al. 2014, "Fast splittable
    pseudorandom number generators" (SplitMix64).

    >>> epoch_order(0, 0, 8)
    array([0, 7, 2, 5, 4, 6, 3, 1])
    """
    check_integer("seed", seed, 0)
    if seed >= 2**64:
        raise ValueError(f"seed must be less than 2**64, got {seed}")
    check_integer("epoch", epoch, 0)
    check_integer("n", n, 1)
    key = mixed_bits(mixed_bits(np.zeros(1, np.uint64), seed), epoch)
    # For one key the hash is one-to-one in the index, so there are no ties.
    return np.argsort(mixed_bits(key, np.arange(n, dtype=np.uint64)), kind="stable")


def step_indices(seed: int, step: int, *, n: int, batch_size: int) -> np.ndarray:
    """Return which examples the batch of a training step holds.

    An epoch has ceil(n / batch_size) steps, and its last batch may be short, so each
    example is seen once an epoch. Costs one sort of n hashes.

    Args:
      seed: The seed of the order.
      step: The step since the beginning of training, counted from 0.
      n: The number of examples.
      batch_size: The number of examples of a full batch.

    Returns:
      int64[b], 1 <= b <= batch_size.
    """
    check_integer("step", step, 0)
    check_integer("n", n, 1)
    check_integer("batch_size", batch_size, 1)
    epoch, position = divmod(step, -(-n // batch_size))
    begin = position * batch_size
    return epoch_order(seed, epoch, n)[begin : begin + batch_size]


def collate(
    data: TokenizedData,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    length: int,
) -> dict[str, np.ndarray]:
    """Build one batch of fixed shape; rows and columns that are left over are padding.

    Args:
      data: The tokenised examples.
      indices: At most ``batch_size`` positions in ``data.examples``, one for each row.
      batch_size: B.
      length: T, at least that of the longest of these examples.

    Returns:
      ``input_ids``, ``labels`` (-100 = no loss), ``attention_mask`` (0 = padding), all
      int32[B,T], ``index`` int32[B] (position in ``data.examples``; -1 = padding row)
      and ``weight`` float32[B] (0 = padding row).

    Raises:
      ValueError: There are too many indices, one is out of range, or an example is
        longer than ``length``.
    """
    n = len(data.examples)
    if len(indices) > batch_size:
        raise ValueError(f"{len(indices)} indices do not fit batch_size={batch_size}")
    batch = {
        "input_ids": np.full((batch_size, length), data.pad_id, np.int32),
        "labels": np.full((batch_size, length), IGNORED_LABEL, np.int32),
        "attention_mask": np.zeros((batch_size, length), np.int32),
        "index": np.full(batch_size, -1, np.int32),
        "weight": np.zeros(batch_size, np.float32),
    }
    for row, index in enumerate(indices):
        if not 0 <= index < n:
            raise ValueError(f"indices must be in 0..{n - 1}, got {index}")
        example = data.examples[index]
        size = len(example.input_ids)
        if size > length:
            raise ValueError(f"example {index} has {size} tokens, length={length}")
        batch["input_ids"][row, :size] = example.input_ids
        batch["labels"][row, :size] = example.labels
        batch["attention_mask"][row, :size] = 1
        batch["index"][row] = index
        batch["weight"][row] = 1
    return batch


def blank_rows(
    batch: dict[str, np.ndarray], indices: Collection[int], *, pad_id: int
) -> dict[str, np.ndarray]:
    """Return a batch in which the rows of some examples are padding.

    Nothing of these examples is left in it, and every other row stays in its place.

    Args:
      batch: A batch as ``collate`` makes it.
      indices: Positions in the data set; those that are not in the batch do nothing.
      pad_id: The id of padding.
    """
    blank = {"input_ids": pad_id, "labels": IGNORED_LABEL, "index": -1}
    gone = np.isin(batch["index"], np.asarray(list(indices), np.int64))
    return {
        name: np.where(
            gone.reshape(-1, *[1] * (x.ndim - 1)), blank.get(name, 0), x
        ).astype(x.dtype)
        for name, x in batch.items()
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch; iterating again gives the same ones again.

    Attributes:
      data: The tokenised examples that ``index`` points into.
      order: int64[n], the examples in the order in which the batches hold them.
      batch_size: B.
      length: T.
    """

    data: TokenizedData
    order: np.ndarray
    batch_size: int
    length: int

    @property
    def truncated(self) -> int:
        """Return how many examples were cut at ``max_length``."""
        return self.data.truncated

    @property
    def tokens_cut(self) -> int:
        """Return how many tokens they lost in all."""
        return self.data.tokens_cut

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the batches as ``collate`` makes them."""
        for begin in range(0, len(self.order), self.batch_size):
            yield collate(
                self.data,
                self.order[begin : begin + self.batch_size],
                batch_size=self.batch_size,
                length=self.length,
            )


def in_order(
    data: TokenizedData,
    *,
    batch_size: int = 32,
    length: int | None = None,
    multiple_of: int = 1,
) -> Batches:
    """Return the batches of the examples as they stand, each example once.

    Args:
      data: Tokenised examples.
      batch_size: B; the last batch is filled up with padding rows.
      length: T; None is the longest example. Give several data sets the same, and
        they share a compiled program.
      multiple_of: Rounds T up to a multiple of this.

    Raises:
      ValueError: There is no example, or a number is out of range.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("multiple_of", multiple_of, 1)
    if not data.examples:
        raise ValueError("data is empty: there is no example to batch")
    length = data.length if length is None else length
    check_integer("length", length, 1)
    rounded = -(-length // multiple_of) * multiple_of
    return Batches(data, np.arange(len(data.examples)), batch_size, rounded)


def batches(
    records: Sequence[Record] | TokenizedData,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    batch_size: int,
    max_length: int,
    seed: int | None = None,
    epoch: int = 0,
    overflow: str = "truncate",
    multiple_of: int = 1,
) -> Batches:
    """Tokenize records and batch them: each example once, all batches of one shape.

    Args:
      records: Records, or what ``tokenize`` made of them, so as not to do it again.
      tokenizer: A Hugging Face tokenizer.
      batch_size: B; the last batch is filled up with padding rows.
      max_length: The most tokens of an example, at most the model's positions.
      seed: The seed of ``epoch_order``; None keeps the order of the records.
      epoch: The epoch, counted from 0; without a seed it changes nothing.
      overflow: What becomes of longer examples, see ``tokenize``.
      multiple_of: Rounds T up to a multiple of this, but not beyond ``max_length``.

    Returns:
      An iterable of batches, see ``collate``, with T the length of the longest example.

    Raises:
      ValueError: ``records`` is empty, or see ``tokenize``.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("multiple_of", multiple_of, 1)
    if isinstance(records, TokenizedData):
        data = records
    else:
        data = tokenize(records, tokenizer, max_length=max_length, overflow=overflow)
    if not data.examples:
        raise ValueError("records is empty: there is nothing to batch")
    if data.length > max_length:
        raise ValueError(
            f"max_length={max_length}, but the data were tokenised to {data.length} "
            "tokens: tokenise them again"
        )
    n = len(data.examples)
    return Batches(
        data=data,
        order=np.arange(n) if seed is None else epoch_order(seed, epoch, n),
        batch_size=batch_size,
        length=min(-(-data.length // multiple_of) * multiple_of, max_length),
    )


def mixed_bits(key: np.ndarray, value: int | np.ndarray) -> np.ndarray:
    """Hash uint64 values under a key with the finaliser of SplitMix64."""
    golden_ratio = np.uint64(0x9E3779B97F4A7C15)
    # Arrays, not scalars: those wrap around in silence, as is meant here.
    counter = np.atleast_1d(np.asarray(value, np.uint64)) + np.uint64(1)
    z = key + counter * golden_ratio
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
