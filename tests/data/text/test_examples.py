import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxunlearn.data.records import prompt_and_completion, record_text
from jaxunlearn.data.text.examples import TruncationWarning, tokenize
from jaxunlearn.data.text.tokenizer import load_tokenizer, train_tokenizer
from jaxunlearn.types import IGNORED_LABEL

QA = [
    {"question": f"Where was person {i} born?", "answer": "In town" + " seven" * i}
    for i in range(12)
]
TEXTS = [{"text": "It rained on day one." + " And then again." * i} for i in range(12)]
words = st.text("abc éx.\n", min_size=1).filter(str.strip)
any_record = st.one_of(
    st.builds(lambda q, a: {"question": q, "answer": a}, words, words),
    st.builds(lambda text: {"text": text}, words.filter(lambda text: len(text) > 1)),
    st.builds(lambda q, a: {"prompt": q, "gt": a}, words, words),
)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [record_text(record) for record in QA + TEXTS]
    return train_tokenizer(texts, vocab_size=300)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.lists(any_record, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_loss_is_on_the_completion_and_its_end(tokenizer, records):
    data = tokenize(records, tokenizer, max_length=1000)
    assert len(data.examples) == len(records)
    assert (data.truncated, data.tokens_cut) == (0, 0)
    assert data.length == max(len(example.input_ids) for example in data.examples)
    for i, (record, example) in enumerate(zip(records, data.examples, strict=True)):
        prompt, completion = prompt_and_completion(record)
        before = ids(tokenizer, prompt)
        learned = ids(tokenizer, completion) + [tokenizer.eos_token_id]
        assert example.input_ids.tolist() == before + learned
        assert example.labels.tolist() == [IGNORED_LABEL] * len(before) + learned
        assert example.input_ids.dtype == example.labels.dtype == np.int32
        assert example.record == i
        decoded = tokenizer.decode(example.input_ids)
        assert decoded == record_text(record) + tokenizer.eos_token


def test_end_of_text_bears_loss_although_it_is_the_padding_token(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for example in tokenize(QA + TEXTS, tokenizer, max_length=200).examples:
        assert example.labels[-1] == tokenizer.eos_token_id


def test_end_of_text_is_not_doubled(tokenizer):
    (example,) = tokenize(
        [{"text": "It rained.<|endoftext|>"}], tokenizer, max_length=50
    ).examples
    assert (example.input_ids == tokenizer.eos_token_id).sum() == 1


@given(st.lists(any_record, min_size=1, max_size=5), st.integers(2, 40))
@settings(max_examples=50, deadline=None)
def test_truncation_keeps_the_beginning_and_counts_the_rest(
    tokenizer, records, max_length
):
    whole = tokenize(records, tokenizer, max_length=1000).examples
    assume(all((one.labels[1:max_length] != IGNORED_LABEL).any() for one in whole))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = tokenize(records, tokenizer, max_length=max_length)
    cut = [len(example.input_ids) - max_length for example in whole]
    assert data.truncated == sum(size > 0 for size in cut)
    assert data.tokens_cut == sum(size for size in cut if size > 0)
    assert len(caught) == (data.truncated > 0)
    for example, shorter in zip(whole, data.examples, strict=True):
        np.testing.assert_array_equal(shorter.input_ids, example.input_ids[:max_length])
        np.testing.assert_array_equal(shorter.labels, example.labels[:max_length])


def test_truncation_warning_tells_the_counts(tokenizer):
    lengths = [
        len(example.input_ids)
        for example in tokenize(TEXTS, tokenizer, max_length=1000).examples
    ]
    lost = [length - 30 for length in lengths if length > 30]
    message = (
        f"{len(lost)} of 12 examples are longer than max_length=30 and were cut: "
        f"{sum(lost)} tokens"
    )
    with pytest.warns(TruncationWarning, match=message) as caught:
        tokenize(TEXTS, tokenizer, max_length=30)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@given(
    st.lists(words.filter(lambda text: len(text) > 1), min_size=1, max_size=4),
    st.integers(3, 12),
)
@settings(max_examples=100, deadline=None)
def test_splitting_loses_no_token(tokenizer, texts, max_length):
    records = [{"text": text} for text in texts]
    whole = tokenize(records, tokenizer, max_length=1000).examples
    data = tokenize(records, tokenizer, max_length=max_length, overflow="split")
    assert (data.truncated, data.tokens_cut) == (0, 0)
    for i, example in enumerate(whole):
        pieces = [piece for piece in data.examples if piece.record == i]
        for field in ("input_ids", "labels"):
            joined = np.concatenate([getattr(piece, field) for piece in pieces])
            np.testing.assert_array_equal(joined, getattr(example, field))
        sizes = [len(piece.input_ids) for piece in pieces]
        assert len(sizes) == -(-len(example.input_ids) // max_length)
        assert all(size == max_length for size in sizes[:-2])
        assert min(sizes) >= 2
        assert max(sizes) <= max_length
        if len(sizes) > 1:
            assert sizes[-2] == max_length - (sizes[-2] + sizes[-1] == max_length + 1)


def test_a_record_with_a_prompt_is_truncated_not_split(tokenizer):
    with pytest.warns(TruncationWarning):
        split = tokenize(QA, tokenizer, max_length=30, overflow="split")
    with pytest.warns(TruncationWarning):
        cut = tokenize(QA, tokenizer, max_length=30)
    assert split.truncated == cut.truncated > 0
    for one, other in zip(split.examples, cut.examples, strict=True):
        np.testing.assert_array_equal(one.input_ids, other.input_ids)


def test_template_with_a_beginning_of_text_token(tokenizer):
    from tokenizers.processors import TemplateProcessing

    other = train_tokenizer([record_text(record) for record in QA], vocab_size=300)
    other.add_special_tokens({"bos_token": "<s>"})
    start = other.bos_token_id
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    for record in (QA[1], TEXTS[1]):
        (example,) = tokenize([record], other, max_length=200).examples
        prompt, completion = prompt_and_completion(record)
        learned = ids(other, completion) + [other.eos_token_id]
        assert example.input_ids.tolist() == [start, *ids(other, prompt), *learned]
        assert example.labels[-len(learned) :].tolist() == learned
        assert (example.labels[: -len(learned)] == IGNORED_LABEL).all()


def test_nothing_left_to_learn_is_an_error_that_says_what_is_needed(tokenizer):
    prompt, completion = (len(ids(tokenizer, s)) for s in prompt_and_completion(QA[1]))
    message = (
        rf"records\[1\] has {prompt + completion + 1} tokens and loss from token "
        rf"{prompt} on, so max_length={prompt} leaves nothing to learn: use "
        rf"max_length >= {prompt + 1}"
    )
    records = [{"question": "a", "answer": "b"}, QA[1]]
    with pytest.raises(ValueError, match=message):
        tokenize(records, tokenizer, max_length=prompt)
    with pytest.warns(TruncationWarning):
        data = tokenize(records, tokenizer, max_length=prompt + 1)
    assert (data.examples[1].labels != IGNORED_LABEL).sum() == 1
    with pytest.raises(ValueError, match=r"records\[0\] has 1 tokens .*leave the rec"):
        tokenize([{"text": "<|endoftext|>"}], tokenizer, max_length=9)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "records is empty"),
        (QA, {"max_length": 1}, "max_length must be an integer of at least 2, got 1"),
        (QA, {"max_length": 9.0}, "max_length must be an integer .* got 9.0"),
        (QA, {"overflow": "pad"}, "overflow must be 'truncate' or 'split', got 'pad'"),
        (QA, {"overflow": "split", "max_length": 2}, "at least 3, got 2"),
        ([*QA, {"answer": "x"}], {}, r"records\[12\]: no accepted set of fields"),
        (["raw"], {}, r"records\[0\]: a record must be an object"),
    ],
)
def test_misuse(tokenizer, records, options, message):
    with pytest.raises(ValueError, match=message):
        tokenize(records, tokenizer, **{"max_length": 64} | options)


def test_tokenizer_without_an_end(tokenizer):
    from transformers import PreTrainedTokenizerFast

    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="tokenizer has no eos_token"):
        tokenize(QA, endless, max_length=64)


def test_real_texts_are_split_without_loss(data_dir):
    from jaxunlearn.data.formats import read_records

    tokenizer = load_tokenizer(data_dir / "gpt2_tokenizer")
    records = read_records(data_dir / "text" / "tinystories_1000.json")[:100]
    data = tokenize(records, tokenizer, max_length=64, overflow="split")
    whole = tokenizer.eos_token.join(record["text"] for record in records)
    found = np.concatenate([example.input_ids for example in data.examples])
    assert tokenizer.decode(found) == whole + tokenizer.eos_token
    assert data.length == 64
