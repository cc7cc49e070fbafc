#!/usr/bin/env bash
# Expected: a tokenizer.json says all by itself how text becomes tokens, whatever class
# tokenizer_config.json names beside it.
# Happens: where that is a model's own class (GPT2Tokenizer, Qwen2Tokenizer, ...),
# AutoTokenizer of transformers 5.24.0 takes vocabulary, merges and template from the
# file and builds normalizer and pre-tokenizer by the class's own rules. The same file
# gives other ids than with PreTrainedTokenizerFast or with tokenizers itself, without a
# word, and save_pretrained writes a tokenizer.json without the rules that it had.
# What we do: a folder gives the tokenizer that AutoTokenizer gives, since that is what
# torch users train with; `load_tokenizer` compares it with the file and tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'END'
import json
import pathlib
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

folder = pathlib.Path(sys.argv[1]) / "model"
folder.mkdir()
file = Tokenizer(models.BPE())
file.normalizer = normalizers.Lowercase()
file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
file.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=270,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=alphabet,
    show_progress=False,
)
file.train_from_iterator(["they came and came"] * 5, trainer)
file.save(str(folder / "tokenizer.json"))
print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
text = "They CAME"
found = {"the file itself": file.encode(text).ids}
for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer"):
    settings = {"tokenizer_class": name}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found[name] = tokenizer(text)["input_ids"]
tokenizer.save_pretrained(folder / "saved")
saved = json.loads((folder / "saved" / "tokenizer.json").read_text())
for name, ids in found.items():
    print(f"{name:24} {ids}")
print("normalizer of the file that GPT2Tokenizer saves:", saved["normalizer"])
assert found["PreTrainedTokenizerFast"] == found["the file itself"]
assert found["GPT2Tokenizer"] != found["the file itself"]
assert saved["normalizer"] is None
END
