import doctest
import importlib
import json
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

SEEDS = 5
NOISE = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def verdict():
    return importlib.import_module("experiments.paper.score_verdict")


@pytest.fixture
def examples():
    return importlib.import_module("experiments.paper.score_examples")


@pytest.fixture
def script():
    return importlib.import_module("experiments.paper.scores")


def setting_of(verdict, *, models=0.0, matched=0.0, examples=0.0, loss=0.0, kept=0.0):
    """Return a made-up setting: mean correlations, a number or one a score."""

    def rhos(value, score, spread):
        mean = value.get(score, 0.0) if isinstance(value, dict) else value
        return mean + spread * NOISE if mean else NOISE

    scores = (*verdict.CURVATURES, *verdict.DOTS)

    def level(value, truths, losses):
        return {
            truth: {score: rhos(value, score, 1 + i) for i, score in enumerate(scores)}
            | {name: rhos(mean, name, 1) for name, mean in losses.items()}
            for truth in truths
        }

    both = {verdict.LOSS: loss, verdict.KEPT_LOSS: kept}
    correlations = {
        "examples": level(
            examples,
            ("forget", "near", "unseen", verdict.ALL),
            {verdict.LOSS: loss, verdict.GROUP: 0.6},
        ),
        "models": level(models, verdict.TRUTHS, both),
        "matched": level(matched, verdict.TRUTHS, both | {verdict.LOSS: 0.0}),
    }
    chance = {name: dict.fromkeys(x, 0.1) for name, x in correlations.items()}
    return {
        "models": ["a"] * 9,
        "matched models": ["a"] * 4,
        "correlations": correlations,
        "chance": chance,
        "judged": verdict.judgements(correlations, chance),
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "undecided"),
        ({"loss": 0.8}, "does not reproduce"),
        ({"kept": 0.8}, "does not reproduce"),
        ({"models": 0.5, "examples": 0.5, "loss": 0.8}, "partly"),
        ({"models": 0.9, "examples": 0.9, "loss": 0.5}, "reproduces"),
        ({"models": -0.9, "examples": 0.9, "loss": 0.5}, "reproduces"),
        ({"models": 0.9, "examples": -0.9, "loss": 0.5}, "partly"),
        ({"models": 0.9, "examples": 0.9, "loss": 0.5, "kept": 0.95}, "partly"),
        ({"matched": 0.9, "examples": 0.6, "loss": 0.95}, "reproduces"),
        (
            {"models": {"hvp": 0.9}, "examples": {"hvp": 0.9}, "loss": 0.5},
            "partly",
        ),
        (
            {
                "models": {"hvp": 0.9, "act_act": 0.9},
                "examples": {"hvp": 0.9, "act_act": 0.9},
                "loss": 0.5,
            },
            "reproduces",
        ),
    ],
)
def test_the_verdict_follows_from_the_intervals(verdict, given, expected):
    found, why = verdict.verdict_of(setting_of(verdict, **given))
    assert found == expected
    assert "9 models a seed" in why
    assert "in the group alone +0.60" in why


def test_the_reason_says_what_the_kept_loss_decided(verdict):
    given = {"models": 0.9, "examples": 0.9, "loss": 0.5}
    for kept, expected in ((0.95, "partly"), (0.0, "reproduces")):
        found, why = verdict.verdict_of(setting_of(verdict, **given, kept=kept))
        assert found == expected
        assert "until a first run had been seen: reproduces)" in why
    found, why = verdict.verdict_of(setting_of(verdict, kept=0.8))
    assert found == "does not reproduce"
    assert "until a first run had been seen: undecided)" in why


def test_seeds_that_disagree_take_the_verdict_away(verdict):
    setting = setting_of(verdict, models=0.9, examples=0.9, loss=0.5)
    for by_score in setting["correlations"]["models"].values():
        for score in by_score:
            by_score[score] = by_score[score] * np.array([1, -1, 1, -1, 1])
    chance = {k: dict.fromkeys(v, 0.1) for k, v in setting["correlations"].items()}
    setting["judged"] = verdict.judgements(setting["correlations"], chance)
    assert verdict.verdict_of(setting)[0] == "undecided"


