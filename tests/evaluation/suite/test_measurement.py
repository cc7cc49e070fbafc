"""Sets are tokenized once and share a shape; what is measured does not depend on it."""

import numpy as np
import pytest

from jaxunlearn import models
from jaxunlearn.evaluation.display import SILENT
from jaxunlearn.evaluation.loading import model_without_weights
from jaxunlearn.evaluation.suite import inputs
from jaxunlearn.evaluation.suite.measurement import Settings, measure, prepared_sets
from jaxunlearn.models import save_pretrained

SETTINGS = Settings(max_length=40, max_new_tokens=4, batch_size=3)


@pytest.fixture(scope="module")
def sets(small):
    """Two sets of different lengths, the second with a variant longer than all."""
    long = small.records[2] | {"paraphrased_answer": "It is grey, as ever, as ever."}
    return {"forget": small.records[:2], "retain": [long, *small.records[3:5]]}


def measured(small, sets):
    prepared = prepared_sets(sets, small.tokenizer, SETTINGS)
    return measure(small.model, small.params, small.tokenizer, prepared, SETTINGS)


def test_every_pass_over_any_set_is_of_one_shape(small, sets):
    prepared = prepared_sets(sets, small.tokenizer, SETTINGS)
    parts = [
        part
        for one in prepared.values()
        for part in (one.texts, one.paraphrased, one.wrong)
    ]
    lengths = [part.data.length for part in parts]
    assert len(set(lengths)) > 1
    assert {part.length for part in parts} == {max(lengths)}
    assert {len(batch["index"]) for part in parts for batch in part} == {3}


def test_the_company_of_a_set_changes_nothing(small, sets):
    together, alone = measured(small, sets), measured(small, {"forget": sets["forget"]})
    one, other = together.logs["forget"], alone.logs["forget"]
    for name in ("loss", "paraphrased_loss", "wrong_losses"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert one.answers == other.answers


def test_a_second_set_compiles_no_loss_pass(small, sets, compilations):
    prepared = prepared_sets(sets, small.tokenizer, SETTINGS)
    given = (small.model, small.params, small.tokenizer)
    # Without answers, whose program depends on the prompts.
    silent = {
        name: one._replace(records=[{"text": "x"}] * len(one.records))
        for name, one in prepared.items()
    }
    plain = {k: v._replace(paraphrased=None, wrong=None) for k, v in silent.items()}
    measure(*given, {"forget": plain["forget"]}, SETTINGS)
    compilations.clear()
    measure(*given, {"retain": plain["retain"]}, SETTINGS)
    assert not compilations


def test_weights_are_read_when_models_are_asked_for(small, sets, tmp_path, monkeypatch):
    save_pretrained(small.model, small.params, tmp_path, small.tokenizer)
    loaded = []
    read = models.load_pretrained
    monkeypatch.setattr(
        models, "load_pretrained", lambda path: loaded.append(path) or read(path)
    )
    assert model_without_weights(tmp_path).sizes == small.model.sizes
    found = inputs.prepare(
        *([tmp_path], [], None, inputs.Retraining(0, None, None), sets),
        tokenizer=None,
        settings={"max_length": None, "batch_size": 3},
        display=SILENT,
    )
    assert found.settings.max_length == 64
    assert not loaded
    assert (
        [one.name for one in found.models()]
        == [str(tmp_path)]
        == list(map(str, loaded))
    )
