"""The experiment on images runs through, and forgets what it is told to."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def digits():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield importlib.import_module("digits")


def test_batches_hold_every_image_once(digits):
    train, unseen = digits.load_images(digits.SIZES["smoke"])
    assert not set(train.index) & set(unseen.index)
    batches = digits.in_batches(train, 50)
    index = np.concatenate([batch["index"] for batch in batches])
    assert sorted(index[index >= 0]) == sorted(train.index)
    assert {len(batch["labels"]) for batch in batches} == {50}
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert np.array_equal(weight > 0, index >= 0)


def test_training_learns_and_the_seeds_differ(digits):
    size = digits.SIZES["smoke"]
    train, _ = digits.load_images(size)
    task = digits.classification_task(digits.NETWORKS["mlp"])
    models = digits.train_together(task, train, size, seed=0)
    before = np.log(10)  # of one class in ten, at random
    for seed in range(size.seeds):
        own = jax.tree.map(lambda x, seed=seed: x[seed], models)
        assert digits.measure(task, own, {"train": train})["train loss"] < before
    kernel = np.asarray(models["out"]["kernel"])
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-3


@pytest.mark.slow
def test_the_smallest_size_runs_through(digits, tmp_path):
    results = digits.main(tmp_path, "smoke")
    assert (tmp_path / "digits.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "results.json").is_file()
    for rows in results["unlearning"].values():
        by_name = {row["model"]: row for row in rows}
        methods = set(by_name) - {"before", "retrained"}
        assert {"gradient_ascent", "grad_diff", "npo", "simnpo"} <= methods
        before, retrained = by_name["before"], by_name["retrained"]
        target = retrained["forget loss"]
        for name in methods:
            row = by_name[name]
            if row["status"] == "reached" and target > before["forget loss"]:
                assert row["forget loss"] >= target * 0.99
    for row in results["influence"]["mlp"]:
        # One in ten by chance.
        assert row["same class among the first 10"] > 0.2
        assert row["tapped"] == row["parameters"] or row["score"] == "act_act"
