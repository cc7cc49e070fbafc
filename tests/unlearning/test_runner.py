"""The training loop of objectives, and what the runner makes of every form."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.training import Recipe
from jaxunlearn.unlearning import (
    Limits,
    Method,
    Sets,
    Status,
    descent,
    no_progress,
    unlearn,
)
from jaxunlearn.unlearning.streams import sets_of_step, stacked_rows

ANY = Limits(max_retain_nats=None, max_relative_step=None)
RECIPE = Recipe(epochs=6, batch_size=2, learning_rate=0.2, optimizer="adam", seed=3)


def distance(params, batch):
    """Half the squared distance of an example's point."""
    moved = params["w"] + params["b"] - batch["x"]
    return 0.5 * jnp.sum(moved**2, axis=1)


def batches(points):
    """Batches of four, the last one filled with padding that is no number."""
    points = np.asarray(points, np.float32)
    size = -(-len(points) // 4) * 4
    rows = np.concatenate([points, np.full((size - len(points), 2), 1e30)])
    index = np.where(np.arange(size) < len(points), np.arange(size), -1)
    weight = (index >= 0).astype(np.float32)
    return [
        {
            "x": rows[i : i + 4].astype(np.float32),
            "index": index[i : i + 4].astype(np.int32),
            "weight": weight[i : i + 4],
        }
        for i in range(0, size, 4)
    ]


def masked(params, batch):
    """The distance, 0 for padding."""
    return jnp.where(batch["index"] >= 0, distance(params, batch), 0.0)


RNG = np.random.default_rng(0)
SETS = Sets(
    batches(RNG.normal(size=(5, 2)) + [2, 0]),
    batches(RNG.normal(size=(11, 2)) - [2, 0]),
    batches(RNG.normal(size=(3, 2)) + [4, 0]),
)
PARAMS = {"w": jnp.array([0.5, -0.0]), "b": jnp.array([0.25, 0.0])}


def run(**given):
    settings = {"recipe": RECIPE, "limits": ANY} | given
    return unlearn(masked, PARAMS, SETS, "grad_diff", **settings)


def test_streams_are_a_function_of_seed_and_step():
    rows = Sets(*map(stacked_rows, SETS))
    at = {"batch_size": 2}
    seen = [sets_of_step(rows, seed=3, step=step, **at) for step in range(6)]
    again = sets_of_step(rows, seed=3, step=4, **at)
    np.testing.assert_array_equal(seen[4].forget["x"], again.forget["x"])
    # An epoch of five takes three steps, the last one padded.
    epochs = [
        np.concatenate([s.forget["index"] for s in seen[i : i + 3]]) for i in (0, 3)
    ]
    for epoch in epochs:
        assert sorted(epoch) == [-1, 0, 1, 2, 3, 4]
    assert epochs[0].tolist() != epochs[1].tolist()
    kept = np.concatenate([s.retain["index"] for s in seen])
    assert sorted(kept) == [-1, *range(11)]
    assert kept[:5].tolist() != np.concatenate(epochs)[:5].tolist()
    other = [sets_of_step(rows, seed=4, step=s, **at).forget["index"] for s in range(3)]
    assert np.concatenate(other).tolist() != epochs[0].tolist()


def test_a_step_is_the_optimiser_s_on_the_objective(same_bits):
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.1, optimizer="sgd")
    outcome = run(recipe=recipe, retain_weight=0.5)
    point = np.asarray(PARAMS["w"] + PARAMS["b"])
    rows = [stacked_rows(part)["x"] for part in SETS[:2]]
    kept = sets_of_step(
        Sets(*map(stacked_rows, SETS)), seed=0, step=0, batch_size=8
    ).retain["x"]
    slope = -(point - rows[0]).mean(0) + 0.5 * (point - kept).mean(0)
    np.testing.assert_allclose(
        outcome.params["w"], np.asarray(PARAMS["w"]) - 0.1 * slope, rtol=1e-5
    )
    assert outcome.status == Status.APPLIED
    assert outcome.steps == 1


def test_only_the_chosen_layers_move_by_no_bit_elsewhere(same_bits):
    recipe = Recipe(epochs=3, batch_size=2, learning_rate=0.05, weight_decay=0.5)
    outcome = run(recipe=recipe, layers="^w$")
    assert same_bits(outcome.params["b"], PARAMS["b"])
    assert not same_bits(outcome.params["w"], PARAMS["w"])


def test_the_target_is_met_between_two_evaluations():
    for every in (1, 4):
        outcome = run(target=7.0, evaluate_every=every)
        assert outcome.status == Status.REACHED
        last = outcome.history[-1]
        assert 7.0 <= last.forget <= 7.0 * 1.002
        assert outcome.steps == last.step
        assert [p.step for p in outcome.history] == [*range(0, last.step + 1, every)]


