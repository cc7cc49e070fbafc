import importlib
import json
from pathlib import Path

import numpy as np
import pytest

SEEDS = 5
NOISE = 0.001 * np.arange(SEEDS)


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def script():
    return importlib.import_module("experiments.paper.calibration")


@pytest.fixture
def verdict():
    return importlib.import_module("experiments.paper.calibration_verdict")


def path_of(verdict, *, retain, relearned, extraction=0.05):
    """Return a made-up setting whose forget loss is at its target at factor 1.

    Args:
      verdict: The module.
      retain: Factor -> retain loss.
      relearned: Factor -> loss that relearning comes to; the retrained model's is 2.
      extraction: Extraction strength all along; the retrained model's is 0.05.
    """
    factors = np.array([0.0, *verdict.FACTORS])

    def over_seeds(values):
        return np.asarray(values, np.float64)[:, None] + NOISE

    forget = 3 + np.log2(np.maximum(factors, 2.0**-5))
    setting = {
        "target": 3 + NOISE,
        "scale": 0.1 + NOISE,
        "factors": factors.tolist(),
        "sweep": {
            "forget": over_seeds(forget),
            "retain": over_seeds([retain(f) for f in factors]),
            "relearned": over_seeds([relearned(f) for f in factors]),
            "extraction": over_seeds(np.full(len(factors), extraction)),
            "membership": over_seeds(np.where(factors < 2, 0.9, 0.4)),
            "self_dot": over_seeds(1 + factors),
        },
        "retrained": {"relearned": 2 + NOISE, "extraction": 0.05 + NOISE},
        "fresh to the target": {"retain": 1.2 + NOISE, "relearned": 1.5 + NOISE},
    }
    setting["window"] = verdict.window(
        np.full(SEEDS, 2**-0.2),
        np.full(SEEDS, 2**0.2),
        setting["sweep"]["retain"],
        setting["scale"],
    )
    setting["stops"] = verdict.stops_of(setting)
    setting["harm"] = verdict.harm_of(setting)
    return setting


def rising(factor):
    return 1 + 0.01 * factor


def known_up_to(most):
    return lambda factor: 1.0 if factor <= most else 2.5


def verdicts_of(verdict, setting):
    return [found for found, _ in verdict.judged(setting).values()]


def test_a_narrow_window_and_a_stop_in_the_known_reproduce(verdict):
    setting = path_of(verdict, retain=rising, relearned=known_up_to(1.2))
    assert verdicts_of(verdict, setting) == [
        "reproduces",
        "reproduces",
        "does not reproduce",
    ]
    _, because = verdict.judged(setting)["a stop may be false"]
    assert "forget loss at target 5 of 5 (-1.00 nats" in because
    assert "target held for 2 checks 0 of 5 (+0.50 nats" in because
    assert "gradient dot halved never" in because
    np.testing.assert_allclose(
        setting["stops"]["forget loss at target"]["forgotten"], np.sqrt(2)
    )


def test_where_too_much_is_not_enough_over_exposure_ends_early(verdict):
    setting = path_of(verdict, retain=rising, relearned=known_up_to(16))
    assert verdict.ended_early(setting)[0] == "reproduces"
    setting = path_of(verdict, retain=rising, relearned=known_up_to(5))
    assert verdict.ended_early(setting)[0] == "partly"


def test_nothing_of_the_claim_shows(verdict):
    setting = path_of(verdict, retain=lambda f: 1.0, relearned=known_up_to(-1))
    setting["window"]["octaves"] = 3 + NOISE
    assert setting["harm"]["retain_rise"][2.0]["sign"] == 0
    assert verdicts_of(verdict, setting) == ["does not reproduce"] * 3


def test_nothing_is_decided_by_seeds_that_disagree(verdict):
    setting = path_of(verdict, retain=lambda f: 1.0, relearned=known_up_to(-1))
    setting["window"]["octaves"] = np.array([0.0, 2.0, 0.5, 1.5, 1.0])
    setting["sweep"]["relearned"] = 2 + np.array([-1.0, 1.0, -1.0, 1.0, 0.1]) * (
        np.ones((len(setting["factors"]), 1))
    )
    setting["stops"] = verdict.stops_of(setting)
    setting["harm"] = verdict.harm_of(setting)
    # Single seeds stop falsely, which the mean over seeds does not show.
    assert verdicts_of(verdict, setting) == ["undecided", "partly", "undecided"]


def test_a_stop_before_the_first_step_is_no_false_stop(verdict):
    setting = path_of(
        verdict, retain=rising, relearned=known_up_to(0.1), extraction=0.01
    )
    row = setting["stops"]["extraction as retrained"]
    np.testing.assert_array_equal(row["factor"], 0.0)
    np.testing.assert_array_equal(row["false_relearning"], 1.0)
    found, because = verdict.stop_false(setting)
    assert found == "does not reproduce"
    assert "extraction as retrained never after the first step" in because