def test_a_score_has_to_be_clear_beyond_chance_and_beat_each_loss(verdict):
    def told(rhos, losses=(), chance=0.0, signed=False):
        rhos, losses = np.asarray(rhos), [np.asarray(x) for x in losses]
        return verdict.status(rhos, losses, chance=chance, signed=signed)

    assert told(0.5 + NOISE) == (verdict.TRACKS, 1)
    assert told(-0.5 + NOISE) == (verdict.TRACKS, -1)
    assert told(-0.5 + NOISE, signed=True) == (verdict.NOT, -1)
    assert told(0.5 + NOISE, chance=0.51) == (verdict.NOT, 0)
    assert told(30 * NOISE) == (verdict.NOT, 0)
    # Of a loss the size counts, and being as good is not enough.
    assert told(0.5 + NOISE, [-0.4 + NOISE]) == (verdict.TRACKS, 1)
    assert told(-0.5 + NOISE, [0.6 + NOISE]) == (verdict.NO_BETTER, -1)
    assert told(0.5 + NOISE, [-0.6 + NOISE]) == (verdict.NO_BETTER, 1)
    assert told(0.5 + NOISE, [0.5 + NOISE])[0] == verdict.NO_BETTER
    assert told(0.5 + NOISE, [0.1 + NOISE, 0.9 + NOISE])[0] == verdict.NO_BETTER
    # Without two seeds there is nothing to say.
    alone = np.array([0.9, *[np.nan] * 4])
    assert told(alone) == told([np.nan] * 5) == (verdict.NOT, 0)


def test_a_measure_has_to_point_one_way(verdict):
    up, down = ({"status": verdict.TRACKS, "sign": sign} for sign in (1, -1))
    weak = {"status": verdict.NO_BETTER, "sign": 1}
    none = {"status": verdict.NOT, "sign": 0}
    assert verdict.of_level([up, down, none]) == verdict.NOT
    assert verdict.of_level([down, down, up]) == verdict.TRACKS
    assert verdict.of_level([up, weak, none]) == verdict.NO_BETTER
    assert verdict.of_level([up, none, none]) == verdict.NOT
    assert verdict.of_level([weak]) == verdict.NO_BETTER


def test_doctests(verdict):
    assert doctest.testmod(verdict).failed == 0


def test_random_scores_stay_below_the_chance_level(examples):
    draws = np.random.default_rng(1)
    truth = draws.normal(size=(SEEDS, 12))
    level = examples.chance_of(list(truth))
    means = [
        abs(examples.correlations(draws.random(truth.shape), truth).mean())
        for _ in range(500)
    ]
    assert 0.97 < np.mean(np.array(means) < level) < 1
    # Fewer models or seeds: chance reaches further.
    assert examples.chance_of(list(truth[:2])) > level
    assert examples.chance_of(list(truth[:, :5])) > level
    assert examples.chance_of([]) == 1.0


def test_correlations_are_of_the_models_that_are_present(script):
    truth = np.arange(12.0).reshape(6, 2)
    drop = truth.copy()
    drop[2] = -100
    present = np.ones((6, 2), bool)

    def found():
        return script.over_models({"s": drop}, {"t": truth}, present)["t"]["s"]

    assert (found() < 1).all()
    present[2] = False
    assert found().tolist() == [1, 1]
    present[3:, 1] = False
    assert found()[0] == 1
    assert np.isnan(found()[1])


