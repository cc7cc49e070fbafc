import importlib
import json
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def task_module(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("influence_task")


@pytest.fixture
def script(task_module):
    return importlib.import_module("influence_quality")


def test_queries_are_spread_over_the_texts_and_never_trained_on(task_module):
    size = task_module.Size(examples=24, queries=4)
    texts = [str(i) for i in range(28)]
    train, query = task_module.held_out(texts, size)
    assert query == ["3", "10", "17", "24"]
    assert sorted(train + query, key=int) == texts
    with pytest.raises(ValueError, match="only 27 texts"):
        task_module.held_out(texts[1:], size)


def test_without_data_the_error_says_what_to_do(script, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXUNLEARN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="--data synthetic needs nothing"):
        script.main(out=tmp_path / "out", size="smoke")


def test_an_unknown_score_is_refused_before_any_training(script, tmp_path):
    with pytest.raises(ValueError, match="'magic'.*known are unrolled"):
        script.main(out=tmp_path, only=("magic",))


@pytest.mark.slow
def test_the_smallest_size_runs_through_and_ranks_chance_last(
    script, tmp_path, monkeypatch
):
    monkeypatch.delenv("JAXUNLEARN_DATA", raising=False)
    script.main(out=tmp_path, size="smoke")
    results = json.loads((tmp_path / "results.json").read_text())
    found = {row["score"]: row["LDS"] for row in results["rows"]}
    assert found["unrolled (MAGIC)"] > 0.8
    assert found["unrolled (MAGIC)"] == max(found.values())
    assert np.abs(found["random"]) < 0.6
    assert results["task"]["data"] == "synthetic"
    assert (tmp_path / "quality_cost.png").read_bytes()[:4] == b"\x89PNG"
