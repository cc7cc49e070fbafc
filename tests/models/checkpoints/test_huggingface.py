import os
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest

from jaxunlearn.models import (
    load_pretrained,
)
from jaxunlearn.tree import cast, named_leaves

WEIGHTS = "model.safetensors"
BUFFER_BIAS = np.ones((1, 1, 24, 24), np.uint8)


def test_names_with_prefix_buffers_and_a_tied_head(
    tiny, saved, tensors, writers, assert_same_bits
):
    """As a language-model head model was saved by old versions of torch's library."""
    old = {f"transformer.{name}": array for name, array in tensors.items()}
    for i in range(2):
        old[f"transformer.h.{i}.attn.bias"] = BUFFER_BIAS
        old[f"transformer.h.{i}.attn.masked_bias"] = np.float32(-1e4).reshape(())
    old["lm_head.weight"] = tensors["wte.weight"].copy()
    writers["safetensors"](saved, old)
    assert_same_bits(load_pretrained(saved)[1], tiny[1])


def test_an_untied_head_is_refused(saved, tensors, writers):
    tensors["lm_head.weight"] = tensors["wte.weight"] * 1.0001
    writers["safetensors"](saved, tensors)
    with pytest.raises(ValueError, match="lm_head.weight differs from wte.weight"):
        load_pretrained(saved)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype_casts_every_leaf(tiny, saved, dtype, assert_same_bits):
    assert_same_bits(load_pretrained(saved, dtype=dtype)[1], cast(tiny[1], dtype))


def test_an_unknown_dtype_is_refused_first():
    with pytest.raises(ValueError, match="dtype='int8'.*float32, float16, bfloat16"):
        load_pretrained("no/such/directory", dtype="int8")


def test_sharding_is_given_to_every_leaf(tiny, saved, assert_same_bits):
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()
    )
    whole = jax.sharding.NamedSharding(mesh, jax.P())
    split = jax.sharding.NamedSharding(mesh, jax.P("data"))
    _, params = load_pretrained(saved, sharding=whole)
    assert {x.sharding for x in jax.tree.leaves(params)} == {whole}
    asked = {}

    def by_name(name, shape):
        asked[name] = shape
        return split if name == "wte/embedding" else whole

    _, params = load_pretrained(saved, sharding=by_name)
    assert asked == {name: x.shape for name, x in named_leaves(tiny[1])}
    assert params["wte"]["embedding"].sharding == split
    assert params["ln_f"]["scale"].sharding == whole
    assert_same_bits(params, tiny[1])


def test_every_difference_is_listed_at_once(saved, tensors, writers):
    del tensors["h.1.ln_2.bias"], tensors["wpe.weight"]
    tensors["h.2.ln_1.bias"] = np.ones(16, np.float32)
    tensors["score.weight"] = np.ones((2, 16), np.float32)
    tensors["h.0.attn.c_attn.weight"] = tensors["h.0.attn.c_attn.weight"].T
    tensors["h.0.mlp.c_fc.weight"] = tensors["h.0.mlp.c_fc.weight"].astype(np.int64)
    tensors["h.0.ln_1.bias"] = tensors["h.0.ln_1.bias"].astype(np.float16)
    writers["safetensors"](saved, tensors)
    with pytest.raises(ValueError, match="weights are not the config's") as caught:
        load_pretrained(saved)
    lines = str(caught.value).splitlines()
    assert str(saved) in lines[0]
    assert sorted(line.strip() for line in lines[1:]) == [
        "misshapen: h.0.attn.c_attn.weight (48, 16), expected (16, 48)",
        "missing: h.1.ln_2.bias, wpe.weight",
        "none of float32, float16, bfloat16, float64: h.0.mlp.c_fc.weight I64",
        "of several dtypes: h/ln_1/bias has float16 and float32: pass dtype=",
        "unexpected: h.2.ln_1.bias, score.weight",
    ]


def test_dtype_settles_several_dtypes(tiny, saved, tensors, writers, assert_same_bits):
    tensors["h.0.ln_1.bias"] = tensors["h.0.ln_1.bias"].astype(np.float16)
    writers["safetensors"](saved, tensors)
    _, params = load_pretrained(saved, dtype="float16")
    assert_same_bits(params, cast(tiny[1], "float16"))


def test_names_in_both_forms_are_refused(saved, tensors, writers):
    writers["safetensors"](
        saved, tensors | {"transformer.wte.weight": tensors["wte.weight"].copy()}
    )
    with pytest.raises(ValueError, match="with and without 'transformer.'"):
        load_pretrained(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_are_named(saved, tensors, value, writers):
    tensors["h.1.mlp.c_proj.weight"][3, 5] = value
    tensors["wte.weight"][0, 0] = value
    writers["safetensors"](saved, tensors)
    with pytest.raises(
        ValueError, match=r"NaN or infinite.* h\.1\.mlp\.c_proj\.weight, wte\.weight$"
    ):
        load_pretrained(saved)


def test_a_weight_that_the_dtype_cannot_hold_is_named(saved, tensors, writers):
    tensors["ln_f.weight"][2] = 1e6
    writers["safetensors"](saved, tensors)
    load_pretrained(saved, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"infinite weights, as float16: ln_f\.weight"):
        load_pretrained(saved, dtype="float16")


def test_missing_files_are_named(saved, tmp_path):
    (saved / WEIGHTS).rename(saved / "tf_model.h5")
    with pytest.raises(
        FileNotFoundError, match="holds no weights.*holds config.json, tf_model.h5"
    ):
        load_pretrained(saved)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        load_pretrained(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load_pretrained(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a file: give the directory"):
        load_pretrained(saved / "config.json")


@pytest.mark.parametrize("holds", [WEIGHTS, "flax_model.msgpack"])
def test_a_name_on_the_hub_is_downloaded_in_one_layout(
    tiny, saved, tensors, tmp_path, monkeypatch, holds, writers, assert_same_bits
):
    if holds != WEIGHTS:
        writers["flax"](saved, tensors)
        (saved / WEIGHTS).unlink()
    (saved / "onnx").mkdir()
    (saved / "onnx" / "decoder.onnx").write_text("large")
    asked = []

    def snapshot_download(name, *, allow_patterns):
        from fnmatch import fnmatch

        asked.append(name)
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        for file in saved.rglob("*.*"):
            if any(fnmatch(str(file.relative_to(saved)), p) for p in allow_patterns):
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    _, params = load_pretrained("someone/some.gpt2")
    assert_same_bits(params, tiny[1])
    assert asked == ["someone/some.gpt2"] * (1 if holds == WEIGHTS else 5)
    assert sorted(os.listdir(tmp_path / "cache")) == ["config.json", holds]


def test_offline_there_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match="'no-one/no-such-gpt2' is no directory here, and its download .* failed",
    ):
        load_pretrained("no-one/no-such-gpt2")
