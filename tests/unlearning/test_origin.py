"""Only the run's own model, and only the examples at the given positions of its data.

Each refusal comes before any work: the tasks here cannot be computed.
"""

import pytest

from jaxunlearn import tree
from jaxunlearn.data import in_order, subset
from jaxunlearn.unlearning import Outcome, Status, unlearn
from jaxunlearn.unlearning.origin import check_examples, check_origin

METHODS = {"first_epoch": {"target": 1.0}, "iterative": {"target": 1.0}}
METHODS |= {"exact_replay": {}, "gradient_ascent": {"target": 1.0}}


@pytest.fixture
def refused(language, monkeypatch):
    """Hold ``unlearn`` to refusing a run's examples or model before any work."""
    from jaxunlearn.unlearning import runner

    def never(*args, **kwargs):
        raise AssertionError("work was done")

    monkeypatch.setattr(runner, "training_step_flops", never)
    monkeypatch.setattr(runner, "losses_of_sets", never)

    def check(method, message, **given):
        asked = {"run": language.run, "indices": language.indices} | given
        params = asked.pop("params", language.params)
        with pytest.raises(ValueError, match=message):
            unlearn(
                language.task,
                params,
                language.sets,
                method,
                **METHODS[method],
                **asked,
            )

    return check


@pytest.mark.parametrize("method", METHODS)
def test_positions_of_other_examples_are_refused(refused, method):
    refused(method, "indices=0: example 0 of sets.forget is another", indices=[0, 6])
    refused(method, "indices=6: example 0 .* in their order", indices=[6, 1])
    refused(method, "1 positions, and sets.forget holds 2 examples", indices=[1])
    refused(method, "3 positions, and sets.forget holds 2", indices=range(3))
    refused(method, "indices=8: the run's data have the pos.* 0 to 7", indices=[1, 8])
    refused(method, "indices=-2: ", indices=[1, -2])


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_the_run_did_not_end_with_are_refused(
    refused, language, method
):
    other = tree.cast(tree.scaled(1.01, language.params), "float32")
    refused(method, "not the one that run=.* ended with", params=other)
    refused(
        method,
        "not the one that run=",
        params=other,
        origin=Outcome(language.params, Status.REACHED, 1),
    )


def test_what_was_unlearned_from_the_run_is_of_it(language, tmp_path):
    other = tree.cast(tree.scaled(1.01, language.params), "float32")
    check_origin(language.run, Outcome(other, Status.REACHED, 1), other)
    check_origin(language.run, None, language.params)
    with pytest.raises(ValueError, match="hash"):
        check_origin(language.run, tmp_path, other)


def test_padding_and_the_length_of_batches_tell_no_examples_apart(language):
    run = language.run
    data = subset(run.data, [1, 6, 3])
    for size, length in ((2, 64), (4, data.length)):
        forget = list(in_order(data, batch_size=size, length=length))
        check_examples(run, [1, 6, 3], forget)
        bare = [
            {k: v for k, v in batch.items() if k != "attention_mask"}
            for batch in forget
        ]
        check_examples(run, [1, 6, 3], bare)
