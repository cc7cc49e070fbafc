import importlib.util
import inspect
import json
import sys

import jax
import numpy as np
import pytest

from jaxunlearn.commands.parity import derivatives, parity, table_rows
from jaxunlearn.models import load_pretrained
from jaxunlearn.models.checkpoints import parity as comparing
from jaxunlearn.models.checkpoints.families import FAMILIES, file_name
from jaxunlearn.models.checkpoints.parity import (
    TOLERANCES,
    differences,
    jax_quantities,
)
from jaxunlearn.tree import layer_names, leaf_name, stacked_prefix

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)


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
