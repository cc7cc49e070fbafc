"""Token by token a text comes out, each character at its last token."""

import pytest

from jaxunlearn.data import train_tokenizer
from jaxunlearn.data.text.decoding import finished, token_texts

TEXTS = [
    "na\u00efve caf\u00e9 \U0001f600 \u65e5\u672c\u8a9e",
    "a b",
    "",
    "\U0001f6a4" * 5,
]


def slowly(tokenizer, ids):
    """What each prefix adds to the one before it."""
    texts, done = [], 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end])
        whole = text if end == len(ids) else finished(text)
        texts.append(whole[done:])
        done = max(done, len(whole))
    return texts


def bytes_alone():
    """A tokenizer whose tokens are single bytes."""
    return train_tokenizer(["zq"], vocab_size=257)


def merged():
    """A tokenizer whose tokens begin inside one character and end inside another."""
    text = "\u65e5\u672c\u8a9e \u65e5\u672c \u672c\u8a9e" * 50
    return train_tokenizer([text, *TEXTS], vocab_size=264)


def words():
    """A tokenizer that writes no space where a text begins."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "\u2581a": 1, "\u2581b": 2, "c": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("make", [bytes_alone, merged])
@pytest.mark.parametrize("text", TEXTS)
def test_each_token_adds_what_its_prefix_adds(make, text):
    tokenizer = make()
    ids = tokenizer(text)["input_ids"]
    found = token_texts(tokenizer, ids)
    assert found == slowly(tokenizer, ids)
    assert "".join(found) == text
    assert "\ufffd" not in "".join(found)


def test_a_space_that_begins_no_text_is_kept():
    tokenizer = words()
    ids = tokenizer("a b a")["input_ids"]
    assert tokenizer.decode(ids) == "a b a"
    assert token_texts(tokenizer, ids) == ["a", " b", " a"]


def test_a_character_that_is_cut_short_shows_at_the_end():
    tokenizer = bytes_alone()
    ids = tokenizer("a\u6f22")["input_ids"]
    assert token_texts(tokenizer, ids[:-1])[-1].endswith("\ufffd")


@pytest.mark.parametrize("garbage", [False, True])
def test_the_work_grows_with_the_length_alone(garbage):
    tokenizer = bytes_alone()
    one = tokenizer("\u6f22")["input_ids"]
    ids = one[1:2] * 900 if garbage else one * 300
    decoded = []

    class Counting:
        def decode(self, some):
            decoded.append(len(some))
            return tokenizer.decode(some)

    assert len(token_texts(Counting(), ids)) == len(ids)
    assert sum(decoded) <= 20 * len(ids)
