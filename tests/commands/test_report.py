"""`jaxunlearn report` on files, as a user runs it."""

import json

import pytest
import tyro

from jaxunlearn.commands.report import report


def run(*arguments):
    return tyro.cli(
        report,
        args=[str(argument) for argument in arguments],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


@pytest.fixture
def folder(tmp_path):
    retrained = {"scores": {"forget_loss": 3.0}, "intervals": {"forget_loss": [2, 4]}}
    for name, loss in (("good", 2.9), ("weak", 1.0)):
        place = tmp_path / name
        place.mkdir()
        scores = {"forget_loss": loss, "retain_loss": 0.2, "reference": retrained}
        (place / "scores.json").write_text(json.dumps(scores))
    return tmp_path


def test_runs_are_compared_on_one_page(folder, capsys):
    out = folder / "out"
    assert run(folder / "good", folder / "weak" / "scores.json", "--out", out) == 0
    text = (out / "report.html").read_text()
    assert "2 unlearning runs compared" in text
    assert (out / "figures" / "plane.svg").exists()
    assert (out / "tables" / "summary.csv").exists()
    said = capsys.readouterr().out
    assert "report.html" in said.replace("\n", "")
    assert "1 of 1 scores" in said
    assert "0 of 1 scores" in said


def test_names_are_given_with_commas(folder):
    out = folder / "out"
    run(folder / "good", folder / "weak", "--names", "a, <b>", "--out", out)
    text = (out / "tables" / "summary.csv").read_text()
    assert [line.split(",")[0] for line in text.splitlines()] == [
        "run",
        "a",
        "<b>",
        "retrained",
    ]


def test_a_report_replaces_the_one_before(folder):
    out = folder / "out"
    run(folder / "good", folder / "weak", "--out", out)
    run(folder / "weak", "--out", out)
    assert "<h1>weak</h1>" in (out / "report.html").read_text()
    assert not [path for path in out.rglob("*") if "partial" in path.name]
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("arguments", [(), ("--names", "a,b", "good"), ("nowhere",)])
def test_bad_input_writes_nothing(folder, arguments, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises((ValueError, FileNotFoundError, SystemExit)):
        run(*arguments, "--out", "out")
    assert not (folder / "out").exists()
