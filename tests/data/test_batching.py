import collections
import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn.data.batching import (
    batches,
    blank_rows,
    collate,
    epoch_order,
    in_order,
    step_indices,
)
from jaxunlearn.data.formats import read_records
from jaxunlearn.data.records import record_text
from jaxunlearn.data.text.examples import (
    Example,
    TokenizedData,
    TruncationWarning,
    tokenize,
)
from jaxunlearn.data.text.tokenizer import load_tokenizer, train_tokenizer
from jaxunlearn.types import IGNORED_LABEL

RECORDS = [
    {
        "question": f"Where was person {i} born?",
        "answer": "In town" + " seven" * (i % 5),
    }
    for i in range(11)
]
DTYPES = {
    "input_ids": np.int32,
    "labels": np.int32,
    "attention_mask": np.int32,
    "index": np.int32,
    "weight": np.float32,
}
seeds = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(map(record_text, RECORDS), vocab_size=300)


@pytest.fixture(scope="module")
def data(tokenizer):
    return tokenize(RECORDS, tokenizer, max_length=100)


def check_batch(batch, data, *, batch_size, length):
    """Every law of one batch, position by position."""
    assert batch.keys() == DTYPES.keys()
    for name, dtype in DTYPES.items():
        is_row = name in ("index", "weight")
        assert batch[name].shape == ((batch_size,) if is_row else (batch_size, length))
        assert batch[name].dtype == dtype
    for row, index in enumerate(batch["index"]):
        size = 0
        if index >= 0:
            size = len(data.examples[index].input_ids)
            for name in ("input_ids", "labels"):
                expected = getattr(data.examples[index], name)
                np.testing.assert_array_equal(batch[name][row, :size], expected)
        assert batch["weight"][row] == (index >= 0)
        assert (batch["input_ids"][row, size:] == data.pad_id).all()
        assert (batch["labels"][row, size:] == IGNORED_LABEL).all()
        assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (
            length - size
        )
    labels, tokens = batch["labels"], batch["input_ids"]
    assert ((labels == IGNORED_LABEL) | (labels == tokens)).all()


