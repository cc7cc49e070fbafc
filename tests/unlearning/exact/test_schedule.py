import itertools

import numpy as np
import pytest

from jaxunlearn.data import step_indices
from jaxunlearn.training import Recipe
from jaxunlearn.unlearning.exact.schedule import (
    expected_replayed_share,
    first_use,
    unused_examples,
)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 20])
def test_first_use_is_the_first_batch_that_holds_one(batch_size):
    recipe = Recipe(epochs=2, batch_size=batch_size, seed=6)
    for forget in [{4}, {0, 10}, {2, 5, 9}, set(range(11))]:
        slow = next(
            step
            for step in itertools.count()
            if forget & set(step_indices(6, step, n=11, batch_size=batch_size).tolist())
        )
        assert first_use(recipe, 11, forget) == slow


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 7])
def test_what_no_step_used_is_unused(steps):
    recipe = Recipe(epochs=2, batch_size=3, seed=6)
    used = set()
    for step in range(steps):
        used |= set(step_indices(6, step, n=11, batch_size=3).tolist())
    assert unused_examples(recipe, 11, steps) == sorted(set(range(11)) - used)


@pytest.mark.parametrize("forgotten", [1, 2, 5, 8])
@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_the_cost_law_is_the_mean_over_all_requests(forgotten, every):
    recipe = Recipe(epochs=3, batch_size=2, seed=1)
    taken = []
    for forget in itertools.combinations(range(9), forgotten):
        first = first_use(recipe, 9, forget)
        taken.append(15 - every * (first // every))
    expected = expected_replayed_share(recipe, 9, forgotten, keep_every=every)
    assert expected == pytest.approx(np.mean(taken) / 15, rel=1e-12)


def test_without_checkpoints_the_whole_run_is_replayed():
    assert expected_replayed_share(Recipe(), 100, 1) == 1.0
    assert expected_replayed_share(Recipe(epochs=1), 100, 100, keep_every=1) == 1.0


@pytest.mark.parametrize("forget", [set(), {11}, {-1, 3}])
def test_examples_that_are_not_there(forget):
    with pytest.raises(ValueError, match=r"forget=.*: name at least one example"):
        first_use(Recipe(), 11, forget)


def test_numbers_without_meaning():
    with pytest.raises(ValueError, match="forgotten=0: must be from 1 to 9"):
        expected_replayed_share(Recipe(), 9, 0)
    with pytest.raises(ValueError, match="keep_every=0: must be at least 1"):
        expected_replayed_share(Recipe(), 9, 1, keep_every=0)
