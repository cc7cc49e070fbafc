import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import Method, Sets, unlearn
from jaxunlearn.unlearning.measuring import losses_of_sets, with_known

PARAMS = {"w": jnp.array([0.5, -1.0])}


def squared(params, batch):
    return jnp.sum((params["w"] - batch["x"]) ** 2, axis=1)


def batch(shift):
    points = np.random.default_rng(0).normal(size=(3, 2)) + shift
    return [{"x": points.astype(np.float32)}]


SETS = Sets(batch(0.0), batch(3.0))


def test_what_is_known_is_not_measured_again_there_and_only_there():
    losses = losses_of_sets(squared, SETS)
    known = with_known(losses, PARAMS, {"forget": 7.0})
    assert known.forget(PARAMS) == 7.0
    equal = {"w": PARAMS["w"] + 0}
    assert known.forget(equal) == losses.forget(PARAMS)
    assert known.retain(PARAMS) == losses.retain(PARAMS)
    with pytest.raises(ValueError, match=r"before=\['unseen'\]: the sets are forget"):
        with_known(losses, PARAMS, {"unseen": 1.0})


def test_an_outcome_does_not_depend_on_what_is_known_before(same_bits):
    def away(task, params, sets):
        return tree.add_scaled(params, -1.0, {"w": jnp.ones(2)})

    row = Method("edit", away, frozenset({"retain"}), "nobody", "nothing", removes=True)
    losses = losses_of_sets(squared, SETS)
    before = {name: getattr(losses, name)(PARAMS) for name in ("forget", "retain")}
    given = {
        "target": before["forget"] + 1,
        "limits": row.limits._replace(max_retain_nats=None, max_relative_step=None),
    }
    one = unlearn(squared, PARAMS, SETS, row, **given)
    other = unlearn(squared, PARAMS, SETS, row, before=before, **given)
    assert one.status == "reached"
    assert same_bits(one.params, other.params)
    assert one[1:5] == other[1:5]


def test_an_edit_asks_for_what_is_known_no_more(monkeypatch):
    seen = []

    def measured(task, sets):
        losses = losses_of_sets(task, sets)

        def forget(params):
            seen.append(params)
            return losses.forget(params)

        return losses._replace(forget=forget)

    monkeypatch.setattr("jaxunlearn.unlearning.runner.losses_of_sets", measured)

    def away(task, params, sets):
        return tree.add_scaled(params, -1.0, {"w": jnp.ones(2)})

    row = Method("edit", away, frozenset({"retain"}), "nobody", "nothing", removes=True)
    before = {"forget": losses_of_sets(squared, SETS).forget(PARAMS)}
    outcome = unlearn(
        squared, PARAMS, SETS, row, target=before["forget"] - 1, before=before
    )
    assert outcome.status == "already"
    assert seen == []
