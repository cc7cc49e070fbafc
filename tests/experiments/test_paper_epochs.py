import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

SEEDS = 5


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def script():
    return importlib.import_module("experiments.paper.epochs")


@pytest.fixture
def verdict():
    return importlib.import_module("experiments.paper.epochs_verdict")


def setting_of(verdict, prices):
    """Return made-up results: prices by layers and epoch set, noise over the seeds."""
    noise = 0.001 * np.arange(SEEDS)
    rows = {
        layers: {
            name: {"retain_rise": np.asarray(price) + noise * (1 + len(name))}
            | {measure: noise for measure in verdict.MEASURES}
            for name, price in by_set.items()
        }
        for layers, by_set in prices.items()
    }
    literal = {
        name: {"forget": 1 + noise, "retain_rise": noise, "behaviour": shift + noise}
        for name, shift in (("1", 0.5), ("all", 0.2))
    }
    setting = {
        "target": 3 + noise,
        "models": {"trained": {"forget": 1 + noise}},
        "calibrated": rows,
        "literal": {"all parameters": literal},
    }
    return setting | {"comparisons": verdict.comparisons(setting)}


def prices(first, second, every):
    return {"1": first, "2": second, "all": every, "ascent": 1.0}


CHEAP, DEAR = prices(0.1, 0.5, 0.3), prices(0.4, 0.1, 0.2)
WIDE = np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
UNSURE = prices(0.2, 0.2 + WIDE, 0.2 - WIDE)
SAME = prices(0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("embedding", "everything", "expected"),
    [
        (CHEAP, CHEAP, "reproduces"),
        (CHEAP, DEAR, "partly"),
        (CHEAP, UNSURE, "partly"),
        (DEAR, UNSURE, "does not reproduce"),
        (SAME, SAME, "does not reproduce"),
        (SAME, UNSURE, "undecided"),
        (UNSURE, UNSURE, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_intervals(
    verdict, embedding, everything, expected
):
    setting = setting_of(
        verdict, {"embedding": embedding, "all parameters": everything}
    )
    found, because = verdict.judged(setting)
    assert found == expected
    assert len(re.findall(r"points \[", because)) == 5
    assert because.endswith("nearer to the retrained model's losses: all epochs.")


def test_a_seed_that_does_not_reach_the_target_counts_against_its_side(verdict):
    good, bad = np.full(SEEDS, 0.1), np.full(SEEDS, 0.5)
    bad[0] = np.nan
    lost = verdict.compared(bad, good)
    assert (lost["sign"], lost["not_reached"]) == (1, [1, 0])
    assert verdict.compared(good, bad)["sign"] == -1
    # Cheaper where it arrives, but it does not always: nothing is decided.
    mixed = np.where(np.isnan(bad), np.nan, 0.01)
    assert verdict.compared(mixed, good)["sign"] == 0
    assert verdict.compared(np.full(SEEDS, np.nan), good)["value"] is None


def test_a_difference_too_small_to_matter_is_none(verdict):
    base = np.linspace(0.1, 0.2, SEEDS)
    close = verdict.compared(base + 1e-3, base)
    assert close["low"] > 0
    assert (close["sign"], close["equal"]) == (0, True)


def test_measures_are_beside_the_trained_and_the_retrained_model(script):
    trained = {"retain": np.array([1.0, 2.0])}
    retrained = {"losses": np.array([[1.0, 2.0], [3.0, 4.0]])}
    found = script.beside(
        {"retain": np.array([1.5, 2.0]), "losses": np.array([[1.0, 4.0], [3.0, 4.0]])},
        {"trained": trained, "retrained": retrained},
    )
    np.testing.assert_allclose(found["retain_rise"], [0.5, 0.0])
    np.testing.assert_allclose(found["behaviour"], [np.sqrt(2.0), 0.0])
    assert "losses" not in found


@pytest.mark.slow
def test_the_smallest_size_runs_through(script, tmp_path, monkeypatch):
    monkeypatch.delenv("JAXUNLEARN_DATA", raising=False)
    options = script.results.Options(
        size="smoke", worlds=("synthetic",), out=tmp_path, cache=tmp_path / "cache"
    )
    script.main(options)
    found = json.loads((tmp_path / "epochs.json").read_text())
    assert set(found["verdicts"]) == {"synthetic, adamw", "synthetic, sgd"}
    for setting in found["results"].values():
        target = setting["target"]["seeds"]
        for by_set in setting["calibrated"].values():
            assert list(by_set) == ["1", "2", "all", "ascent"]
            for row in by_set.values():
                assert row["forget"]["missing"] == 0
                np.testing.assert_allclose(row["forget"]["seeds"], target, rtol=1e-3)
    # Added back as SGD applied it, a gradient undoes what it did.
    sgd = found["results"]["synthetic, sgd"]
    trained = sgd["models"]["trained"]["forget"]["mean"]
    for rows in sgd["literal"].values():
        assert trained < rows["1"]["forget"]["mean"] < rows["all"]["forget"]["mean"]
    assert (tmp_path / "epochs.png").read_bytes()[:4] == b"\x89PNG"
