"""README's code runs as it stands: every Python block, every command's options."""

import json
import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    """The code blocks of README in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S
    )


def commands():
    """Every `jaxunlearn ...` command of README, as a shell splits it."""
    found = []
    for block in blocks(""):
        lines = block.replace("\\\n", " ").splitlines()
        shown = (line.split("&&")[-1].split("#")[0].strip() for line in lines)
        found += [shlex.split(line) for line in shown if line.startswith("jaxunlearn ")]
    return found


@pytest.fixture
def run_here(tiny, tmp_path, monkeypatch, cli):
    """A folder with RUN, RECORDS.json and QUESTIONS.json, as README speaks of them."""
    monkeypatch.chdir(tmp_path)
    records = [
        {"question": f"What colour is boat {i}?", "answer": f"Colour {i * 7 % 5}."}
        for i in range(64)
    ]
    Path("RECORDS.json").write_text(json.dumps(records))
    Path("QUESTIONS.json").write_text(json.dumps(records[:2]))
    trained = cli(
        *("train", "--model", str(tiny.model), "--data", "RECORDS.json"),
        *("--out", "RUN", "--epochs", "1", "--learning-rate", "0.01"),
    )
    assert trained == 0


def test_readme_s_python_runs_from_top_to_bottom(run_here, capsys):
    shown = blocks("python")
    assert shown
    names = {}
    for block in shown:
        exec(compile(block, "README.md", "exec"), names)
    assert names["found"].scores.shape == (2, 64)
    assert names["outcome"].status.name in capsys.readouterr().out


@pytest.mark.parametrize("shown", commands(), ids=lambda shown: " ".join(shown[1:3]))
def test_readme_s_commands_name_options_that_exist(shown, capsys):
    from jaxunlearn.cli import main

    given = [word for word in shown[1:] if word.startswith("--")]
    name = shown[1:3] if shown[1] == "index" else shown[1:2]
    with pytest.raises(SystemExit):
        main([*name, "--help"])
    told = capsys.readouterr().out
    assert set(given) <= set(re.findall(r"--[a-z][a-z-]*", told))
