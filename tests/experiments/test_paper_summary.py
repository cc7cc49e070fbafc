import doctest
import importlib
import json
import re
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def summary():
    return importlib.import_module("experiments.paper.summary")


@pytest.fixture
def texts():
    return importlib.import_module("experiments.paper.summary_texts")


SIZE = {
    "name": "tiny",
    "seeds": 71,
    "groups": 72,
    "facts": 73,
    "unseen": 74,
    "public": 75,
    "layers": 76,
    "width": 77,
    "heads": 78,
    "vocabulary": 79,
    "length": 80,
    "pretraining_steps": 81,
    "epochs": 82,
    "batch_size": 83,
    "learning_rates": [["adamw", 0.084], ["sgd", 0.085]],
}


def written(verdicts, *, results=None, size=SIZE, seed=0, device="1 x cpu"):
    return {
        "verdicts": {
            name: {"verdict": verdict, "because": because}
            for name, (verdict, because) in verdicts.items()
        },
        "size": size,
        "seed": seed,
        "seconds": 86 * 60.0,
        "versions": {"jax": "8.7.0", "jaxunlearn": "8.8.0", "device": device},
        "results": results or {},
    }


EPOCHS = written(
    {
        "synthetic, adamw": ("partly", "It rose by 11.5 points. Then it fell | by 12."),
        "tofu, adamw": ("reproduces", "By 13 [14, 15] nats."),
        "synthetic, sgd": ("undecided", "By 16."),
    }
)
LAYERS = written(
    {
        "synthetic, adamw: one part": ("does not reproduce", "By 17."),
        "synthetic, adamw: other part": ("partly", "By 18."),
    }
)
STATUSES = {"hvp": "tracks", "act_act": "does not track", "loss": "tracks"}
SCORES = written(
    {"tofu, adamw": ("partly", "By 19. And 20.")},
    results={
        "tofu, adamw": {
            "judged": {"of level": {"examples": STATUSES, "models": STATUSES}},
            "steps": {"hvp": 21.0, "act_act": 22.5},
        }
    },
)


def made(summary, folder, **claims):
    results = folder / "results"
    results.mkdir()
    for claim, value in claims.items():
        (results / f"{claim}.json").write_text(json.dumps(value))
    path = summary.main(summary.Options(results=results, out=folder))
    return path.read_text()


def section_of(page, claim):
    return page.split(f'<a id="{claim}"></a>')[1].split("\n## ")[1]


def rows_of(page):
    lines = page.split("## Verdicts")[1].split("## The laboratory")[0].strip()
    head, _, *rows = (
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines.splitlines()
    )
    return head, rows


def test_the_page_says_each_verdict_in_its_place(summary, tmp_path):
    page = made(summary, tmp_path, epochs=EPOCHS, layers=LAYERS, scores=SCORES)
    head, rows = rows_of(page)
    settings = ["synthetic, adamw", "synthetic, sgd", "tofu, adamw"]
    assert head == ["Claim", *settings]
    verdicts = {row[0].partition(" ")[2]: row[1:] for row in rows}
    assert verdicts[
        "First-epoch gradients unlearn better than those of several epochs"
    ] == [
        "**partly**",
        "**undecided**",
        "**reproduces**",
    ]
    assert verdicts["One part"] == ["**does not reproduce**", "–", "–"]
    assert verdicts["Other part"] == ["**partly**", "–", "–"]
    scores = verdicts["Hessian-vector and dot products quantify unlearning"]
    assert scores == ["–", "–", "**partly**"]
    assert len(rows) == 6
    assert all(row[1:] == ["not run"] * 3 for row in rows[4:])


def test_a_claim_has_its_figure_reason_and_command(summary, tmp_path):
    page = made(summary, tmp_path, epochs=EPOCHS, layers=LAYERS, scores=SCORES)
    epochs = section_of(page, "epochs")
    assert "](results/epochs.png)" in epochs
    assert "Then it fell | by 12." in epochs
    assert "By 13 [14, 15] nats." in epochs
    assert (
        "`JAXUNLEARN_DATA=DIR python -m experiments.paper.epochs --size tiny` took 86 "
        "minutes" in epochs
    )
    assert "-m experiments.paper.layers --size tiny --worlds synthetic`" in section_of(
        page, "layers"
    )
    assert "| `hvp` | tracks | tracks | 21.0 |" in section_of(page, "scores")
    fuzzy = section_of(page, "fuzzy")
    assert "**Not run.**" in fuzzy
    assert ".png" not in fuzzy
    assert page.count("JAXUNLEARN_DATA=DIR python -m experiments.paper.scores") == 2