def mixed(key, value):
    """SplitMix64's output function on Python's integers."""
    z = (key + (value + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@given(seeds, st.integers(0, 1000), st.integers(1, 60))
@settings(deadline=None)
def test_epoch_order_is_a_permutation_and_a_pure_function(seed, epoch, n):
    order = epoch_order(seed, epoch, n)
    assert sorted(order.tolist()) == list(range(n))
    key = mixed(mixed(0, seed), epoch)
    assert order.tolist() == sorted(range(n), key=lambda i: mixed(key, i))


def test_splitmix64_itself():
    # The first outputs of the published generator with seed 0.
    assert [mixed(0, i) for i in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_epoch_order_is_uniform():
    counts = collections.Counter(
        tuple(epoch_order(seed, epoch, 4).tolist())
        for seed in range(40)
        for epoch in range(60)
    )
    assert len(counts) == 24
    # Chi-squared, 23 degrees of freedom: 49.7 is the 0.999 quantile.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7


@given(seeds, st.integers(1, 30), st.integers(1, 12), st.integers(0, 3))
@settings(deadline=None)
def test_the_steps_of_an_epoch_are_its_order(seed, n, batch_size, epoch):
    steps = -(-n // batch_size)
    found = [
        step_indices(seed, epoch * steps + i, n=n, batch_size=batch_size)
        for i in range(steps)
    ]
    assert all(len(indices) == batch_size for indices in found[:-1])
    assert 1 <= len(found[-1]) <= batch_size
    np.testing.assert_array_equal(np.concatenate(found), epoch_order(seed, epoch, n))


@given(st.integers(1, 14), st.sampled_from([None, 0, 7]), st.integers(0, 2))
@settings(deadline=None)
def test_every_example_is_in_the_batches_once(tokenizer, data, batch_size, seed, epoch):
    options = {"batch_size": batch_size, "max_length": 100}
    found = batches(data, tokenizer, seed=seed, epoch=epoch, **options)
    n = len(RECORDS)
    assert found.length == data.length
    for _ in range(2):  # iterating again gives the same
        index = []
        for step, batch in enumerate(found):
            check_batch(batch, data, batch_size=batch_size, length=data.length)
            real = batch["index"][batch["weight"] > 0]
            index.extend(real.tolist())
            if seed is not None:
                first = epoch * len(found)
                expected = step_indices(seed, first + step, n=n, batch_size=batch_size)
                np.testing.assert_array_equal(real, expected)
        assert step + 1 == len(found) == -(-n // batch_size)
        assert sorted(index) == list(range(n))
    if seed is None:
        assert index == list(range(n))


def test_records_and_tokenized_data_give_the_same_batches(tokenizer, data):
    one = batches(RECORDS, tokenizer, batch_size=4, max_length=100, seed=1)
    other = batches(data, tokenizer, batch_size=4, max_length=100, seed=1)
    for left, right in zip(one, other, strict=True):
        for name in DTYPES:
            np.testing.assert_array_equal(left[name], right[name])


def test_end_of_text_is_attended_to_and_learned(tokenizer, data):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for batch in batches(data, tokenizer, batch_size=4, max_length=100):
        last = batch["attention_mask"].sum(1) - 1
        for row in np.flatnonzero(batch["weight"]):
            assert batch["labels"][row, last[row]] == tokenizer.eos_token_id
            assert batch["attention_mask"][row, last[row]] == 1


@pytest.mark.parametrize("multiple_of", [1, 8, 64])
def test_length_is_rounded_up_but_not_beyond_max_length(tokenizer, data, multiple_of):
    longest = data.length
    for max_length in (longest, longest + 1, 100):
        found = batches(
            data,
            tokenizer,
            batch_size=4,
            max_length=max_length,
            multiple_of=multiple_of,
        )
        rounded = -(-longest // multiple_of) * multiple_of
        assert found.length == min(rounded, max_length)
        assert all(batch["labels"].shape == (4, found.length) for batch in found)


def test_what_was_cut_is_told(tokenizer, data):
    with pytest.warns(TruncationWarning):
        found = batches(RECORDS, tokenizer, batch_size=4, max_length=data.length - 3)
    assert found.truncated == found.data.truncated > 0
    assert found.tokens_cut == found.data.tokens_cut >= 3
    texts = [{"text": record_text(record)} for record in RECORDS]
    options = {"batch_size": 4, "max_length": 12, "overflow": "split"}
    found = batches(texts, tokenizer, **options)
    assert found.truncated == 0
    assert len(found.data.examples) > len(texts)
    index = [i for batch in found for i in batch["index"] if i >= 0]
    assert index == list(range(len(found.data.examples)))


def test_padding_token_falls_back_on_the_end_of_text(tokenizer, data):
    from transformers import PreTrainedTokenizerFast

    without_padding = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    assert without_padding.pad_token_id is None
    found = batches(RECORDS, without_padding, batch_size=4, max_length=100)
    assert found.data.pad_id == tokenizer.eos_token_id


@given(st.integers(1, 14), st.sampled_from([None, 40]), st.sampled_from([1, 8]))
@settings(deadline=None)
def test_in_order_every_example_stands_once_in_its_place(
    data, batch_size, length, multiple_of
):
    found = in_order(
        data, batch_size=batch_size, length=length, multiple_of=multiple_of
    )
    longest = data.length if length is None else length
    assert found.length == -(-longest // multiple_of) * multiple_of
    for batch in found:
        check_batch(batch, data, batch_size=batch_size, length=found.length)
    index = np.concatenate([batch["index"] for batch in found])
    assert index[: len(RECORDS)].tolist() == list(range(len(RECORDS)))
    assert (index[len(RECORDS) :] == -1).all()
    assert len(index) == len(found) * batch_size


def test_batches_of_nothing_are_refused(data):
    with pytest.raises(ValueError, match="data is empty"):
        in_order(TokenizedData((), 0, 0))
    with pytest.raises(ValueError, match="batch_size must be"):
        in_order(data, batch_size=0)


def test_blank_rows_are_padding_and_the_others_stay():
    ids = [np.arange(1, n, dtype=np.int32) for n in (4, 6, 3, 5)]
    data = TokenizedData(tuple(Example(i, i, 0) for i in ids), 0, 0, 9)
    options = {"batch_size": 5, "length": 5}
    whole = collate(data, [2, 0, 3, 1], **options)
    found = blank_rows(whole, {0, 1, 77}, pad_id=9)
    for name, rows in found.items():
        assert rows.dtype == whole[name].dtype
        # The last row of the batch is padding from the beginning.
        np.testing.assert_array_equal(rows, whole[name][[0, 4, 2, 4, 4]])
    assert whole["index"].tolist() == [2, 0, 3, 1, -1]


def test_collate_misuse():
    ids = np.arange(5, dtype=np.int32)
    data = TokenizedData((Example(ids, ids, 0),) * 3, 0, 0, pad_id=9)
    options = {"batch_size": 2, "length": 5}
    check_batch(collate(data, [2], **options), data, **options)
    with pytest.raises(ValueError, match="3 indices do not fit batch_size=2"):
        collate(data, [0, 1, 2], **options)
    for index in (-1, 3):
        with pytest.raises(ValueError, match=f"indices must be in 0..2, got {index}"):
            collate(data, [index], **options)
    with pytest.raises(ValueError, match="example 1 has 5 tokens, length=4"):
        collate(data, [1], **options | {"length": 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"multiple_of": 0}, "multiple_of must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
        ({"seed": 2**64}, r"seed must be less than 2\*\*64"),
        ({"seed": 0, "epoch": -1}, "epoch must be an integer of at least 0, got -1"),
        ({"max_length": 12}, "max_length=12, but the data were tokenised to"),
    ],
)
def test_batches_misuse(tokenizer, data, options, message):
    with pytest.raises(ValueError, match=message):
        batches(data, tokenizer, **{"batch_size": 4, "max_length": 100} | options)


def test_nothing_to_batch(tokenizer, data):
    for empty in ([], dataclasses.replace(data, examples=())):
        with pytest.raises(ValueError, match="records is empty"):
            batches(empty, tokenizer, batch_size=4, max_length=100)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        epoch_order(0, 0, 0)
    with pytest.raises(ValueError, match="step must be an integer of at least 0"):
        step_indices(0, -1, n=3, batch_size=2)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        step_indices(0, 0, n=3, batch_size=0)


def test_real_tofu(data_dir):
    tokenizer = load_tokenizer(data_dir / "gpt2_tokenizer")
    records = read_records(data_dir / "tofu" / "full.json")
    start = time.process_time()
    found = batches(records, tokenizer, batch_size=32, max_length=256, seed=0)
    assert time.process_time() - start < 3
    assert (len(found), found.truncated) == (125, 0)
    for batch in found:
        for row, index in enumerate(batch["index"]):
            size = batch["attention_mask"][row].sum()
            decoded = tokenizer.decode(batch["input_ids"][row, :size])
            assert decoded == record_text(records[index]) + tokenizer.eos_token
            learned = batch["labels"][row][batch["labels"][row] != IGNORED_LABEL]
            answer = f" {records[index]['answer']}{tokenizer.eos_token}"
            assert tokenizer.decode(learned) == answer
