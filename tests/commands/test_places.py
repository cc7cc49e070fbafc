"""Where commands write: any name, one process, only what is ours, checked first."""

import json
import os
import subprocess
import sys
import time

import pytest

from jaxunlearn import locks

NAMES = ["a[x] [/red]", "b\\c :smile:", "50%20 *?", "Ñandú ü", "~{y}'q'"]


def train(cli, tiny, out, *options):
    return cli(
        *("train", "--model", tiny.model, "--data", tiny.train, f"--out={out}"),
        *("--epochs", 1, "--batch-size", 4, "--dropout", 0.0, *options),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(cli, tiny, tmp_path, capsys, name):
    place = tmp_path / name
    run, index = place / "run", place / "index"
    assert train(cli, tiny, run, "--record", "ln_f", "--track", tiny.query) == 0
    assert train(cli, tiny, run, "--record", "ln_f", "--track", tiny.query) == 0
    told = capsys.readouterr().out.replace("\n", "")
    assert f"Taking up {run} at step 2 of 2" in told
    common = ("--model", run, "--train", tiny.train)
    assert cli("index", "build", *common, "--out", index) == 0
    asked = ("--query", tiny.query, "--page", place / "page.html")
    query = ("index", "query", "--index", index, *common, *asked)
    assert cli(*query, "--out", place / "index.npz") == 0
    for method in ("gradient_dot", "tracin"):
        out = place / f"{method}.npz"
        given = ("influence", *common, *asked, "--method", method, "--out", out)
        assert cli(*given) == 0
    measured = ("--model", run / "model", "--forget", tiny.query)
    out = place / "scores.json"
    assert cli("evaluate", *measured, "--retain", tiny.train, "--out", out) == 0
    assert cli("report", place, run, "--out", place / "report") == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_leading_dash_is_a_name(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(cli, tiny, "-v") == 0
    assert (tmp_path / "-v" / "model" / "config.json").is_file()


@pytest.mark.parametrize("name", ["records.jsonl", "start", "model"])
def test_a_folder_of_somebody_else_stays_as_it_is(cli, tiny, tmp_path, capsys, name):
    (tmp_path / "mine" / "start").mkdir(parents=True)
    (tmp_path / "mine" / name / "deep").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ("train", "--model", tiny.model, "--data", tiny.train),
        ("index", "build", "--model", tiny.model, "--train", tiny.train),
    ):
        assert cli(*command, "--out", tmp_path / "mine") == 2
        assert "holds other files" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--record", "nothing"), "matches no parameter"),
        (("--record", "wte", "--record-epochs", 2), "epochs 1 to 1"),
        (("--evaluate", "BAD"), "BAD"),
        (("--track", "BAD"), "BAD"),
        (("--track", "QUERY", "--track-methods", "x"), "track-methods"),
        (("--microbatch-size", 3), "does not divide"),
    ],
)
def test_a_refused_training_leaves_nothing_behind(
    cli, tiny, tmp_path, capsys, options, message
):
    out = tmp_path / "out" / "run"
    files_of = {"BAD": tmp_path / "BAD.jsonl", "QUERY": tiny.query}
    (tmp_path / "BAD.jsonl").write_text('{"question": "Who?", "answer": 3}\n')
    given = [files_of.get(option, option) for option in options]
    assert train(cli, tiny, out, *given) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["BAD.jsonl"]


def test_a_run_that_diverged_gives_way_to_the_corrected_command(
    cli, tiny, tmp_path, capsys
):
    out = tmp_path / "run"
    given = ("--learning-rate", 1e30, "--optimizer", "sgd", "--record", "wte")
    assert train(cli, tiny, out, *given) == 2
    assert "learning" in capsys.readouterr().err
    assert train(cli, tiny, out) == 0
    assert not (out / "gradients").exists()


def test_a_second_process_is_told_of_the_first(cli, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    common = ("--model", tiny.model, "--train", tiny.train)
    scored = tmp_path / "scores.npz"
    with locks.locked(out), locks.locked_file(scored):
        assert train(cli, tiny, out) == 2
        assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
        assert cli("index", "build", *common, "--out", out) == 2
        assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
        method = ("--query", tiny.query, "--method", "gradient_dot")
        assert cli("influence", *common, *method, "--out", scored) == 2
        assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_first(cli, tiny, capsys):
    missing = ("--model", "no/such/model", "--data", tiny.train)
    assert cli("train", *missing, "--out", "/proc/nowhere") == 2
    assert "nothing can be written in /proc" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_while_it_writes_checkpoints_a_run_comes_to_the_same_end(
    cli, tiny, tmp_path
):
    command = (
        "import sys; from jaxunlearn.training import loop; loop.CHECKPOINT_SECONDS = 0;"
        "from jaxunlearn.cli import main; main(sys.argv[1:])"
    )
    given = ("--model", tiny.model, "--data", tiny.train, "--epochs", 8)
    given += ("--batch-size", 2, "--out")

    def start(out):
        words = ["train", *map(str, given), str(out)]
        return subprocess.Popen(
            [sys.executable, "-c", command, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start(tmp_path / "whole").wait() == 0
    killed = tmp_path / "killed"
    for delay in (0.0, 0.05, 0.11, 0.2):
        before = set((killed / "checkpoints").glob("*"))
        with start(killed) as process:
            while process.poll() is None and not (
                set((killed / "checkpoints").glob("[0-9]*")) - before
            ):
                time.sleep(0.005)
            time.sleep(delay)
            process.kill()
    assert start(killed).wait() == 0
    for name in ("trained.json", "losses.jsonl", "model/model.safetensors"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (killed / name).read_bytes() == whole, name
    assert json.loads((killed / "trained.json").read_text())["params_sha256"]