def test_text_is_broken_at_100_columns_and_tables_are_not(summary):
    long = " ".join(["word"] * 40)
    page = f"{long}\n\n- {long}\n\n| {long} |\n\n```\n{long}\n```"
    lines = summary.wrapped(page).split("\n")
    assert max(len(x) for x in lines if not x.startswith("|") and x != long) <= 100
    assert f"| {long} |" in lines
    assert lines.count(long) == 1
    assert sum(x.split().count("word") for x in lines) == 160


def numbers(text):
    return set(re.findall(r"\d+(?:\.\d+)*", text))


def test_every_number_of_the_page_comes_from_the_files(summary, texts, tmp_path):
    page = made(summary, tmp_path, epochs=EPOCHS, layers=LAYERS, scores=SCORES)
    # Names, and the level of the intervals, which is the library's.
    page = page.replace(texts.PAPER, "").replace("GPT-2", "").replace("95 %", "")
    told = numbers(json.dumps([EPOCHS, LAYERS, SCORES]))
    counts = {str(n) for n in range(len(texts.TEXTS) + 1)}  # of claims
    assert numbers(page) - counts <= told | {"86"}
    assert {str(n) for n in range(71, 84)} | {"0.084", "0.085", "86"} <= numbers(page)


def test_the_words_hold_no_number(texts):
    words = [*texts.LIMITS, texts.TOFU_LIMIT]
    words += [field for text in texts.TEXTS.values() for field in text]
    for word in words:
        assert not numbers(word.replace("GPT-2", "")), word


def test_nothing_run_is_a_page_too(summary, tmp_path):
    page = made(summary, tmp_path)
    assert page.count("**Not run.**") == 5
    assert "0 of 5 were run" in page
    assert "TOFU's answers" not in page


def test_the_limits_follow_what_was_run(summary, tmp_path):
    limits = summary.limits({"epochs": EPOCHS})
    assert "Not measured on a GPU" in limits
    assert "1 x cpu" in limits
    assert "TOFU's answers" in limits
    assert "TOFU's answers" not in summary.limits({"layers": LAYERS})
    large = written({}, size=SIZE | {"name": "small"}, device="1 x H100")
    assert "Not measured" not in summary.limits({"epochs": large})
    smoke = written({}, size=SIZE | {"name": "smoke"})
    assert "shows nothing" in summary.limits({"epochs": smoke})


def test_different_sizes_and_seeds_are_told_apart(summary):
    other = written({}, size=SIZE | {"width": 99}, seed=3)
    told = summary.laboratory({"epochs": EPOCHS, "layers": other, "scores": SCORES})
    assert "seed 0 (epochs, scores):" in told
    assert "seed 3 (layers):" in told
    assert "width 77" in told
    assert "width 99" in told
    assert "(epochs" not in summary.laboratory({"epochs": EPOCHS})


def test_figures_are_linked_from_wherever_the_page_is(summary, tmp_path):
    results = tmp_path / "a" / "results"
    results.mkdir(parents=True)
    (results / "epochs.json").write_text(json.dumps(EPOCHS))
    out = tmp_path / "b"
    page = summary.main(summary.Options(results=results, out=out)).read_text()
    assert "](../a/results/epochs.png)" in page
    assert (out / "../a/results").resolve() == results


def test_misuse_is_said(summary, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*epochs, layers"):
        summary.read(tmp_path / "nowhere")
    (tmp_path / "epochs.json").write_text("{")
    with pytest.raises(ValueError, match="epochs.json is no JSON"):
        summary.read(tmp_path)
    (tmp_path / "epochs.json").write_text(json.dumps({"verdicts": {}, "seed": 0}))
    with pytest.raises(ValueError, match="has no size, seconds"):
        summary.read(tmp_path)


@pytest.mark.parametrize("name", ["summary", "summary_claims"])
def test_doctests(name):
    module = importlib.import_module(f"experiments.paper.{name}")
    assert doctest.testmod(module).failed == 0
