import importlib.util

import jax
import numpy as np
import pytest

from jaxunlearn.models import load_pretrained
from jaxunlearn.models.checkpoints.huggingface import parameter_shapes
from jaxunlearn.models.checkpoints.parity import (
    differences,
    random_batch,
    random_direction,
)
from jaxunlearn.tree import norm

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)


@needs_torch
def test_the_golden_file_is_what_torch_gives(golden, checkpoint):
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities

    found = torch_quantities(checkpoint, golden["batch"], golden["direction"])
    assert all(d.within for d in differences(found, golden["torch"]))


@needs_torch
def test_weights_that_torch_does_not_read_are_named(checkpoint, tmp_path, golden):
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities

    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    with pytest.raises(ValueError, match="torch reads no weights in"):
        torch_quantities(tmp_path, golden["batch"], golden["direction"])


def test_the_batch_has_prompts_padding_and_labels_in_every_row():
    for length in range(8, 40):
        batch = random_batch(11, 3, length, seed=length)
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        for ids, mask, labels in zip(*batch.values(), strict=True):
            assert mask[0] == 1
            assert mask[-1] == 0
            assert (np.diff(mask) <= 0).all()
            labelled = labels[1:] != -100
            assert labelled.any()
            assert labels[0] == -100
            assert (labels[1:][labelled] == ids[1:][labelled]).all()
            assert (labels[mask == 0] == -100).all()
    again = random_batch(11, 3, 39, seed=39)
    assert all((again[name] == batch[name]).all() for name in batch)


def test_the_direction_is_a_function_of_the_seed_and_of_length_one(checkpoint):
    shapes = parameter_shapes(load_pretrained(checkpoint)[0])
    first, again, other = (random_direction(shapes, seed=s) for s in (1, 1, 2))
    assert abs(norm(first) - 1) < 1e-6
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not np.array_equal(first["ln_f"]["bias"], other["ln_f"]["bias"])


def test_differences_measure_what_they_say():
    def only(item, a, b):
        (found,) = differences({item: np.array(a)}, {item: np.array(b)})
        return found

    found = only("logits", [3.0, 4.0], [3.0, 4.5])
    assert found.absolute == 0.5
    assert found.relative == pytest.approx(0.5 / np.hypot(3, 4.5))
    assert only("logits", [1e6], [1e6 + 2e-4]).within is False
    assert only("gradient ln_f.bias", [1e6], [1e6 + 2e-4]).within is True
    assert only("gradient ln_f.bias", [0.0], [0.0]).within is True
    assert only("gradient ln_f.bias", [1e-9], [0.0]).within is False
    assert only("token losses", [np.nan], [1.0]).within is False
    assert only("hvp wte.weight", [1.0], [np.nan]).within is False
    with pytest.raises(ValueError, match="only one side has hvp x"):
        differences({"logits": np.ones(1)}, {"logits": np.ones(1), "hvp x": np.ones(1)})
