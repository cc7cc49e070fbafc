import os
import subprocess
import sys

import pytest

import jaxunlearn
from jaxunlearn import cli
from jaxunlearn.commands import arguments, wording
from jaxunlearn.commands.console import FIRST_LINE, LINE_EVERY, progress_lines


def run(capsys, *given):
    """The exit status and what was printed."""
    with pytest.raises(SystemExit) as end:
        cli.main(given)
    return end.value.code, capsys.readouterr()


def test_the_version_is_the_package_s(capsys):
    from importlib.metadata import version

    assert jaxunlearn.__version__ == version("jaxunlearn")
    status, printed = run(capsys, "--version")
    assert (status, printed.out) == (0, f"jaxunlearn {jaxunlearn.__version__}\n")


def test_a_checkout_that_is_not_installed_has_a_version_too(monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert jaxunlearn.__version__ == "0+unknown"


def test_the_module_runs_as_the_console_script_does():
    command = [sys.executable, "-m", "jaxunlearn", "--version"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == f"jaxunlearn {jaxunlearn.__version__}\n"


@pytest.mark.parametrize(
    "command", [(name,) for name in cli.COMMANDS] + [("index", "build"), ()]
)
def test_help_is_plain_text_in_whole_paragraphs(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    status, printed = run(capsys, *command, "--help")
    assert status == 0
    for mark in ("``", "{None}", "options options", ":func:", ":class:"):
        assert mark not in printed.out
    assert f"usage: {' '.join(('jaxunlearn', *command))} [-h]" in printed.out


def test_the_overview_has_one_sentence_a_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, printed = run(capsys, "--help")
    for name in cli.COMMANDS:
        sentence = arguments.plain(cli.command_of(name).__doc__).split("\n\n")[0]
        assert cli.COMMANDS[name] == sentence
        assert f"{name}" in printed.out
        assert sentence in printed.out


def test_the_overview_waits_for_no_command_s_imports():
    code = (
        "import contextlib, sys; from jaxunlearn import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "sys.exit(bool({'jax', 'flax', 'orbax', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_every_option_of_a_command_is_known_by_the_argument_s_name():
    names = arguments.option_names(cli.command_of("train"))
    assert {"model", "data", "out", "batch_size"} <= set(names)
    assert names["batch_size"] == "--batch-size"
    assert "return" not in names
    index = arguments.option_names(cli.command_of("index"))
    assert {"projection", "top", "out"} <= set(index)
    assert index["train"] == "--data"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("epochs=0: at least 1", "--epochs 0: at least 1"),
        ("lower batch_size, or", "lower --batch-size, or"),
        ("a/batch_size=3 and x.batch_size", "a/batch_size=3 and x.batch_size"),
        ("--batch-size 0 or epochs == 1", "--batch-size 0 or epochs == 1"),
        ("epochs and layers are words", "epochs and layers are words"),
    ],
)
def test_errors_of_the_library_name_options(message, told):
    names = {"epochs": "--epochs", "batch_size": "--batch-size", "layers": "--layers"}
    assert wording.in_options(message, names) == told


def test_a_refused_argument_is_told_as_an_option(capsys, tmp_path):
    status, printed = run(
        capsys,
        *("demo", "--private-people", "1", "--out", str(tmp_path / "out")),
    )
    assert status == 2
    assert printed.err.startswith("jaxunlearn: error: --private-people 1: at least 2")


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    now = 0.0
    update = progress_lines("Training", 100, clock=lambda: now)
    printed = []
    for done in range(101):
        now = float(done)
        update(done, "loss [1]")
        printed += capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + int((100 - FIRST_LINE) // LINE_EVERY)
    assert printed[0] == ("Training: 5 of 100 after 5 s, about 95 s left. loss [1]")


def test_the_time_that_is_left_does_not_count_compilation(capsys):
    now = 0.0
    update = progress_lines("Scoring", 400, clock=lambda: now)
    told = []
    for done, at in ((0, 0.0), (1, 17.0), (2, 18.0), (3, 47.5)):
        now = at
        update(done)
        told += capsys.readouterr().out.splitlines()
    # 30.5 s for two steps.
    assert told == [
        "Scoring: 1 of 400 after 17 s",
        "Scoring: 3 of 400 after 48 s, about 6054 s left",
    ]


def test_help_of_a_method_is_its_own(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, printed = run(capsys, "unlearn", "npo", "--help")
    assert "usage: jaxunlearn unlearn npo [-h]" in printed.out
    assert "\n\n\n" not in printed.out
    for paragraph in arguments.plain(cli.command_of("unlearn").__doc__).split("\n\n"):
        assert f"\n\n{paragraph.strip()}\n\n" in printed.out
    assert "--mode " not in printed.out
    changed = "expression of the leaves to change. (default: .)"
    assert changed in printed.out
    _, printed = run(capsys, "unlearn", "first_epoch", "--help")
    for told in ("(default: ^wte/)", "(default: 0.02nats)", "(default: oneshot)"):
        assert told in printed.out
    _, printed = run(capsys, "unlearn", "exact_replay", "--help")
    for name in ("--layers", "--target", "--max-retain-increase"):
        assert f" {name} STR" not in printed.out


def test_a_misspelt_option_of_a_method_points_to_the_method_s_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, printed = run(capsys, "unlearn", "npo", "--betta", "3")
    assert status == 2
    assert "jaxunlearn unlearn npo --help" in printed.err + printed.out
    assert "jaxunlearn unlearn --help" not in printed.err + printed.out


def test_programs_are_kept_for_the_next_command(tmp_path):
    code = (
        "from jaxunlearn import cli; cli.keep_programs()\n"
        "import jax, jax.numpy as jnp; hits = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))\n"
        "print(hits.count('/jax/compilation_cache/cache_hits'))"
    )
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    folder, other = tmp_path / "jaxunlearn" / "programs", tmp_path / "other"

    def hits(**given):
        command, env = [sys.executable, "-c", code], kept | given
        return int(subprocess.check_output(command, env=env, text=True))

    assert hits(XDG_CACHE_HOME=str(tmp_path)) == 0
    assert list(folder.iterdir())
    assert hits(XDG_CACHE_HOME=str(tmp_path)) >= 1
    hits(XDG_CACHE_HOME=str(other), JAX_COMPILATION_CACHE_DIR="")
    assert not other.exists()
