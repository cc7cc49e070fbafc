"""Task arithmetic, on a loss whose descent has a closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning.edits.task_vector import subtract_task_vector
from jaxunlearn.unlearning.forms import Sets


def distance(params, batch):
    """``(theta - x)^2 / 2``, and a bias that no example is far from."""
    return 0.5 * (params["w"] - batch["x"]) ** 2 + 0.5 * (params["b"] - 1.0) ** 2


PARAMS = {"b": jnp.float32(2.0), "w": jnp.float32(5.0)}
# The last row is padding.
SETS = Sets([{"x": np.array([1.0, 3.0, 50.0]), "weight": np.array([1.0, 1.0, 0.0])}])
OPTIONS = {"epochs": 7, "learning_rate": 0.1, "optimizer": "sgd"}


def test_the_step_is_the_closed_form_of_the_descent():
    step = subtract_task_vector(distance, PARAMS, SETS, layers=".", **OPTIONS).step
    # w goes down to 2, the mean, and b to 1, each by a factor of 0.9 a step.
    assert float(step["w"]) == pytest.approx((5 - 2) * (1 - 0.9**7), rel=1e-5)
    assert float(step["b"]) == pytest.approx((2 - 1) * (1 - 0.9**7), rel=1e-5)


def test_two_batches_are_two_steps_an_epoch():
    batches = [{"x": np.array([1.0])}, {"x": np.array([3.0])}]
    step = subtract_task_vector(
        distance, PARAMS, Sets(batches), layers=".", **OPTIONS
    ).step
    w = 5.0
    for x in [1.0, 3.0] * 7:
        w -= 0.1 * (w - x)
    assert float(step["w"]) == pytest.approx(5 - w, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_other_layers_do_not_move(optimizer):
    options = OPTIONS | {"optimizer": optimizer}
    step = subtract_task_vector(distance, PARAMS, SETS, layers="^w$", **options).step
    assert float(step["b"]) == 0.0
    assert float(step["w"]) > 0.1


def test_a_step_that_16_bits_would_lose_is_kept():
    low = tree.cast(PARAMS, "bfloat16")
    options = OPTIONS | {"learning_rate": 1e-5}
    step = subtract_task_vector(distance, low, SETS, layers=".", **options).step
    assert step["w"].dtype == jnp.float32
    assert float(step["w"]) == pytest.approx(7 * 3e-5, rel=0.05)
    assert low["w"] == jnp.bfloat16(5.0)


def test_at_an_optimum_there_is_nothing_to_subtract():
    optimum = {"b": jnp.float32(1.0), "w": jnp.float32(2.0)}
    step = subtract_task_vector(distance, optimum, SETS, layers=".", **OPTIONS).step
    assert float(tree.norm(step)) == 0.0


def test_nothing_to_fine_tune_on():
    with pytest.raises(ValueError, match="batches is empty: give at least one"):
        subtract_task_vector(distance, PARAMS, Sets([]), layers=".", **OPTIONS)
