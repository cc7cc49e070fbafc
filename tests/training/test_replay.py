import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.models.tying import tie
from jaxunlearn.training import (
    Recipe,
    gradient_store,
    last_exposure,
    replayed_gradient,
    replayed_gradients,
    train,
)
from jaxunlearn.training.recipe import batch_at
from jaxunlearn.training.replay import exposures

EPS = float(np.finfo(np.float32).eps)


def replay(run, data, indices, **options):
    return replayed_gradient(
        run.model, run.recipe, data, run.path[0], indices, **options
    )


def stored(run, indices, **options):
    return gradient_store.stored_gradient(
        run.gradients, run.path[0], indices, **options
    )


@pytest.mark.parametrize("weight", ["sgd", "unit"])
@pytest.mark.parametrize("epochs", [(1,), (2,), (1, 2)])
def test_replayed_equals_stored(everything_run, data, distance, weight, epochs):
    indices = [0, 1, 3, 8]
    again, passed = replay(everything_run, data, indices, epochs=epochs, weight=weight)
    kept, lines = stored(everything_run, indices, epochs=epochs, weight=weight)
    assert distance(again, kept) < 200 * EPS
    assert sorted(x.exposure for x in lines) == sorted(passed)
    assert {(x.index, x.epoch) for x in passed} == {
        (i, e) for i in indices for e in epochs
    }


def test_truncated_differs_from_replayed_by_the_reported_error(
    truncated_run, data, distance
):
    mask = tree.select(truncated_run.path[0], truncated_run.recording.layers)
    for index in (1, 6):
        kept, (line,) = stored(truncated_run, [index], weight="unit")
        again, _ = replay(truncated_run, data, [index], weight="unit")
        dense = tree.masked(tie(again), mask)
        assert distance(tie(kept), dense) == pytest.approx(line.truncation, rel=1e-3)
        assert line.norm == pytest.approx(float(tree.norm(dense)), rel=1e-3)


def test_a_replay_gives_the_same_bits_again(everything_run, data, same_bits):
    one, _ = replay(everything_run, data, [0, 1, 3, 8], epochs=(1, 2))
    two, _ = replay(everything_run, data, [8, 3, 0, 1, 3], epochs=(2, 1))
    assert same_bits(one, two)


def test_each_example_by_itself_adds_up_to_the_sum(truncated_run, data, distance):
    run = truncated_run
    apart = replayed_gradients(run.model, run.recipe, data, run.path[0], range(10))
    assert sorted(apart) == list(range(10))
    total = tree.zeros_like(apart[0])
    for gradient in apart.values():
        total = tree.add_scaled(total, 1.0, gradient)
    together, _ = replay(run, data, range(10))
    assert distance(total, together) < 20 * EPS


def test_all_gradients_of_plain_sgd_undo_the_training(model, params, data, distance):
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1.0, optimizer="sgd", seed=5)
    end = train(model, params, data, recipe).params
    gradient, _ = replayed_gradient(model, recipe, data, params, range(10))
    undone = tree.add_scaled(end, 1.0, tie(gradient))
    assert distance(end, params) > 0.05
    # What is left is the rounding of the parameters, not of the movement.
    assert distance(undone, params) < 4 * EPS


def test_exposures_are_the_places_in_the_batches(data):
    recipe = Recipe(epochs=2, batch_size=4, seed=3)
    found = exposures(recipe, 10, [1, 7], (1, 2))
    passed = [
        int(batch_at(recipe, data, step)["index"][place])
        for step, places in found.items()
        for place in places
    ]
    assert sorted(passed) == [1, 1, 7, 7]
    assert all(0 <= step < 6 for step in found)
    assert last_exposure(recipe, data, [1, 7]) == max(s for s in found if s < 3)
    assert last_exposure(recipe, data, [1, 7], (1, 2)) == max(found)


@pytest.mark.parametrize(
    ("indices", "options", "message"),
    [
        ([], {}, "indices=.*name at least one example, each from 0 to 9"),
        ([3, 10], {}, r"\[10\] are not in the data"),
        ([-1], {}, r"\[-1\] are not in the data"),
        ([1], {"epochs": (0,)}, r"epochs=\[0\]: the run has epochs 1 to 3"),
        ([1], {"epochs": (1, 4)}, r"epochs=\[1, 4\]: the run has epochs 1 to 3"),
        ([1], {"epochs": ()}, r"epochs=\[\]"),
        ([1], {"weight": "adam"}, "weight='adam': one of sgd, unit"),
    ],
)
def test_what_the_run_has_not_is_an_error(
    everything_run, data, indices, options, message
):
    with pytest.raises(ValueError, match=message):
        replay(everything_run, data, indices, **options)


def test_progress_is_told_to_the_last_step(truncated_run, data):
    told = []
    _, passed = replay(truncated_run, data, [5], on_step=told.append)
    assert told == list(range(passed[0].step + 1))
    assert passed[0].step == last_exposure(truncated_run.recipe, data, [5])


def test_the_sum_is_float32_whatever_the_model(everything_run, data):
    gradient, _ = replay(everything_run, data, [0, 1, 3, 8])
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {np.dtype("float32")}
