import contextlib
import importlib.util
import json
import os
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from jaxunlearn.models import GPT2, GPT2Config, load_pretrained, save_pretrained
from jaxunlearn.models.checkpoints import huggingface
from jaxunlearn.models.checkpoints.huggingface import file_tensors
from jaxunlearn.tree import cast

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)
WEIGHTS = "model.safetensors"
ALL = [
    "safetensors",
    "shards",
    "flax",
    "flax shards",
    *(pytest.param(x, marks=needs_torch) for x in ("bin", "old bin", "bin shards")),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ALL)
def test_every_layout_and_dtype_gives_the_same_parameters(
    tiny, saved, tensors, layout, dtype, writers, assert_same_bits
):
    (saved / WEIGHTS).unlink()
    writers[layout](saved, {k: v.astype(jnp.dtype(dtype)) for k, v in tensors.items()})
    model, params = load_pretrained(saved)
    assert model == tiny[0]
    assert_same_bits(params, cast(tiny[1], dtype))


def test_the_layouts_are_looked_for_in_the_order_of_transformers(
    tiny, saved, tensors, writers
):
    """Each of them holds other weights; whatever is not read is told."""
    (saved / WEIGHTS).unlink()
    order = ["flax shards", "flax", "bin shards", "bin", "shards", "safetensors"]
    if importlib.util.find_spec("torch") is None:
        order = [name for name in order if "bin" not in name]
    for value, layout in enumerate(order):
        tensors["ln_f.weight"][:] = value
        writers[layout](saved, tensors)
        told = contextlib.nullcontext()
        if value:
            told = pytest.warns(UserWarning, match="several times, and they may differ")
        with told:
            assert load_pretrained(saved)[1]["ln_f"]["scale"][0] == value


@pytest.mark.parametrize("layout", [x for x in ALL if "shards" in str(x)])
def test_a_tensor_in_several_shards_is_told(saved, tensors, layout, writers):
    """As one that was left in a shard by an older writer; torch reads the last too."""
    (saved / WEIGHTS).unlink()
    writers[layout](saved, tensors)
    (index,) = saved.glob("*.index.json")
    content = json.loads(index.read_text())
    first, *_ = sorted(set(content["weight_map"].values()))
    last = f"z{first}"
    (saved / last).write_bytes((saved / first).read_bytes())
    content["weight_map"]["z"] = last
    index.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=rf"in several shards, .*{last} is read"):
        load_pretrained(saved)


@needs_torch
@pytest.mark.filterwarnings("ignore:.*several times")
def test_of_several_layouts_torch_reads_the_same(saved, tensors, writers):
    from transformers import GPT2LMHeadModel

    for value, layout in enumerate(["bin shards", "bin", "shards", "safetensors"]):
        tensors["ln_f.weight"][:] = value
        writers[layout](saved, {f"transformer.{k}": v for k, v in tensors.items()})
        if value == 0:
            (saved / WEIGHTS).unlink()
        theirs = GPT2LMHeadModel.from_pretrained(saved).transformer.ln_f.weight
        assert float(theirs.detach()[0]) == value
        assert load_pretrained(saved)[1]["ln_f"]["scale"][0] == value


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("layout", ALL)
def test_a_tied_table_may_stand_under_the_heads_name(
    tiny, saved, tensors, layout, prefix, writers, assert_same_bits
):
    (saved / WEIGHTS).unlink()
    table = tensors.pop("wte.weight")
    named = {prefix + name: array for name, array in tensors.items()}
    writers[layout](saved, {"lm_head.weight": table} | named)
    assert_same_bits(load_pretrained(saved)[1], tiny[1])


@pytest.mark.parametrize("layout", ALL)
def test_float64_is_read_as_float32(
    tiny, saved, tensors, layout, writers, assert_same_bits
):
    (saved / WEIGHTS).unlink()
    writers[layout](saved, {k: v.astype(np.float64) for k, v in tensors.items()})
    assert_same_bits(load_pretrained(saved)[1], tiny[1])
    tensors["wpe.weight"] = tensors["wpe.weight"].astype(np.float64)
    tensors["wpe.weight"][0] = 1e300
    writers[layout](saved, tensors)
    with pytest.raises(ValueError, match=r"infinite weights, as .*: wpe\.weight"):
        load_pretrained(saved)


def test_a_tied_flax_head_is_dropped(tiny, saved, tensors, writers, assert_same_bits):
    (saved / WEIGHTS).unlink()
    writers["flax"](saved, tensors)
    tree = msgpack_restore((saved / "flax_model.msgpack").read_bytes())
    tree["lm_head"] = {"kernel": tensors["wte.weight"].T.copy()}
    (saved / "flax_model.msgpack").write_bytes(msgpack_serialize(tree))
    assert_same_bits(load_pretrained(saved)[1], tiny[1])


