import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import Limits, first_epoch, gradient_ascent
from jaxunlearn.unlearning.comparison import (
    ASCENT,
    ASCENT_EMBEDDING,
    FIRST_EPOCH,
    METHODS,
    NO_LIMITS,
    TIED,
    compare,
    described,
    loss_table,
)

TARGET = 2.0


@pytest.fixture
def recorded(point):
    """A recorded gradient whose two parts differ."""
    lookup = jax.tree.map(lambda x: x + 0.5, point)
    return {**lookup, "lm_head": {"kernel": jnp.array([[0.3]], jnp.float32)}}


@pytest.fixture
def compared(point, square, recorded):
    """``compare`` on ``|theta|^2``, with a retain loss that sees every step."""

    def call(**options):
        return compare(
            point,
            recorded,
            mean_gradient=lambda params: tree.scaled(2.0, params),
            forget_loss=square,
            retain_loss=lambda params: 1 + abs(square(params) - 1),
            target=TARGET,
            **options,
        )

    return call


def test_every_method_goes_to_one_forget_loss(compared, square):
    comparison = compared(relative_step=0.05)
    assert tuple(comparison.outcomes) == tuple(comparison.seconds) == METHODS
    for outcome in comparison.outcomes.values():
        assert outcome.reached
        tolerance = 1 + NO_LIMITS.tolerance
        assert TARGET <= square(outcome.params) <= TARGET * tolerance
    assert all(seconds > 0 for seconds in comparison.seconds.values())


def test_it_is_each_method_by_itself(compared, point, square, recorded, same_bits):
    shared = {
        "forget_loss": square,
        "retain_loss": lambda params: 1.0,
        "target": TARGET,
        "limits": NO_LIMITS,
    }
    climb = {"gradient": lambda p: tree.scaled(2.0, p), "relative_step": 0.03} | shared
    alone = {
        FIRST_EPOCH: first_epoch(point, recorded, layers="wte", **shared),
        TIED: first_epoch(point, recorded, layers="wte", part="tied", **shared),
        ASCENT: gradient_ascent(point, layers=".", **climb),
        ASCENT_EMBEDDING: gradient_ascent(point, layers="wte", **climb),
    }
    comparison = compared(relative_step=0.03)
    for name, outcome in comparison.outcomes.items():
        assert same_bits(outcome.params, alone[name].params), name
        assert outcome.scale == alone[name].scale


def test_methods_are_chosen_in_order_and_announced(compared):
    begun = []
    chosen = (ASCENT_EMBEDDING, FIRST_EPOCH)
    comparison = compared(methods=chosen, on_method=begun.append)
    assert tuple(comparison.outcomes) == tuple(begun) == chosen
    with pytest.raises(ValueError, match="methods=.'newton'.*first-epoch unlearning"):
        compared(methods=("newton", ASCENT))


def test_limits_hold_for_every_method(compared, point, same_bits):
    comparison = compared(limits=Limits(max_retain_increase=0.5))
    for outcome in comparison.outcomes.values():
        assert outcome.status == "retain_limit"
        assert same_bits(outcome.params, point)


def test_description_is_json_that_says_what_changed(compared, point):
    comparison = compared(relative_step=0.05)
    values = json.loads(json.dumps(described(comparison, point, 1.0)))
    assert set(values) == {"calibration", "outcomes", "changed"}
    for name, outcome in comparison.outcomes.items():
        last = values["calibration"][name][-1]
        assert last == outcome.trials[-1]._asdict()
        assert values["outcomes"][name]["status"] == "reached"
        leaves = [change["leaf"] for change in values["changed"][name]]
        assert ("wte/embedding" in leaves, len(leaves) > 1) == (True, name == ASCENT)


def test_loss_table_measures_every_model_on_every_set(point, square):
    twice = tree.scaled(2.0, point)
    losses = {"forget": square, "retain": lambda params: -square(params)}
    table = loss_table({"a": point, "b": twice}, losses)
    assert list(table) == ["a", "b"]
    np.testing.assert_allclose(
        [list(table[name].values()) for name in "ab"], [[1, -1], [4, -4]], rtol=1e-6
    )
