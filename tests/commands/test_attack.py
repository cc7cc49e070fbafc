"""`jaxunlearn attack` on files, as a user runs it."""

import dataclasses
import json
import shutil

import jax
import pytest

from jaxunlearn import evaluation
from jaxunlearn.commands.attack import Options, attack
from jaxunlearn.evaluation.attacks import Recovered, Settings
from jaxunlearn.evaluation.attacks import table as attack_table
from jaxunlearn.evaluation.attacks.file import finished_attacks
from jaxunlearn.evaluation.attacks.judgement import LEAST_EXCESS
from jaxunlearn.evaluation.attacks.table import ATTACKS
from jaxunlearn.evaluation.display import SILENT


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """The tiny model beside another of the same tokenizer, and one of another."""
    from jaxunlearn.data import train_tokenizer
    from jaxunlearn.models import load_pretrained, save_pretrained

    folder = tmp_path_factory.mktemp("attack")
    model, _ = load_pretrained(tiny.model)
    save_pretrained(
        *(model, model.init(key=jax.random.key(1)), folder / "retrained"),
        tiny.tokenizer,
    )
    shutil.copytree(
        folder / "retrained",
        folder / "foreign",
        ignore=shutil.ignore_patterns("checksums.json"),
    )
    train_tokenizer(["zzz zzz zz"], vocab_size=260).save_pretrained(folder / "foreign")
    texts = [{"text": f"Boats number {i}."} for i in range(3)]
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "few.json").write_text(json.dumps(tiny.records["train"][:3]))
    (folder / "notes.json").write_text("{}")
    return folder


@pytest.fixture
def options(tiny, world, tmp_path):
    return Options(
        model=str(tiny.model),
        forget=str(tiny.train),
        out=tmp_path / "attack.json",
        reference=(str(world / "retrained"),),
        attacks=("logit_lens",),
        steps=2,
    )


@pytest.fixture
def count_runs(monkeypatch):
    """Let each attack be a count of its runs, whose value tells the models apart."""
    runs = []

    def stand_in(name):
        def run(inputs, options, one):
            runs.append((name, one.name))
            higher = 1.0 + 0.5 * (one.name == "model")
            base = [[0.1 * i for i in range(7)]] * 2
            values = [[higher + x for x in row] for row in base]
            return [Recovered((0, 1), values) for _ in ATTACKS[name].entries]

        return run

    table = {n: a._replace(run=stand_in(n)) for n, a in ATTACKS.items()}
    monkeypatch.setattr(attack_table, "ATTACKS", table)
    return runs


