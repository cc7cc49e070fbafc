import importlib.util
import inspect
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxunlearn.commands.parity import derivatives, parity, table_rows
from jaxunlearn.models import load_pretrained
from jaxunlearn.models.checkpoints import parity as comparing
from jaxunlearn.models.checkpoints.families import FAMILIES, file_name
from jaxunlearn.models.checkpoints.huggingface import parameter_shapes
from jaxunlearn.models.checkpoints.parity import (
    TOLERANCES,
    differences,
    jax_quantities,
    random_batch,
    random_direction,
)
from jaxunlearn.tree import layer_names, leaf_name, norm, stacked_prefix

GOLDEN = Path(__file__).parent.parent / "golden" / "gpt2_tiny.npz"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)


@pytest.fixture(scope="module")
def golden():
    """The arrays of the golden file by their folder."""
    folders = {}
    with np.load(GOLDEN) as file:
        for path in file.files:
            folder, _, name = path.partition("/")
            folders.setdefault(folder, {})[name] = file[path]
    return folders


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    """The golden weights, as a directory."""
    directory = tmp_path_factory.mktemp("golden")
    (directory / "config.json").write_text(str(golden["config"][""]))
    safetensors.numpy.save_file(golden["params"], directory / "model.safetensors")
    return directory


H = ("h",)


@pytest.fixture(scope="module")
def ours(golden, checkpoint):
    """What JAX computes from them."""
    model, params = load_pretrained(checkpoint)

    def stacked(path, leaf):
        name = leaf_name(path)
        names = [file_name(FAMILIES["gpt2"], n) for n in layer_names(name, leaf, H)]
        layers = [golden["direction"][n] for n in names]
        return layers[0] if stacked_prefix(name, H) is None else np.stack(layers)

    direction = jax.tree_util.tree_map_with_path(stacked, params)
    return jax_quantities(model, params, golden["batch"], direction, derivatives)


def test_jax_gives_torchs_recorded_numbers(golden, ours):
    found = differences(ours, golden["torch"])
    assert len(found) == 2 + 3 * len(golden["params"])
    assert [d.item for d in found if not d.within] == []


def test_a_small_mistake_in_any_leaf_is_found(golden, ours):
    """A thousandth of a gradient leaf, a hundredth of the rest, is out of tolerance."""
    for item, array in ours.items():
        off = array * (1.001 if item.startswith("gradient") else 1.01)
        (found,) = (
            d
            for d in differences(ours | {item: off}, golden["torch"])
            if d.item == item
        )
        assert not found.within, item


@needs_torch
def test_the_golden_file_is_what_torch_gives(golden, checkpoint):
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities

    found = torch_quantities(checkpoint, golden["batch"], golden["direction"])
    assert all(d.within for d in differences(found, golden["torch"]))


@needs_torch
def test_the_command_prints_writes_and_returns(
    checkpoint, ours, tmp_path, capsys, monkeypatch
):
    # The shape of the golden batch, for which the functions are compiled.
    options = dict(model=checkpoint, batch_size=3, length=16, seed=3)
    assert parity(**options, out=tmp_path / "new" / "parity.json") == 0
    printed = capsys.readouterr().out
    assert f"All {len(ours)} arrays are within tolerance." in printed
    assert "gradient h.1.attn.c_attn.weight" in printed
    result = json.loads((tmp_path / "new" / "parity.json").read_text())
    assert result["within_tolerance"] is True
    assert {d["item"] for d in result["differences"]} == set(ours)
    assert (result["batch_size"], result["length"], result["seed"]) == (3, 16, 3)
    assert "jax" in result["versions"]

    # The second run need not compute again.
    monkeypatch.setattr(comparing, "jax_quantities", lambda *args: ours)
    monkeypatch.setattr(
        "jaxunlearn.models.checkpoints.torch_reference.torch_quantities",
        lambda *args: ours | {"gradient h.1.ln_2.bias": np.zeros(15)},
    )
    assert parity(**options) == 1
    printed = capsys.readouterr().out
    assert "NOT within tolerance: gradient h.1.ln_2.bias" in printed


def test_without_torch_it_says_what_to_install(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxunlearn\[parity\]'"):
        parity(model=checkpoint, length=12)


@needs_torch
def test_weights_that_torch_does_not_read_are_named(checkpoint, tmp_path, golden):
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities

    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    with pytest.raises(ValueError, match="torch reads no weights in"):
        torch_quantities(tmp_path, golden["batch"], golden["direction"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(length=17), "length=17: must be from 8 to n_positions=16"),
        (dict(length=7), "length=7: "),
        (dict(length=12, batch_size=0), "batch_size=0"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        parity(model=checkpoint, **options)


def test_options_are_plain_keywords():
    for option in inspect.signature(parity).parameters.values():
        assert option.kind is option.KEYWORD_ONLY


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


def test_rows_go_layer_by_layer_and_name_the_worst():
    names = ["h.10.b", "h.2.b", "ln_f.weight", "wte.weight", "h.2.a"]
    items = [f"{kind} {n}" for kind in ("fisher", "gradient", "hvp") for n in names]
    theirs = {item: np.ones(1) for item in [*items, "token losses", "logits"]}
    found = differences(theirs | {"hvp h.10.b": np.full(1, 1.5)}, theirs)
    rows = [row["item"] for row in table_rows(found)]
    order = ["wte.weight", "h.2.a", "h.2.b", "h.10.b", "ln_f.weight"]
    assert rows[:-2] == ["logits", "token losses", *(f"gradient {n}" for n in order)]
    assert rows[-2] == "worst hvp h.10.b"
    assert rows[-1].startswith("worst fisher ")
    assert set(TOLERANCES) == {d.item.split(" ")[0] for d in found} - {"token"} | {
        "token losses"
    }