def test_a_target_out_of_reach_or_past_a_limit_changes_nothing(same_bits):
    far = run(target=1e6)
    assert (far.status, far.reached, far.steps) == (Status.STEPS, False, 0)
    assert same_bits(far.params, PARAMS)
    dear = run(target=1e6, limits=ANY._replace(max_relative_step=0.1))
    assert (dear.status, dear.steps) == (Status.STEP_LIMIT, 0)
    assert same_bits(dear.params, PARAMS)
    assert len(dear.history) < len(far.history)


def test_a_rule_ends_it_and_the_best_checkpoint_is_kept():
    stopped = run(stop=no_progress(1, least=1e3), evaluate_every=2)
    assert stopped.status == Status.STOPPED
    assert stopped.steps == 2
    assert "no progress" in stopped.details["reason"]
    whole = run(evaluate_every=2)
    for name, value in descent.CRITERIA.items():
        kept = run(evaluate_every=2, keep_best=name)
        best = min(whole.history[1:], key=value)
        assert kept.steps == best.step, name
        point = {"w": kept.params["w"], "b": kept.params["b"]}
        forget = np.mean([masked(point, b).sum() for b in SETS.forget]) * 2 / 5
        assert forget == pytest.approx(best.forget, rel=1e-4)


class Interrupted(Exception):
    """What stops a run on the way."""


@pytest.mark.parametrize("given", [{}, {"target": 9.0}, {"keep_best": "lowest_retain"}])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, same_bits, given
):
    monkeypatch.setattr(descent, "SAVE_SECONDS", 0)
    whole = run(evaluate_every=2, **given)

    def interrupt(progress):
        if progress.step == 5:
            raise Interrupted

    settings = {"directory": tmp_path / "work", "evaluate_every": 2, **given}
    with pytest.raises(Interrupted):
        run(on_step=interrupt, **settings)
    told = []
    again = run(on_step=told.append, **settings)
    assert told[0].step == 5  # four were saved
    assert same_bits(again.params, whole.params)
    assert again.history == whole.history
    with pytest.raises(ValueError, match="another unlearning run, of other options"):
        run(forget_weight=0.5, **settings)


def test_wrappers_and_exact_methods_are_measured_as_they_are(same_bits):
    def louder(task, params, sets, *, by: float = 2.0):
        return lambda params, batch: by * task(params, batch)

    class Result:
        params = tree.scaled(2.0, PARAMS)

    wrapper = Method("wrapper", louder, frozenset(), "nobody", "nothing", False)
    outcome = unlearn(masked, PARAMS, SETS, wrapper, limits=ANY, by=3.0)
    assert len(outcome.trials) == 1
    assert outcome.status == Status.APPLIED
    assert same_bits(outcome.params, PARAMS)
    one = SETS.forget[0]
    np.testing.assert_allclose(outcome.task(PARAMS, one), 3 * masked(PARAMS, one))
    loss = outcome.trials[0].forget
    for target, status in ((loss, Status.REACHED), (2 * loss, Status.SHORT)):
        aimed = unlearn(
            masked, PARAMS, SETS, wrapper, limits=ANY, by=3.0, target=target
        )
        assert (aimed.status, aimed.reached) == (status, True)
    refused = unlearn(
        masked, PARAMS, SETS, wrapper, limits=ANY._replace(max_retain_nats=0.1)
    )
    assert refused.limits.max_retain_nats == 0.1
    assert (refused.status, refused.task) == (Status.RETAIN_LIMIT, None)
    with pytest.raises(ValueError, match="layers='w' has no effect"):
        unlearn(masked, PARAMS, SETS, wrapper, layers="w")
    exact = Method(
        "exact", lambda run, forget: Result, frozenset(), "nobody", "nothing", True
    )
    outcome = unlearn(masked, PARAMS, SETS, exact)
    assert outcome.status == Status.APPLIED
    assert same_bits(outcome.params, Result.params)
    expected = sum(float(masked(Result.params, b).sum()) for b in SETS.forget) / 5
    assert outcome.trials[0].forget == pytest.approx(expected, rel=1e-5)


def test_an_edit_is_a_line_from_the_start(same_bits):
    def shift(task, params, sets, *, by: float = 1.0):
        return {"w": params["w"] - by, "b": params["b"] - by}

    edit = Method("edit", shift, frozenset(), "nobody", "nothing", True)
    given = {"limits": ANY}
    half = unlearn(masked, PARAMS, SETS, edit, scale=0.5, **given)
    assert (half.status, half.scale, half.steps) == ("given_scale", 0.5, 1)
    np.testing.assert_allclose(half.params["w"], PARAMS["w"] - 0.5)
    one = unlearn(masked, PARAMS, SETS, edit, target=6.0, layers="^b$", **given)
    assert one.status == Status.REACHED
    assert same_bits(one.params["w"], PARAMS["w"])
    assert 6.0 <= one.trials[-1].forget or one.scale in [t.scale for t in one.trials]
    line = np.asarray(PARAMS["b"]) - one.scale
    np.testing.assert_allclose(one.params["b"], line, rtol=1e-6)
