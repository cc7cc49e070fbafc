"""A tiny model directory with its tokenizer, and files of records."""

import json
import types

import pytest


def records(name, count):
    """Question and answer records whose texts differ."""
    colours = ["red", "blue", "green", "grey"]
    return [
        {
            "question": f"What colour is {name} {i}?",
            "answer": f"It is {colours[i % 4]}, number {i * 7 % 5}.",
        }
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Paths: model, train (7 records), query (2 records); and the records."""
    import jax

    from jaxunlearn.data import record_text, train_tokenizer
    from jaxunlearn.models import GPT2, GPT2Config, save_pretrained

    folder = tmp_path_factory.mktemp("tiny")
    data = {"train": records("boat", 7), "query": records("boat", 2)}
    data["query"][1]["answer"] = "It is caf\u00e9 brown \U0001f6a4.\nYes."
    tokenizer = train_tokenizer(map(record_text, data["train"]), vocab_size=280)
    config = GPT2Config(vocab_size=280, n_positions=64, n_embd=8, n_layer=1, n_head=2)
    model = GPT2(config)
    params = model.init(key=jax.random.key(0))
    save_pretrained(model, params, folder / "model", tokenizer)
    for name, part in data.items():
        lines = (json.dumps(record) + "\n" for record in part)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return types.SimpleNamespace(
        folder=folder,
        model=folder / "model",
        train=folder / "train.jsonl",
        query=folder / "query.jsonl",
        records=data,
        tokenizer=tokenizer,
    )


@pytest.fixture
def cli():
    """Run ``jaxunlearn`` with arguments; returns the exit status."""

    def run(*arguments):
        from jaxunlearn.cli import main

        with pytest.raises(SystemExit) as status:
            main([str(argument) for argument in arguments])
        return status.value.code

    return run


@pytest.fixture(scope="session")
def loaded(tiny):
    """The tiny model, loaded once: what is compiled for it is then found again."""
    from jaxunlearn.models import load_pretrained

    return load_pretrained(tiny.model)


@pytest.fixture
def load_once(loaded, monkeypatch):
    """Let commands find the model as ``loaded``."""
    from jaxunlearn import models

    monkeypatch.setattr(models, "load_pretrained", lambda *_: loaded)
