"""Misuse from Python: one error that says what to give, before any work."""

import jax.numpy as jnp
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning import METHODS, unlearn
from jaxunlearn.unlearning.inputs import check_fit


@pytest.fixture
def refused(classification, monkeypatch):
    """Hold ``unlearn`` to refusing what it is given in place of the right."""
    from jaxunlearn.unlearning import runner

    def never(*args, **kwargs):
        raise AssertionError("work was done")

    monkeypatch.setattr(runner, "losses_of_sets", never)

    def check(message, method="npo", **given):
        asked = classification._asdict() | {"target": 9.0} | given
        task, params, sets = (asked.pop(name) for name in ("task", "params", "sets"))
        asked = {k: v for k, v in asked.items() if v is not None}
        with pytest.raises(ValueError, match=message):
            unlearn(task, params, sets, method, **asked)

    return check


def test_a_target_in_words_is_refused_with_what_finds_the_number(refused):
    message = "target='unseen' is not a number: .*targets.forget_target"
    for method in ("npo", "ssd", "gradient_ascent"):
        refused(message, method, target="unseen")


def test_what_is_no_run_is_refused(refused):
    refused("run='runs/a' is no training run: open .*training.open_run", run="runs/a")


def test_what_is_no_task_is_refused(refused):
    refused(r"task=\{\} is no per-example loss: .*language_task\(model\)", task={})


def test_sets_that_cannot_be_read_again_and_again_are_refused(refused, classification):
    sets = classification.sets
    refused("sets=.*: give unlearning.Sets", sets=sets._asdict())
    for name in ("forget", "retain", "unseen"):
        batches = list(getattr(sets, name))
        once = sets._replace(**{name: (batch for batch in batches)})
        refused(f"sets.{name}=.*only once.*give a list", sets=once)
        refused(f"sets.{name} is empty", sets=sets._replace(**{name: []}))
        one = sets._replace(**{name: batches[0]})
        refused(f"sets.{name}=.* is one batch: give a list", sets=one)
        refused(f"sets.{name}=7: give batches", sets=sets._replace(**{name: 7}))
        strange = sets._replace(**{name: [7]})
        refused(f"sets.{name}=.* holds 7 where a batch", sets=strange)
    refused("sets.forget=None: give batches", sets=sets._replace(forget=None))


def test_parameters_of_another_model_are_refused(refused, classification):
    for params in ({}, {"first": classification.params["first"]}):
        refused("task cannot be computed with params .*KeyError", params=params)
    wide = tree.cast(classification.params, "float32")
    wide["first"] = {"kernel": jnp.ones((7, 6))}
    refused("task cannot be computed with params .*own model", params=wide)


def test_a_loss_of_the_batch_is_refused(refused, classification):
    def mean(params, batch):
        return classification.task(params, batch).mean()

    refused("a loss for each example, float32", "gradient_ascent", task=mean)


def test_tokens_beyond_the_vocabulary_are_refused(language):
    task, params, sets = language[:3]
    check_fit(task, params, sets)
    for name in ("forget", "retain", "unseen"):
        for token in (270, -1):
            batches = [dict(batch) for batch in getattr(sets, name)]
            ids = batches[-1]["input_ids"].copy()
            ids[0, 0] = token
            batches[-1]["input_ids"] = ids
            wrong = sets._replace(**{name: batches})
            place = f"sets.{name}: batch {len(batches) - 1} holds the token {token}"
            with pytest.raises(ValueError, match=f"{place}, .* 0 to 269: tokenize"):
                unlearn(task, params, wrong, "npo")


def test_every_method_asks(refused, classification):
    once = classification.sets._replace(forget=iter([]))
    for method, row in METHODS.items():
        if "run" not in row.needs:
            refused("only once", method, sets=once)