def test_a_gap_within_the_noise_is_no_false_stop_however_sure(verdict):
    setting = path_of(verdict, retain=rising, relearned=lambda factor: 1.95)
    gap = setting["stops"]["forget loss at target"]["gap"]
    assert verdict.paired(gap, 0 * gap)["sign"] == -1
    assert verdict.stop_false(setting)[0] == "does not reproduce"


def test_without_any_stop_nothing_is_said_of_stops(verdict):
    setting = path_of(verdict, retain=rising, relearned=known_up_to(1.2))
    for row in setting["stops"].values():
        row["factor"][:] = np.nan
    assert verdict.stop_false(setting)[0] == "undecided"


def test_a_seed_that_cannot_be_unlearned_is_told_and_not_judged(verdict):
    setting = path_of(verdict, retain=rising, relearned=known_up_to(1.2))
    for name, values in setting["sweep"].items():
        setting["sweep"][name] = values.copy()
        setting["sweep"][name][:, 0] = np.nan
    setting["scale"][0] = np.nan
    setting["window"] = verdict.window(
        np.full(SEEDS, 0.9),
        np.full(SEEDS, 1.1),
        setting["sweep"]["retain"],
        setting["scale"],
    )
    setting["stops"] = verdict.stops_of(setting)
    setting["harm"] = verdict.harm_of(setting)
    needed, false, _ = verdict.judged(setting).values()
    assert needed[0] == false[0] == "reproduces"
    assert "of 4 seeds (1 more not at the target)" in needed[1]
    assert "forget loss at target 4 of 4" in false[1]


def test_the_window_ends_where_the_first_limit_is_passed(verdict):
    shape = (1 + len(verdict.FACTORS), 2)
    low, high = np.array([0.5, 0.5]), np.array([2.0, np.inf])
    free = verdict.window(low, high, np.ones(shape), np.array([1.0, 1.5]))
    np.testing.assert_allclose(free["octaves"], [2.0, 5.0])
    np.testing.assert_array_equal(free["others_serve"], [1, 1])
    # 10 % above the start at twice the scale and beyond the other seed's window
    retain = np.ones(shape)
    retain[1:, 0] = 1 + 0.05 * verdict.FACTORS
    retain[1:, 1] = 1 + 0.4 * verdict.FACTORS
    dear = verdict.window(low, high, retain, np.array([1.0, 1.5]))
    np.testing.assert_allclose(dear["dear"], [2.0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(dear["octaves"], [2.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(dear["others_serve"], [1, 0])


def test_a_crossing_is_found_between_the_measured_factors(verdict):
    rise = np.log2(verdict.FACTORS)
    assert verdict.crossing(rise, 1.3) == pytest.approx(2**1.3)
    assert verdict.crossing(rise, 10.0) == np.inf
    assert verdict.crossing(rise, -5.0) == verdict.FACTORS[0]
    assert verdict.crossing(np.where(rise > 1, np.inf, rise), 1.5) == 2.0


def test_extraction_tells_a_false_stop_where_relearning_does_not(verdict):
    setting = path_of(verdict, retain=rising, relearned=known_up_to(-1), extraction=0.4)
    row = setting["stops"]["forget loss at target"]
    np.testing.assert_array_equal(row["false_extraction"], 1)
    np.testing.assert_array_equal(row["false_relearning"], 0)
    assert np.isnan(setting["stops"]["extraction as retrained"]["factor"]).all()


@pytest.mark.slow
def test_the_smallest_size_runs_through(script, tmp_path, monkeypatch):
    monkeypatch.delenv("JAXUNLEARN_DATA", raising=False)
    options = script.results.Options(
        size="smoke", worlds=("synthetic",), out=tmp_path, cache=tmp_path / "cache"
    )
    script.main(options)
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert len(found["verdicts"]) == 2 * 3
    assert "synthetic, sgd: a stop may be false" in found["verdicts"]
    for setting in found["results"].values():
        sweep, stored = setting["sweep"], setting["exposures"]["stored"]
        matched = setting["factors"].index(1.0)
        np.testing.assert_allclose(
            sweep["forget"][matched]["seeds"], setting["target"]["seeds"], rtol=1e-3
        )
        # k exposures to one gradient are k times the scale.
        for k, row in zip(
            setting["exposures"]["number"], stored["forget"], strict=True
        ):
            there = setting["factors"].index(k * script.STEP)
            assert row == sweep["forget"][there]
        np.testing.assert_allclose(
            setting["fresh to the target"]["forget"]["seeds"],
            setting["target"]["seeds"],
            rtol=1e-3,
        )
    assert (tmp_path / "calibration.png").read_bytes()[:4] == b"\x89PNG"
