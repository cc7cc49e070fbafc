import doctest
import importlib
import json
from pathlib import Path

import pytest

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def paper(name):
    return importlib.import_module(f"experiments.paper.{name}")


def around(mean, half=0.001):
    return {"mean": mean, "low": mean - half, "high": mean + half, "missing": 0}


def way(reached=5, **given):
    measures = {
        "further": given.get("further", around(0.0)),
        "step at a common scale": around(2.0),
        "retain_rise": around(given.get("retain_rise", 0.1)),
        "barrier": given.get("barrier", around(0.0)),
        "slope": around(5.0),
        "relearned": around(2.0),
        "extraction": around(0.1),
        "precision": around(0.2),
        "reached": reached,
    }
    less = {
        other: {
            "relearned": given.get("slower", around(0.0)),
            "extraction": given.get("extracts", around(0.0)),
        }
        for other in ("exact", "name, 0.55")
    }
    return measures | {"less": less}


def judged(fuzzy=None, iterative=None):
    ways = {name: way() for name in ("exact", "retrained", "ascent on all")}
    ways |= {"name, 0.55": way(**(fuzzy or {})), "iterative": way(**(iterative or {}))}
    return paper("fuzzy_verdict").judged({"seeds": 5, "ways": ways})


@pytest.mark.parametrize(
    ("fuzzy", "verdict"),
    [
        ({"further": around(0.5), "barrier": around(0.3)}, "reproduces"),
        ({"further": around(0.5), "retain_rise": -0.1}, "reproduces"),
        ({"further": around(0.5)}, "partly"),
        ({"further": around(-0.5), "barrier": around(0.3)}, "partly"),
        ({"further": around(-0.5)}, "does not reproduce"),
        ({"further": around(0.1, 9)}, "does not reproduce"),
        ({"further": around(0.1, 9), "barrier": around(0.01, 0.1)}, "undecided"),
        ({"further": around(0.0), "barrier": around(0.01, 0.1)}, "undecided"),
        (
            {"further": around(0.5), "barrier": around(0.3), "reached": 4},
            "undecided",
        ),
    ],
)
def test_a_new_optimum_is_further_and_behind_a_barrier_or_lower(fuzzy, verdict):
    assert judged(fuzzy=fuzzy)["fuzzy moves to a new optimum"][0] == verdict


@pytest.mark.parametrize(
    ("iterative", "verdict"),
    [
        ({"slower": around(0.3), "extracts": around(-0.05)}, "reproduces"),
        ({"slower": around(0.3), "extracts": around(0.0)}, "partly"),
        ({"slower": around(0.3), "extracts": around(0.05)}, "partly"),
        ({"slower": around(-0.3), "extracts": around(0.05)}, "does not reproduce"),
        ({"slower": around(0.0), "extracts": around(0.0)}, "does not reproduce"),
        ({"slower": around(-0.3), "extracts": around(0, 9)}, "does not reproduce"),
        ({"slower": around(0, 9), "extracts": around(0.0)}, "undecided"),
        ({"slower": around(0.3), "extracts": around(-0.05), "reached": 4}, "undecided"),
    ],
)
def test_more_complete_is_slower_to_relearn_and_extracts_less(iterative, verdict):
    found = judged(iterative=iterative)
    assert found["iterative more complete than exact"][0] == verdict
    assert found["iterative more complete than fuzzy"][0] == verdict


def test_doctests():
    assert doctest.testmod(paper("fuzzy_verdict"), optionflags=FLAGS).failed == 0


def test_the_other_sign_turns_the_interval_round():
    found = paper("fuzzy_verdict").negative({"mean": 1, "low": 0, "high": 3})
    assert found == {"mean": -1, "low": -3, "high": 0}


def test_precision_and_recall_of_a_match():
    found = paper("fuzzy").quality([[0, 1, 2, 3], [5]], [[0, 1], [5, 6]])
    assert found["found"] == [4, 1]
    assert found["precision"]["seeds"] == [0.5, 1.0]
    assert found["recall"]["seeds"] == [1.0, 0.5]


@pytest.mark.slow
def test_the_smallest_size_runs_through(tmp_path):
    fuzzy, results = paper("fuzzy"), paper("results")
    options = results.Options(
        size="smoke", worlds=("synthetic",), out=tmp_path, cache=tmp_path / "cache"
    )
    fuzzy.main(options)
    written = json.loads((tmp_path / "fuzzy.json").read_text())
    assert (tmp_path / "fuzzy.png").read_bytes()[:4] == b"\x89PNG"
    (setting,) = written["results"]["settings"].values()
    ways = setting["ways"]
    assert ways["exact"]["precision"]["mean"] == ways["exact"]["recall"]["mean"] == 1
    assert ways["original"]["to_trained"]["mean"] == 0
    assert ways["retrained"]["to_retrained"]["mean"] == 0
    assert ways["original"]["slope"]["seeds"] == pytest.approx([1, 1])
    assert ways["exact"]["less"]["exact"]["behaviour"]["seeds"] == [0, 0]
    target = ways["retrained"]["forget"]["seeds"]
    for name in ("exact", "name, 0.55", "ascent on all", "iterative"):
        assert ways[name]["reached"] == 2
        assert ways[name]["forget"]["seeds"] == pytest.approx(target, rel=1e-4)
    cosines = setting["cosine with recorded"]
    assert cosines["the epoch run again"]["seeds"] == pytest.approx([1, 1], abs=1e-5)
    assert cosines["at its checkpoints"]["mean"] > 0.9
    assert len(written["verdicts"]) == 3