@pytest.mark.parametrize("layout", ["safetensors", "shards", "flax"])
def test_loading_never_holds_two_copies(tmp_path, make_params, layout, writers):
    """NumPy reports what it allocates; the default device is this host as well."""
    config = GPT2Config(
        vocab_size=2000, n_positions=64, n_embd=64, n_layer=24, n_head=4, n_inner=256
    )
    params = make_params(GPT2(config))
    save_pretrained(GPT2(config), params, tmp_path)
    for name in (WEIGHTS, "checksums.json"):
        (tmp_path / name).unlink()
    writers[layout](tmp_path, dict(file_tensors(GPT2(config), params)))
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    load_pretrained(tmp_path)  # imports and traces once, outside the measurement
    tracemalloc.start()
    load_pretrained(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * size


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "pointer"])
@pytest.mark.parametrize("layout", ALL)
def test_a_corrupt_file_is_named(saved, tensors, layout, damage, writers):
    (saved / WEIGHTS).unlink()
    writers[layout](saved, tensors)
    victim = sorted(p for p in saved.iterdir() if p.suffix != ".json")[-1]
    data = victim.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n"
    spoilt = {
        "cut": data[: len(data) * 2 // 3],
        "garbage": bytes(range(256)) * 20,
        "empty": b"",
        "pointer": pointer,
    }
    victim.write_bytes(spoilt[damage])
    with pytest.raises(ValueError, match="truncated or corrupt") as caught:
        load_pretrained(saved)
    assert str(victim) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000],
)
def test_a_corrupt_index_is_named(saved, text):
    (saved / WEIGHTS).unlink()
    (saved / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is truncated or corrupt"):
        load_pretrained(saved)


@pytest.mark.parametrize("name", ["../other/{}", "{}/../{}", "/etc/{}", "below/{}"])
@pytest.mark.parametrize("layout", [x for x in ALL if "shards" in str(x)])
def test_no_file_outside_the_folder_is_read_on_an_indexs_word(
    saved, tensors, writers, layout, name
):
    (saved / WEIGHTS).unlink()
    for folder in (saved, saved / "below", saved.parent / "other"):
        folder.mkdir(exist_ok=True)
        writers[layout](folder, tensors)
    (index,) = saved.glob("*.index.json")
    content = json.loads(index.read_text())
    first, *_ = content["weight_map"]
    content["weight_map"][first] = name.replace("{}", content["weight_map"][first])
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names shards outside its folder") as caught:
        load_pretrained(saved)
    assert content["weight_map"][first] in str(caught.value)


def test_a_missing_shard_is_named(saved, tensors, writers):
    (saved / WEIGHTS).unlink()
    writers["shards"](saved, tensors)
    (saved / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks shards .*: model-00002-of-00003\.safetensors$"
    ):
        load_pretrained(saved)


def test_torch_files_without_torch_say_what_to_install(saved, monkeypatch):
    (saved / WEIGHTS).rename(saved / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxunlearn\[parity\]'"):
        load_pretrained(saved)


@needs_torch
@pytest.mark.parametrize(
    "content", [{3: "t"}, ["t"], {"state_dict": {"a": "t"}}, {"a": None}, {"a": "s"}]
)
def test_a_pickle_of_something_else_is_refused(saved, content):
    import torch

    def filled(value):
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        dense = torch.ones(3, 3)
        known = {"t": dense, "s": dense.to_sparse()}
        return known[value] if isinstance(value, str) else value

    (saved / WEIGHTS).unlink()
    torch.save(filled(content), saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is no state dict"):
        load_pretrained(saved)


@needs_torch
def test_a_small_file_of_an_endless_tensor_is_refused(saved, tensors, monkeypatch):
    """A tensor of stride 0 has any shape, and its file a number or two."""
    import torch

    monkeypatch.setattr(huggingface, "available_memory", lambda: 10**9)

    (saved / WEIGHTS).unlink()
    options = json.loads((saved / "config.json").read_text()) | {
        "vocab_size": 2**31 - 1
    }
    (saved / "config.json").write_text(json.dumps(options))
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    state["wte.weight"] = torch.ones(1).expand(2**31 - 1, 16)
    torch.save(state, saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a model of 137\.\d GB, and .* available"):
        load_pretrained(saved)


@needs_torch
def test_code_in_a_pickle_is_not_run(saved, tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    (saved / WEIGHTS).unlink()
    torch.save({"wte.weight": Trap()}, saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load_pretrained(saved)
    assert not (tmp_path / "trapped").exists()