def test_little_is_left_where_relearning_extraction_and_losses_are_the_retrained_models(
    script,
):
    table = {name: np.ones((3, 2)) for name in (*script.SCORES, "loss", "kept loss")}
    table["hvp"] = np.array([[5.0, 5.0], [1.0, 2.0], [4.0, 7.0]])
    table["relearning"] = np.array([[1.0, 1.0], [3.0, 3.0], [2.0, 4.0]])
    table["extraction"] = np.array([[0.9, 0.9], [0.1, 0.1], [0.5, 0.0]])
    table["behaviour"] = np.array([[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    truths, drops = script.compared(table)
    assert truths["relearning"].tolist() == [[-2, -2], [0, 0], [-1, 1]]
    np.testing.assert_allclose(truths["extraction"], [[-0.8] * 2, [0, 0], [-0.4, 0.1]])
    assert truths["behaviour"].argmax(axis=0).tolist() == [1, 1]
    assert drops["hvp"].tolist() == [[0, 0], [4, 3], [1, -2]]


def test_a_way_is_weakened_and_strengthened_along_a_line(script):
    start, end = {"w": np.array([[1.0, 2.0]])}, {"w": np.array([[3.0, 2.0]])}
    assert script.between(start, end, 1.0) is end
    assert script.between(start, end, 0.5)["w"].tolist() == [[2.0, 2.0]]
    assert script.between(start, end, 1.5)["w"].tolist() == [[4.0, 2.0]]


def test_examples_are_cut_into_groups(examples):
    batch = {"index": np.arange(12).reshape(2, 6), "x": np.ones((2, 6, 3))}
    parts = examples.parts(batch, 2)
    assert [part["x"].shape for part in parts] == [(2, 2, 3)] * 3
    again = np.concatenate([part["index"] for part in parts], axis=1)
    assert (again == batch["index"]).all()
    assert examples.taken(10, 96) == 30
    assert examples.taken(4, 11) == 8


@pytest.mark.slow
def test_the_smallest_size_runs_through_and_scores_are_what_they_say(
    script, tmp_path, monkeypatch
):
    results = importlib.import_module("experiments.paper.results")
    programs = importlib.import_module("experiments.paper.score_programs")
    options = results.Options(
        size="smoke", worlds=("synthetic",), out=tmp_path, cache=tmp_path / "cache"
    )
    lab = results.labs(options)["synthetic", "adamw"]
    # With the same laboratory in hand nothing is compiled twice.
    name = "synthetic, adamw"
    monkeypatch.setattr(
        script, "each_setting", lambda _, __, measure: {name: measure(lab)}
    )
    script.main(options)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (tmp_path / "scores.png").read_bytes()[:4] == b"\x89PNG"
    (setting,) = written["results"].values()
    table = setting["table"]
    assert set(programs.SCORES) < set(table)
    assert table["behaviour"]["retrained"]["seeds"] == [0, 0]
    at_target = [
        table["loss"][name]["seeds"]
        for name in setting["matched models"]
        if name not in setting["absent"]
    ]
    np.testing.assert_allclose(np.ptp(at_target, axis=0), 0, atol=2e-3)
    assert set(setting["steps"]) == set(programs.SCORES)
    assert min(setting["steps"].values()) > 0

    scorer = programs.Scorer(lab)
    group = programs.picked(lab, lab.sets.forget)
    own = scorer.of_group(lab.trained)
    each = scorer.of_examples(lab.trained, [group])
    for name in programs.SCORES:
        np.testing.assert_allclose(own[name], each[name].mean(axis=1), rtol=2e-4)
        again = table[name]["trained"]["seeds"]
        np.testing.assert_allclose(own[name], again, rtol=1e-6)

    # By hand, for the first seed.
    params = jax.tree.map(lambda x: jnp.asarray(x[0]), lab.trained)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    loss, data = lab.model.per_example_loss, lab.sets.train

    def mean(vector, rows, weights=None):
        batch = {k: jnp.asarray(x)[jnp.asarray(rows)] for k, x in data.items()}
        values = loss(unflatten(vector), batch)
        return jnp.average(values, weights=weights)

    gradient = jax.jit(jax.grad(mean))
    g = gradient(flat, lab.sets.forget[0])
    np.testing.assert_allclose(own["gradient_dot"][0], g @ g, rtol=1e-4)
    samples = scorer.samples
    moved = jax.jvp(
        lambda v: gradient(v, samples.hessian[0], samples.weights), (flat,), (g,)
    )[1]
    np.testing.assert_allclose(own["hvp"][0], g @ moved / (g @ g), rtol=1e-3)
    rows = np.stack([gradient(flat, [i]) for i in samples.fisher[0]])
    count = len(rows)
    damping = programs.DAMPING * (rows**2).sum() / count**2
    gram = rows @ rows.T / count + damping * np.eye(count)
    inverse = (g - rows.T @ np.linalg.solve(gram, rows @ g) / count) / damping
    np.testing.assert_allclose(own["inverse_hvp"][0], g @ inverse, rtol=1e-3)
