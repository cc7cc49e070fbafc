"""Tiny models with tokenizer, a tiny training run, and files of records."""

import json
import re
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


@pytest.fixture
def refused():
    """Hold a subcommand to refusing its options in the words of the command line."""
    from jaxunlearn.commands.arguments import option_names
    from jaxunlearn.commands.wording import in_options

    def check(command, options, message):
        with pytest.raises(ValueError, match=r"\S") as error:
            command(options)
        told = in_options(str(error.value), option_names(command))
        assert re.search(message, told), told

    return check


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


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """A trained run with the files that a removal needs, and the person's name."""
    from jaxunlearn.cli import main
    from jaxunlearn.data.synthetic.made_up import people, question_answers

    def write(path, records):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    folder = tmp_path_factory.mktemp("world")
    private = question_answers(people(4), questions_per_person=3)
    unseen = question_answers(people(2, start=50), questions_per_person=3)
    name = private[0]["subject"]
    write(folder / "data.json", private)
    write(folder / "forget.json", [r for r in private if r["subject"] == name])
    write(folder / "retain.json", private)
    write(folder / "unseen.json", unseen)
    config = {
        "model_type": "gpt2",
        "vocab_size": 300,
        "n_positions": 128,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "task_specific_params": {"text-generation": {"max_length": 50}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = (
        *("train", "--model", folder / "config.json", "--data", folder / "data.json"),
        *("--out", folder / "run", "--epochs", 6, "--batch-size", 4),
        *("--learning-rate", 3e-3, "--record", "^wte/"),
    )
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in command])
    assert status.value.code == 0
    return folder, name