def read(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_file_of_a_real_attack(options, tiny, capsys):
    assert attack(options) == 0
    told = read(options.out)
    assert told["about"]["format"] == "jaxunlearn attack"
    assert told["about"]["name"] == "model"
    assert "jax" in told["about"]["versions"]
    for entry in told["attacks"]:
        assert entry["attack"] == "logit_lens"
        assert entry["higher_is_recovered"] is True
        for of in ("model", "reference"):
            points = entry["curves"][of]
            assert [p["x"] for p in points] == [0, 1]
            assert all(p["low"] <= p["value"] <= p["high"] for p in points)
        excess = entry["excess"]
        assert entry["recovers"] == (excess["low"] > LEAST_EXCESS)
        gaps = [
            ours["value"] - theirs["value"]
            for ours, theirs in zip(
                entry["curves"]["model"], entry["curves"]["reference"], strict=True
            )
        ]
        assert excess["value"] == pytest.approx(max(gaps))
    printed = capsys.readouterr().out
    assert "What comes back" in printed
    assert "not run: membership_probe: needs --holdout FILE" in printed
    assert told["not_run"]["membership_probe"] == "needs --holdout FILE"
    assert "not among" in told["not_run"]["quantization"]


def test_finished_attacks_are_not_run_again(options, count_runs, capsys, monkeypatch):
    two = dataclasses.replace(options, attacks=("quantization,prefixes",))
    run = attack_table.ATTACKS["prefixes"].run

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        table = attack_table.ATTACKS
        stopped = table | {"prefixes": table["prefixes"]._replace(run=killed)}
        patch.setattr(attack_table, "ATTACKS", stopped)
        with pytest.raises(KeyboardInterrupt):
            attack(two)
    assert count_runs == [("quantization", "model"), ("quantization", "retrained")]
    first = read(two.out)
    assert [e["attack"] for e in first["attacks"]] == ["quantization"]
    count_runs.clear()
    assert run is attack_table.ATTACKS["prefixes"].run
    assert attack(two) == 0
    assert {name for name, _ in count_runs} == {"prefixes"}
    assert "Taking up" in capsys.readouterr().out
    assert read(two.out)["attacks"][0] == first["attacks"][0]

    count_runs.clear()
    assert attack(dataclasses.replace(two, attacks=("quantization",))) == 0
    assert count_runs == []  # and the other attack is kept
    assert len(read(two.out)["attacks"]) == 2
    other = dataclasses.replace(two, attacks=("quantization",), seed=1)
    assert attack(other) == 0
    assert "written anew" in capsys.readouterr().out
    assert [e["attack"] for e in read(two.out)["attacks"]] == ["quantization"]


def test_all_that_the_files_allow(options, count_runs, tiny, world):
    less = dataclasses.replace(options, attacks=())
    assert attack(less) == 0
    needs = {
        *("relearn_related", "relearn_unrelated", "context", "paraphrases"),
        "membership_probe",
    }
    assert set(read(less.out)["not_run"]) == needs
    more = dataclasses.replace(
        less,
        related=str(world / "texts.json"),
        unrelated=str(world / "texts.json"),
        holdout=str(tiny.train),
        paraphrases=str(tiny.train),
        original=str(tiny.model),
    )
    assert attack(more) == 0
    told = read(more.out)
    assert told["not_run"] == {}
    assert {e["attack"] for e in told["attacks"]} == set(ATTACKS)
    assert all(e["recovers"] for e in told["attacks"])  # the stand-ins differ by 0.5
    assert all("original" in e["curves"] for e in told["attacks"])
    names = [e["name"] for e in told["attacks"]]
    assert len(names) == len(set(names))


def test_of_several_references_the_nearest_counts(options, count_runs, tiny):
    found = evaluation.attack(
        options.model,
        forget=options.forget,
        reference=(*options.reference, str(tiny.model)),
        attacks=("logit_lens",),
    )
    entry, _ = found["attacks"]
    assert entry["reference"] == "model"
    assert entry["excess"]["value"] == 0
    assert not entry["recovers"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": ()}, "--reference DIR is needed"),
        ({"reference": ("FOLDER/foreign",)}, "another tokenizer"),
        ({"original": "FOLDER/foreign"}, "--original .* another tokenizer"),
        ({"attacks": ("magic",)}, "--attacks magic: unknown; one of relearn_forget"),
        ({"attacks": ("membership_probe",)}, "needs --holdout FILE"),
        ({"attacks": ("context",)}, "needs --unrelated FILE"),
        ({"attacks": ("paraphrases",)}, "needs --paraphrases FILE, or the field"),
        (
            {"attacks": ("sampling",), "forget": "FOLDER/mixed.json"},
            "records with prompts",
        ),
        ({"forget": "FOLDER/few.json"}, "has 3 records: 4 or more"),
        ({"paraphrases": "FOLDER/few.json"}, "one for each of the 7"),
        ({"steps": 0}, "--steps 0"),
        ({"samples": 0}, "--samples 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"seed": -1}, "--seed -1"),
        ({"max_length": 65}, "--max-length 65: must be 2 to 64"),
        ({"out": "attack.txt"}, "must end in .json"),
        ({"out": "FOLDER/notes.json"}, "is no attack file"),
    ],
)
def test_bad_input_says_what_to_do(
    options, world, change, message, count_runs, refused
):
    (world / "mixed.json").write_text(json.dumps([{"text": f"a {i}"} for i in "abcde"]))

    def named(value):
        if isinstance(value, tuple):
            return tuple(map(named, value))
        text = isinstance(value, str)
        return value.replace("FOLDER", str(world)) if text else value

    change = {name: named(value) for name, value in change.items()}
    if "out" in change:
        change["out"] = options.out.parent / change["out"]
    before = (world / "notes.json").read_text()
    refused(attack, dataclasses.replace(options, **change), message)
    assert not options.out.exists()
    assert (world / "notes.json").read_text() == before
    assert count_runs == []


@pytest.mark.parametrize("name", ["forget", "related", "holdout", "model"])
def test_a_missing_file_is_named(options, name):
    change = {name: "./nowhere.json"}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        attack(dataclasses.replace(options, **change))


def test_there_is_nothing_finished_at_first(tmp_path):
    path = tmp_path / "attack.json"
    assert finished_attacks(path, {"inputs": {}}, SILENT) == []


def test_the_function_in_memory_is_the_command_on_files(options, tiny, loaded):
    from jaxunlearn.evaluation import NamedModel
    from jaxunlearn.models import load_pretrained

    assert attack(options) == 0
    (reference,) = options.reference
    found = evaluation.attack(
        NamedModel("model", *loaded),
        forget=tiny.records["train"],
        reference=[NamedModel("retrained", *load_pretrained(reference))],
        attacks=options.attacks,
        settings=Settings(steps=2),
        tokenizer=tiny.tokenizer,
    )
    told = read(options.out)
    assert json.loads(json.dumps(found["attacks"])) == told["attacks"]
    assert found["about"]["inputs"] == told["about"]["inputs"]
    assert found["not_run"]["membership_probe"] == "needs holdout=FILE"
