"""What `jaxunlearn unlearn` leaves behind: one folder, whole, without texts."""

import json
import shutil

import pytest
import yaml

from jaxunlearn.cli import main
from jaxunlearn.data import read_records
from jaxunlearn.files import sha256_of
from jaxunlearn.folders import check_checksums
from jaxunlearn.provenance import data_hash, params_hash
from jaxunlearn.report.run.card import model_card

FREE = ("--max-retain-increase", "none")


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    return status.value.code


def contents(folder):
    """Every file of a folder, by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unlearn(world, out, *options):
    folder, _ = world
    return run(
        *("unlearn", "--method", "first_epoch", "--run", folder / "run"),
        *("--model", folder / "run" / "model", "--retain", folder / "retain.json"),
        *("--out", out, *options),
    )


@pytest.fixture(scope="module")
def result(learned, tmp_path_factory):
    """A person unlearned, whose name stands in the model's folder and in a path."""
    folder, name = learned
    place = tmp_path_factory.mktemp("result")
    model = place / "model"
    shutil.copytree(folder / "run" / "model", model)
    forget = read_records(folder / "forget.json")
    (model / "about.json").write_text(json.dumps({"person": f"Of {name.upper()}!"}))
    (model / "notes.txt").write_text(f"It knows: {forget[1]['answer']}")
    (model / "LICENSE").write_text("Apache License")
    (model / "scores.json").write_text(json.dumps({"examples": forget}))
    (model / "README.md").write_text(
        f"---\nlicense: apache-2.0\nlanguage:\n- en\ntags: [x]\n---\nOn {name}.\n"
    )
    retain = place / f"all-but-{name.replace(' ', '_')}.json"
    shutil.copy(folder / "retain.json", retain)
    out, texts = place / "out", place / "texts.json"
    status = run(
        *("unlearn", "--method", "first_epoch", "--run", folder / "run"),
        *("--model", model, "--retain", retain, "--out", out, "--keep-texts", texts),
        *("--request", f"all about {name}", "--target", "before", *FREE),
    )
    assert status == 0
    return out, texts, retain


def test_no_file_of_the_folder_says_what_was_forgotten(learned, result):
    folder, name = learned
    out, _, _ = result
    files = contents(out)
    forget = read_records(folder / "forget.json")
    private = [name, *(r[k] for r in forget for k in ("question", "answer"))]
    for file, content in files.items():
        text = content.decode("utf-8", "replace").casefold()
        for words in private:
            assert words.casefold() not in text, file
        if not file.startswith(("tokenizer", "vocab", "merges")):
            for word in name.casefold().split():
                assert word not in text, file
    assert {"model.safetensors", "unlearning.json", "README.md"} <= files.keys()
    assert "LICENSE" in files
    assert not {"about.json", "notes.txt", "scores.json"} & files.keys()


def test_the_folder_holds_positions_and_hashes(learned, result):
    folder, name = learned
    out, texts, retain = result
    told = json.loads((out / "unlearning.json").read_text())
    forget = read_records(folder / "forget.json")
    assert [m["index"] for m in told["matched"]] == [0, 1, 2]
    assert [m["sha256"] for m in told["matched"]] == [data_hash([r]) for r in forget]
    assert told["forget_sha256"] == data_hash(forget)
    assert read_records(texts) == forget
    assert texts.stat().st_mode & 0o077 == 0
    assert told["options"]["ids"] == [0, 1, 2]
    assert "retain" not in told["options"]  # the name is in its path
    assert told["result"]["params_sha256"] != told["model"]["params_sha256"]
    assert check_checksums(out, remedy="")
    listed = json.loads((out / "checksums.json").read_text())["sha256"]
    # A card may be edited.
    assert listed.keys() == contents(out).keys() - {"checksums.json", "README.md"}


def test_the_model_card_is_one_of_the_hub(result):
    out, _, _ = result
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "apache-2.0"
    assert front["language"] == ["en"]
    assert "machine-unlearning" in front["tags"]
    assert "base_model" not in front  # a folder here is none of the hub's
    told = json.loads((out / "unlearning.json").read_text())
    for name, loss in told["losses"]["after"].items():
        before = told["losses"]["before"][name]
        assert f"| {name} | {before:.4f} | {loss:.4f} |" in text
    assert "3 of 12 training examples" in text
    assert "`jaxunlearn evaluate" in text
    assert told["result"]["params_sha256"] in text


