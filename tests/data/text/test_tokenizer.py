import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn.data.text.tokenizer import (
    END_OF_TEXT,
    check_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = [f"Where was person {i} born? In town {i % 7}, they say." for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=320)


def ids(tokenizer, text):
    return tokenizer(text, verbose=False)["input_ids"]


def test_training_is_deterministic_and_blind_to_order(tokenizer):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    again = train_tokenizer(iter(shuffled), vocab_size=320)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_vocabulary_is_bytes_merges_and_one_special_token(tokenizer):
    assert len(tokenizer) == 320
    assert sorted(tokenizer.get_vocab().values()) == list(range(320))
    assert tokenizer.all_special_tokens == [END_OF_TEXT]
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.bos_token_id == 0
    assert len(ids(tokenizer, TEXTS[0])) < len(TEXTS[0]) / 2
    assert len(train_tokenizer(["ab"], vocab_size=10_000)) == 258


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_decoding_gives_back_any_text(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text
    assert max(ids(tokenizer, text), default=0) < len(tokenizer)


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    text = "Where was Éva 日 born ?  I 'm <|endoftext|> unsure ."
    loaded = load_tokenizer(tmp_path)
    assert ids(loaded, text) == ids(tokenizer, text)
    assert loaded.decode(ids(loaded, text)) == text
    assert loaded.eos_token_id == loaded.pad_token_id == tokenizer.eos_token_id
    # The hub's GPT-2 has no file that names its end-of-text token.
    for file in tmp_path.iterdir():
        if file.name != "tokenizer.json":
            file.unlink()
    bare = load_tokenizer(tmp_path)
    assert ids(bare, text) == ids(tokenizer, text)
    assert bare.eos_token_id == bare.pad_token_id == tokenizer.eos_token_id


def original_gpt2_files(tokenizer, folder):
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def test_original_gpt2_files_are_enough(tokenizer, tmp_path):
    original_gpt2_files(tokenizer, tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    for text in (*TEXTS, "né <|endoftext|>  'll"):
        assert ids(loaded, text) == ids(tokenizer, text)
    assert loaded.eos_token_id == loaded.pad_token_id == tokenizer.eos_token_id


def test_check_tokenizer(tokenizer):
    check_tokenizer(tokenizer, 320)
    check_tokenizer(tokenizer, 384)
    with pytest.raises(ValueError, match="mismatched tokenizer: its ids reach 319"):
        check_tokenizer(tokenizer, 319)
    grown = train_tokenizer(TEXTS, vocab_size=320)
    grown.add_tokens(["<new>"])
    with pytest.raises(ValueError, match="ids reach 320 .'<new>'., but .*_size=320"):
        check_tokenizer(grown, 320)


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        ("one string", 300, "texts must be a collection of strings"),
        ([], 300, "texts is empty"),
        (["a"], 256, "vocab_size must be at least 257 .* got 256"),
    ],
)
def test_training_errors(texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, vocab_size=vocab_size)


def test_missing_tokenizers_say_what_is_needed(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    needed = "must hold tokenizer.json, or vocab.json and merges.txt, or token"
    with pytest.raises(FileNotFoundError, match=f"{needed}.*; found: vocab.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="is a file: give the directory"):
        load_tokenizer(tmp_path / "vocab.json")


def test_unusable_tokenizers(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match="cannot load the tokenizer of"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    original_gpt2_files(tokenizer, tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    del vocab[END_OF_TEXT]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(ValueError, match=r"vocab\.json lacks <\|endoftext\|>"):
        load_tokenizer(tmp_path)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"][0]["content"] = "<other>"
    backend["model"]["vocab"]["<other>"] = backend["model"]["vocab"].pop(END_OF_TEXT)
    (tmp_path / "tokenizer.json").write_text(json.dumps(backend))
    with pytest.raises(ValueError, match="names no end-of-text token: set eos_token"):
        load_tokenizer(tmp_path)


def test_real_gpt2(data_dir):
    tokenizer = load_tokenizer(data_dir / "gpt2_tokenizer")
    assert len(tokenizer) == 50257
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 50256
    # The example of OpenAI's release, and a merge across an apostrophe.
    assert ids(tokenizer, "Hello world") == [15496, 995]
    assert ids(tokenizer, "I'm  <|endoftext|>") == [40, 1101, 220, 220, 50256]
    check_tokenizer(tokenizer, 50257)
    with pytest.raises(ValueError, match="mismatched tokenizer"):
        check_tokenizer(tokenizer, 49152)


def test_real_smollm2(data_dir):
    tokenizer = load_tokenizer(data_dir / "smollm2-135m")
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    text = "The author 's name is Éva ."
    assert tokenizer.decode(ids(tokenizer, text)) == text
    check_tokenizer(tokenizer, 49152)


def test_transformers_tells_nobody_that_there_is_no_torch():
    program = (
        "import builtins, importlib.util as u, jaxunlearn.data as d;"
        "find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a);"
        "d.train_tokenizer(['a b'], vocab_size=260);"
        "import logging; logging.getLogger('transformers').warning('something else')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert "something else" in done.stderr
    assert "PyTorch" not in done.stderr
