"""The code of the how-to pages runs as it stands, and their commands are real."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])


def blocks(page, language):
    """The code blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands():
    """Every `jaxunlearn ...` command of the pages, as a shell splits it."""
    for page in PAGES:
        for block in blocks(page, ""):
            lines = block.replace("\\\n", " ").splitlines()
            yield from (shlex.split(x) for x in lines if x.startswith("jaxunlearn "))


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A folder with RUN, RECORDS.json and QUESTIONS.json, as the pages speak of."""
    from jaxunlearn.cli import main

    place = tmp_path_factory.mktemp("docs")
    records = [
        {"question": f"What colour is boat {i}?", "answer": f"Colour {i * 7 % 5}."}
        for i in range(64)
    ]
    (place / "RECORDS.json").write_text(json.dumps(records))
    (place / "QUESTIONS.json").write_text(json.dumps(records[:2]))
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(io.StringIO()):
        main(
            ["train", "--model", str(tiny.model), "--data", str(place / "RECORDS.json")]
            + ["--out", str(place / "RUN"), "--epochs", "1", "--learning-rate", "0.01"]
        )
    assert not end.value.code
    return place


@pytest.fixture
def run_page(folder, monkeypatch):
    """Runs the Python of a page from top to bottom; gives its names."""
    monkeypatch.chdir(folder)

    def run(name):
        page = DOCS / "how-to" / f"{name}.md"
        names = {}
        shown = blocks(page, "python")
        assert shown
        for block in shown:
            exec(compile(block, page.name, "exec"), names)
        return names

    return run


# The fast suite runs what README shows, which is nearly these two.
@pytest.mark.slow
def test_a_model_is_unlearned(run_page, capsys):
    names = run_page("unlearn")
    printed = capsys.readouterr().out
    assert names["outcome"].status.name in printed
    assert names["found"].kept == "approximate"  # untrained, it tells at 5 nats
    assert names["found"].reason in printed


@pytest.mark.slow
def test_influence_is_scored(run_page, capsys):
    names = run_page("influence")
    assert names["found"].scores.shape == (2, 64)
    assert "(2, 64)" in capsys.readouterr().out


def test_a_model_is_evaluated(run_page, capsys):
    names = run_page("evaluate")
    loss = names["found"].scores.values["forget_loss"]
    assert str(loss) in capsys.readouterr().out


def test_a_method_is_added(run_page, monkeypatch):
    import jax
    import numpy as np

    from jaxunlearn.unlearning import METHODS, Sets

    monkeypatch.setattr("jaxunlearn.unlearning.METHODS", dict(METHODS))
    names = run_page("add_a_method")
    row = names["METHODS"]["capped_ascent"]
    assert "capped_ascent" not in METHODS

    def task(params, batch, *, key=None):
        return params * batch["x"]

    objective = row.function(task, ceiling=3.0)
    batch = {"x": np.float32([1, 2]), "weight": np.ones(2), "index": np.arange(2)}
    params, key = np.float32(2), jax.random.key(0)
    state = objective.init(params, key)
    loss, _ = objective.loss(params, state, Sets(batch, batch), key)
    # Losses 2 and 4: forgetting gives -(2 + 3) / 2, keeping (2 + 4) / 2.
    assert loss == pytest.approx(0.5)


@pytest.mark.parametrize("shown", [*commands()], ids=lambda shown: " ".join(shown[1:3]))
def test_the_pages_commands_name_options_that_exist(shown, capsys):
    from jaxunlearn.cli import main

    given = [word for word in shown[1:] if word.startswith("--")]
    name = shown[1:3] if shown[1] == "index" else shown[1:2]
    with pytest.raises(SystemExit):
        main([*name, "--help"])
    told = capsys.readouterr().out
    assert set(given) <= set(re.findall(r"--[a-z][a-z-]*", told))


def test_pages_lead_on_to_pages_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