def test_an_earlier_result_is_repeated_from_its_json(learned, result, tmp_path):
    out, texts, retain = result
    again = ("unlearn", "--config", out / "unlearning.json", "--retain", retain)
    assert run(*again, "--out", tmp_path / "again") == 0
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    # Named by its texts, it is the same; named otherwise, the hash of the file differs.
    assert run(*again, "--forget", texts, "--out", tmp_path / "texts") == 0
    assert (tmp_path / "texts" / name).read_bytes() == (out / name).read_bytes()


def test_a_refusal_leaves_the_earlier_result_as_it_is(learned, result, tmp_path):
    _, name = learned
    out = tmp_path / "out"
    shutil.copytree(result[0], out)
    before = contents(out)
    request = ("--request", f"all about {name}", "--target", 50)
    assert unlearn(learned, out, *request) == 2  # used, and not to be replaced
    assert contents(out) == before
    assert unlearn(learned, out, *request, "--overwrite") == 1
    assert contents(out) == before
    told = (tmp_path / "out.refused.json").read_text()
    assert json.loads(told)["status"] in ("retain_limit", "step_limit", "no_ascent")
    assert not any(word in told for word in name.split())
    (out / "mine.txt").write_text("my own")
    assert unlearn(learned, out, *request, "--overwrite") == 2
    assert (out / "mine.txt").exists()


def test_a_model_that_another_run_trained_is_refused(learned, result, tmp_path, capsys):
    folder, _ = learned
    from jaxunlearn.models import load_pretrained, save_pretrained

    model, params = load_pretrained(folder / "run" / "model")
    params["ln_f"]["bias"] = params["ln_f"]["bias"] + 1e-3
    save_pretrained(model, params, tmp_path / "other")
    ask = ("unlearn", "--method", "first_epoch", "--run", folder / "run", "--ids", 4)
    ask += ("--retain", folder / "retain.json", "--target", 50, "--out", tmp_path / "o")
    assert run(*ask, "--model", tmp_path / "other") == 2
    assert "hash" in capsys.readouterr().err
    # The run's model once unlearned is of the run, as long as its weights are those.
    assert run(*ask, "--model", result[0]) == 1
    shutil.copy(result[0] / "unlearning.json", tmp_path / "other")
    assert run(*ask, "--model", tmp_path / "other") == 2


def test_a_target_at_the_loss_now_is_refused(learned, tmp_path, capsys):
    folder, _ = learned
    assert unlearn(learned, tmp_path / "o", "--ids", 0, "--target", 0.001) == 2
    assert "there is nothing to forget" in capsys.readouterr().err
    seen = ("--unseen", folder / "forget.json", "--ids", 0)
    assert unlearn(learned, tmp_path / "o", *seen) == 2
    assert "of the 3 records of --unseen are" in capsys.readouterr().err
    seen = ("--part", "input", "--layers", "h/1/", "--ids", 0)
    assert unlearn(learned, tmp_path / "o", *seen) == 2
    assert "has no effect with" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_matches_are_listed_in_full_without_a_model(tmp_path, capsys):
    long = "Mara [/red] Velkin " + "keeps a heron " * 30 + "at the end \x1b[31m."
    lines = (json.dumps({"text": f"{i}: {long}"}) + "\n" for i in range(20))
    (tmp_path / "data.jsonl").write_text("".join(lines))
    options = ("--data", tmp_path / "data.jsonl", "--request", "Mara Velkin")
    assert run("unlearn", "--list-matches", *options, "--threshold", 0.5) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "20 training records match" in printed
    assert printed.count("[/red]") == printed.count("␛[31m") == 20
    assert "…" not in printed
    assert "\x1b" not in printed


def test_front_matter_is_valid_whatever_the_source_says(result):
    told = json.loads((result[0] / "unlearning.json").read_text())
    source = {"license": 'a: "b"\n---', "license_link": 3, "base_model": "gpt2"}
    front = model_card(told, source=source).split("\n---\n", 1)[0]
    found = yaml.safe_load(front.removeprefix("---\n"))
    assert found["license"] == 'a: "b"\n---'
    assert found["base_model"] == "gpt2"
    assert "license_link" not in found


def test_what_the_result_says_of_its_weights_is_so(learned, result):
    from jaxunlearn.models import load_pretrained

    _, params = load_pretrained(result[0])
    told = json.loads((result[0] / "unlearning.json").read_text())
    assert told["result"]["params_sha256"] == params_hash(params)
    folder, _ = learned
    assert told["result"]["run_sha256"] == sha256_of(folder / "run" / "run.json")
