import types

import jax
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.training import Recipe, epoch_checkpoints, epochs, train
from jaxunlearn.training.recipe import learning_rate


@pytest.fixture
def run(bigram, data, monkeypatch):
    """A run of three epochs on a convex model, as it was begun."""
    monkeypatch.setattr(epochs, "check_model", lambda run, params: None)
    model, start = bigram
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.1, schedule="linear")
    return types.SimpleNamespace(
        model=model, start=start, data=data, recipe=recipe, directory="run"
    )


def test_each_epoch_is_a_training_that_ends_there(run):
    path = []

    def keep(params):
        path.append(jax.device_get(params))
        return {}

    trained = train(run.model, run.start, run.data, run.recipe, evaluate=keep).params
    steps = []
    found = epoch_checkpoints(run, trained, on_step=lambda *at: steps.append(at))
    assert len(found) == 3
    for end, params in zip(found, path[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, end.params, params)
    rate = learning_rate(run.recipe, 9)
    for i, end in enumerate(found):
        mean = np.mean([float(rate(s)) for s in range(3 * i, 3 * i + 3)])
        assert end.learning_rate == pytest.approx(mean, rel=1e-6)
    assert steps[-1] == (9, 9)


def test_parameters_of_another_run_are_refused(run):
    trained = train(run.model, run.start, run.data, run.recipe).params
    other = tree.add_scaled(trained, 0.1, trained)
    with pytest.raises(ValueError, match="not those that the run run gives"):
        epoch_checkpoints(run, other)
