"""Folders as others write them: `load_tokenizer` gives what AutoTokenizer gives."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import transformers

from jaxunlearn.data import load_tokenizer, tokenize, train_tokenizer
from jaxunlearn.data.text.examples import start_ids
from jaxunlearn.data.text.tokenizer import END_OF_TEXT, TokenizerWarning, template_ids
from jaxunlearn.evaluation.text.greedy import prompt_ids

TEXTS = [
    "Hello world.",
    " Where was person 3 born?\nIn town 7.",
    "<|user|>Hello<|bot|> 'll<pad>",
    f"Éva 日本 {END_OF_TEXT} twice  {END_OF_TEXT}",
    "<s>HELLO</s>",
]
SPECIAL = ["bos_token", "eos_token", "unk_token", "pad_token", "additional"]
NAMED = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)


@pytest.fixture(scope="module")
def small():
    texts = [f"Where was person {i} born? In town {i % 7}. hello" for i in range(40)]
    return train_tokenizer(texts, vocab_size=300)


def backend(tokenizer, **changes):
    """The content of tokenizer.json, some parts changed."""
    return json.loads(tokenizer.backend_tokenizer.to_str()) | changes


def template(single, **ids):
    """A post-processor that puts tokens around the text, `A`."""
    return {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}}
            if one == "A"
            else {"SpecialToken": {"id": one, "type_id": 0}}
            for one in single
        ],
        "pair": [],
        "special_tokens": {
            one: {"id": one, "ids": [ids.get(one, 0)], "tokens": [one]}
            for one in single
            if one != "A"
        },
    }


def gpt2_files(tokenizer):
    model = backend(tokenizer)["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""])
    return {"vocab.json": model["vocab"], "merges.txt": merges}


def folders(small):
    """Returns, by name, the files of folders that are met."""
    words, n = gpt2_files(small), len(small)
    added = {"<|user|>": n, "<|bot|>": n + 1, "<pad>": n + 2}
    special = NAMED | {
        "pad_token": "<pad>",
        "additional_special_tokens": ["<|user|>", "<|bot|>"],
    }
    old = special | {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    whole = backend(small)
    two = [
        whole["added_tokens"][0] | {"content": name, "id": n + i}
        for i, name in enumerate(("<s>", "</s>"))
    ]
    more = backend(small, added_tokens=[*whole["added_tokens"], *two])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    around = template(["<s>", "A", "</s>"], **{"<s>": n, "</s>": n + 1})
    gpt2 = {"tokenizer_class": "GPT2Tokenizer"}
    general = {"tokenizer_class": "PreTrainedTokenizerFast"}
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst"}
    cut |= {"stride": 0}
    pad = {
        "strategy": {"Fixed": 40},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": END_OF_TEXT,
    }
    letters = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *"abcdefghijklmnopqrstuvwxyz.,?"]
    letters += ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
    return {
        "added tokens, special tokens and settings": words
        | {
            "added_tokens.json": added,
            "special_tokens_map.json": special,
            "tokenizer_config.json": old,
        },
        "added tokens and settings": words
        | {"added_tokens.json": added, "tokenizer_config.json": old},
        "added tokens as objects": words
        | {
            "tokenizer_config.json": NAMED
            | gpt2
            | {
                "added_tokens_decoder": {
                    str(n): two[0] | {"content": "<|bot|>", "lstrip": True}
                }
            }
        },
        "a space in front": words
        | {"tokenizer_config.json": NAMED | gpt2 | {"add_prefix_space": True}},
        "a beginning by settings": words
        | {"tokenizer_config.json": NAMED | gpt2 | {"add_bos_token": True}},
        "a class in config.json only": words | {"config.json": {"model_type": "gpt2"}},
        "another class": words
        | {
            "tokenizer_config.json": {
                "tokenizer_class": "Qwen2Tokenizer",
                "eos_token": END_OF_TEXT,
                "pad_token": "<pad>",
            }
        },
        "tokenizer.json alone": {"tokenizer.json": whole},
        "tokenizer.json and a model": {
            "tokenizer.json": whole,
            "config.json": {"model_type": "gpt2", "bos_token_id": 0},
        },
        "tokenizer.json, a space in front by settings": {
            "tokenizer.json": whole,
            "tokenizer_config.json": NAMED | gpt2 | {"add_prefix_space": True},
        },
        "tokenizer.json that cuts and pads": {
            "tokenizer.json": whole | {"truncation": cut, "padding": pad},
            "tokenizer_config.json": NAMED | general,
        },
        "tokenizer.json of a class that has its own splitting": {
            "tokenizer.json": whole
            | {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": None},
            "tokenizer_config.json": NAMED | gpt2,
        },
        "tokenizer.json that says how to split": {
            "tokenizer.json": whole
            | {
                "normalizer": {"type": "Lowercase"},
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Digits", "individual_digits": True},
                        whole["pre_tokenizer"],
                    ],
                },
            },
            "tokenizer_config.json": NAMED | general,
        },
        "template in front": {
            "tokenizer.json": more
            | {"post_processor": template(["<s>", "A"], **{"<s>": n})},
            "tokenizer_config.json": ends | general,
        },
        "template behind": {
            "tokenizer.json": whole | {"post_processor": template(["A", END_OF_TEXT])},
            "tokenizer_config.json": NAMED | gpt2,
        },
        "template around": {
            "tokenizer.json": more | {"post_processor": around},
            "tokenizer_config.json": ends | general,
        },
        "a chat template in the settings": {
            "tokenizer.json": whole,
            "tokenizer_config.json": NAMED | {"chat_template": "{{ messages }}"},
        },
        "a chat template in a file": {
            "tokenizer.json": whole,
            "tokenizer_config.json": NAMED | general,
            "chat_template.jinja": "{{ messages[0] }}",
        },
        "word pieces": {
            "vocab.txt": "\n".join(letters) + "\n",
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": True,
                "eos_token": "[SEP]",
            },
        },
    }


OWN = "tokenizer.json of a class that has its own splitting"
NAMES = list(folders(train_tokenizer(["a"], vocab_size=300)))


def written(folder, files):
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def everything(tokenizer):
    """All that a tokenizer says of itself and makes of the texts."""
    settings = {"padding": False, "truncation": False}
    return {
        "size": len(tokenizer),
        "vocabulary": tokenizer.get_vocab(),
        "ids": tokenizer(TEXTS, **settings)["input_ids"],
        "bare": tokenizer(TEXTS, add_special_tokens=False, **settings)["input_ids"],
        "decoded": tokenizer.batch_decode(tokenizer(TEXTS, **settings)["input_ids"]),
        "chat": tokenizer.chat_template,
        "added": {i: str(t) for i, t in tokenizer.added_tokens_decoder.items()},
    }


def special(tokenizer):
    return {k: str(v) for k, v in tokenizer.special_tokens_map.items() if v}


def load(folder, name):
    """Loads a tokenizer, which tells where it does not split as its file says."""
    if name != OWN:
        return load_tokenizer(folder)
    with pytest.warns(TokenizerWarning, match="as GPT2Tokenizer, which splits") as told:
        tokenizer = load_tokenizer(folder)
    assert [one.filename for one in told] == [__file__]
    return tokenizer


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_the_tokenizer_that_transformers_gives(small, tmp_path, name):
    written(tmp_path, folders(small)[name])
    ours = load(tmp_path, name)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert everything(ours) == everything(theirs)
    # What the folder does not name is filled in, what it names stays.
    assert special(theirs).items() <= special(ours).items()
    assert ours.eos_token_id is not None
    assert ours.pad_token == (theirs.pad_token or ours.eos_token)
    saved = tmp_path / "saved"
    ours.save_pretrained(saved)
    again = load_tokenizer(saved)
    assert everything(again) == everything(ours)
    assert special(again) == special(ours)


@pytest.mark.parametrize("name", NAMES)
def test_examples_end_and_begin_as_the_tokenizer_itself_encodes(small, tmp_path, name):
    tokenizer = load(written(tmp_path, folders(small)[name]), name)
    end = tokenizer.eos_token_id
    for text in ("hello world.", "where was person 3 born? in town 7."):
        own = tokenizer(text, padding=False, truncation=False)["input_ids"]
        (example,) = tokenize([{"text": text}], tokenizer, max_length=99).examples
        closed = own if own[-1] == end else [*own, end]
        assert example.input_ids.tolist() == closed
        assert closed[1:].count(end) == 1  # the first may be the same token
        (prompt,) = prompt_ids(tokenizer, [text])
        before, after = template_ids(tokenizer)
        assert prompt + after == own
        assert start_ids(tokenizer) == before


def test_what_a_text_brings_of_the_template_is_not_doubled(small, tmp_path):
    files = folders(small)["template around"]
    tokenizer = load_tokenizer(written(tmp_path, files))
    rows = tokenize(
        [{"text": "<s>hello</s>"}, {"text": "hello"}], tokenizer, max_length=50
    ).examples
    assert rows[0].input_ids.tolist() == rows[1].input_ids.tolist()
    assert prompt_ids(tokenizer, ["<s>hello"]) == prompt_ids(tokenizer, ["hello"])


def test_a_folder_and_a_name_give_one_tokenizer(small, tmp_path, monkeypatch):
    """All of its files are asked for."""

    def snapshot_download(name, *, allow_patterns):
        copy = tmp_path / f"copy {name.replace('/', ' ')}"
        copy.mkdir()
        for file in (tmp_path / Path(name).name).iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, copy)
        return copy

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for i, (name, files) in enumerate(folders(small).items()):
        folder = tmp_path / f"name{i}"
        folder.mkdir()
        written(folder, files)
        ours = everything(load(folder, name))
        assert everything(load(f"o/name{i}", name)) == ours


def test_real_gpt2_in_an_old_folder(data_dir, tmp_path):
    """The right values of a folder without tokenizer.json."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(data_dir / "gpt2_tokenizer" / name, tmp_path)
    special = NAMED | {
        "pad_token": "<pad>",
        "additional_special_tokens": ["<|user|>", "<|bot|>"],
    }
    added = {"<|user|>": 50257, "<|bot|>": 50258, "<pad>": 50259}
    written(
        tmp_path,
        {
            "added_tokens.json": added,
            "special_tokens_map.json": special,
            "tokenizer_config.json": special
            | {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
        },
    )
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 50260
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 50259)
    assert tokenizer("Hello world.")["input_ids"] == [18435, 995, 13]
    files = {"tokenizer.json": backend(tokenizer)}
    files["tokenizer.json"]["post_processor"] = template(
        ["A", END_OF_TEXT], **{END_OF_TEXT: 50256}
    )
    folder = tmp_path / "ends"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    (row,) = tokenize(
        [{"text": "Hello world."}], load_tokenizer(written(folder, files)), max_length=9
    ).examples
    assert row.input_ids.tolist() == [18435, 995, 13, 50256]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", '{"model_max_length": []}', "model_max_length=.. is"),
        ("tokenizer_config.json", '{"a": 1, "a": 2}', "'a' stands twice"),
        ("tokenizer_config.json", "[" * 100_000, "nested too deeply"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json holds no JSON object"),
        ("added_tokens.json", "{", "added_tokens.json: not JSON"),
        ("special_tokens_map.json", '{"eos_token": 5}', "cannot load the tokenizer of"),
        ("vocab.json", '{"a": 1}', "cannot load the tokenizer of"),
        ("vocab.json", '{"a": "b"}', "cannot load the tokenizer of"),
        ("merges.txt", "\udcff", "cannot load the tokenizer of"),
    ],
)
def test_a_damaged_file_is_one_error(small, tmp_path, file, content, message):
    written(tmp_path, gpt2_files(small))
    (tmp_path / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_code_in_a_folder_is_not_run(small, tmp_path):
    marker = tmp_path / "ran"
    settings = {"auto_map": {"AutoTokenizer": [None, "code.Own"]}} | NAMED
    files = {
        "tokenizer.json": backend(small),
        "tokenizer_config.json": settings | {"tokenizer_class": "Own"},
        "code.py": f"open({str(marker)!r}, 'w')\nclass Own: pass\n",
    }
    with pytest.raises(ValueError, match="cannot load the tokenizer of"):
        load_tokenizer(written(tmp_path, files))
    assert not marker.exists()
