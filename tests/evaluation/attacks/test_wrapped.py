"""Attacks on weights and insides leave a wrapper out; those by text meet it."""

import types

import pytest

from jaxunlearn.evaluation.attacks import runs
from jaxunlearn.evaluation.attacks.inputs import Settings
from jaxunlearn.evaluation.loading import NamedModel
from jaxunlearn.tasks import language_task
from jaxunlearn.unlearning import offset_decoder
from jaxunlearn.unlearning.wrappers.offset import OffsetTask

BARE = {
    "relearning": runs.relearn("forget"),
    "soft_prompt": runs.embedding,
    "logit_lens": runs.lens,
    "membership_probe": runs.probe,
}
MET = {"best_prompt": runs.prefixes, "sampling": runs.sample}


@pytest.fixture
def wrapped(model, params, other_params):
    """A model that withholds."""
    task = OffsetTask(language_task(model), other_params, 1.0)
    return NamedModel("wrapped", *offset_decoder(task, params))


@pytest.fixture
def attacked(wrapped, data, records, tokenizer, tokens, monkeypatch):
    """What a named function of an attack is called with."""
    inputs = types.SimpleNamespace(
        forget=data,
        records={"forget": records, "holdout": records},
        tokens=tokens,
        tokenizer=tokenizer,
        prefixes=["Well: "],
        max_length=data.length + 8,
    )

    def call(name, run):
        seen = []

        def told(*arguments, **_):
            seen.extend(arguments)
            raise InterruptedError

        monkeypatch.setattr(runs, name, told)
        with pytest.raises(InterruptedError):
            run(inputs, Settings(steps=1, offset_steps=1), wrapped)
        return seen

    return call


@pytest.mark.parametrize("name", BARE)
def test_who_has_the_weights_leaves_the_wrapper_out(attacked, model, params, name):
    seen = attacked(name, BARE[name])
    assert seen[0] == model
    assert seen[1].keys() == params.keys()


@pytest.mark.parametrize("name", MET)
def test_who_only_asks_meets_it(attacked, wrapped, name):
    assert any(one is wrapped.params for one in attacked(name, MET[name]))
