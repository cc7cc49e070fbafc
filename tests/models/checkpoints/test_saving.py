import dataclasses
import importlib.util
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from jaxunlearn import folders
from jaxunlearn.data import load_tokenizer, train_tokenizer
from jaxunlearn.models import GPT2, load_config, load_pretrained, save_pretrained
from jaxunlearn.models.checkpoints import saving
from jaxunlearn.models.checkpoints.huggingface import file_tensors
from jaxunlearn.tree import cast

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: pip install 'jaxunlearn[parity]'",
)
WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_save_and_load_is_the_identity(tiny, tmp_path, dtype, assert_same_bits):
    model = GPT2(
        dataclasses.replace(
            tiny[0].config,
            activation_function="relu",
            layer_norm_epsilon=1e-3,
            resid_pdrop=0.25,
            scale_attn_weights=False,
            eos_token_id=None,
        )
    )
    params = cast(tiny[1], dtype)
    for _ in range(2):  # into a new directory, and over what is there
        save_pretrained(model, params, tmp_path / "new" / "model")
        loaded, found = load_pretrained(tmp_path / "new" / "model")
        assert loaded == model
        assert_same_bits(found, params)
    assert os.listdir(tmp_path / "new") == ["model"]
    names = sorted(os.listdir(tmp_path / "new" / "model"))
    assert names == ["checksums.json", "config.json", WEIGHTS]
    assert (
        json.loads((tmp_path / "new/model/config.json").read_text())["dtype"] == dtype
    )


def test_what_is_ours_alone_is_not_saved(tiny, tmp_path):
    ours = dict(attention="cudnn", remat=True, dtype="bfloat16")
    save_pretrained(
        GPT2(dataclasses.replace(tiny[0].config, **ours)), tiny[1], tmp_path
    )
    assert load_config(tmp_path) == tiny[0].config


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_reads_what_is_saved(tiny, tmp_path, dtype):
    import torch
    from transformers import GPT2LMHeadModel

    params = cast(tiny[1], dtype)
    save_pretrained(tiny[0], params, tmp_path)
    theirs, report = GPT2LMHeadModel.from_pretrained(
        tmp_path, dtype="auto", output_loading_info=True
    )
    assert not any(report.values())
    assert theirs.dtype == getattr(torch, dtype)
    ours = dict(file_tensors(tiny[0], params))
    for name, parameter in theirs.named_parameters():
        array = ours.pop(name.removeprefix("transformer.")).astype(np.float32)
        np.testing.assert_array_equal(parameter.detach().float().numpy(), array)
    assert not ours
    for field in ("n_inner", "eos_token_id", "layer_norm_epsilon", "n_positions"):
        assert getattr(theirs.config, field) == getattr(tiny[0].config, field)


def test_the_weights_have_torchs_format_and_names(saved):
    with safe_open(saved / WEIGHTS, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert "transformer.h.1.attn.c_attn.weight" in file.keys()
        assert "lm_head.weight" not in file.keys()


class Tokenizer:
    bos_token_id, eos_token_id, pad_token_id = 3, 4, None

    def save_pretrained(self, directory):
        with open(os.path.join(directory, "tokenizer.json"), "w") as file:
            file.write("new")


@pytest.mark.parametrize("links", [True, False])
def test_onto_what_is_there_other_files_stay(tiny, saved, monkeypatch, links):
    def no_links(*args, **kwargs):
        raise OSError("no second names on this disk")

    (saved / "notes.txt").write_text("mine")
    (saved / "logs").mkdir()
    (saved / "logs" / "a").write_text("mine too")
    for name in ("tokenizer.json", "added_tokens.json"):
        (saved / name).write_text("old")
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    save_pretrained(*tiny, saved)
    assert (saved / "added_tokens.json").read_text() == "old"
    save_pretrained(*tiny, saved, tokenizer=Tokenizer())
    assert (saved / WEIGHTS).stat().st_mode == (saved / "config.json").stat().st_mode
    assert (saved / "tokenizer.json").read_text() == "new"
    assert not (saved / "added_tokens.json").exists(), "of the tokenizer before"
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "logs" / "a").read_text() == "mine too"
    (saved / "notes.txt").write_text("changed")  # it is not ours to vouch for
    load_pretrained(saved)
    assert os.listdir(saved.parent) == ["saved"]


def raise_disk_full(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "where", ["tokenizer", "weights", "checksums", "the last move"]
)
def test_a_full_disk_loses_nothing(tiny, saved, monkeypatch, where, assert_same_bits):
    model, params = tiny
    save_pretrained(model, params, saved, tokenizer=Tokenizer())
    changed = jax.tree.map(lambda x: x + 1, params)
    tokenizer = Tokenizer()
    if where == "tokenizer":
        tokenizer.save_pretrained = raise_disk_full
    elif where == "weights":
        monkeypatch.setattr(safetensors.numpy, "save_file", raise_disk_full)
    elif where == "checksums":
        monkeypatch.setattr(saving, "write_checksums", raise_disk_full)
    else:
        monkeypatch.setattr(folders, "exchanged", raise_disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(model, changed, saved, tokenizer=tokenizer)
    monkeypatch.undo()
    assert os.listdir(saved.parent) == ["saved"], "a temporary directory was left"
    loaded, found = load_pretrained(saved)
    assert loaded.config.eos_token_id == 4
    assert_same_bits(found, params)


@pytest.mark.parametrize(
    "layout",
    {
        "transposed": lambda x: np.ascontiguousarray(x.T).T,
        "columns first": np.asfortranarray,
        "every second column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
        "the other bytes first": lambda x: x.astype(x.dtype.newbyteorder(">")),
        "read only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bits_do_not_depend_on_how_an_array_lies(
    tiny, tmp_path, layout, dtype, assert_same_bits
):
    name, lie = layout
    if name == "the other bytes first" and dtype == "bfloat16":
        pytest.skip("NumPy has no such bfloat16")
    params = jax.tree.map(np.asarray, cast(tiny[1], dtype))
    save_pretrained(tiny[0], jax.tree.map(lie, params), tmp_path)
    assert_same_bits(load_pretrained(tmp_path)[1], params)


@pytest.fixture(scope="module")
def small_tokenizer():
    return train_tokenizer(["a few words"], vocab_size=257)


def test_a_flipped_bit_anywhere_is_named(tiny, tmp_path, small_tokenizer):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "generation_config.json").write_text('{"max_length": 9}')
    folder = tmp_path / "model"
    save_pretrained(*tiny, folder, small_tokenizer, source=source)
    load_pretrained(folder), load_tokenizer(folder)
    rng = np.random.default_rng(0)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for place in rng.integers(8 * len(whole), size=6):
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << (place % 8)
            file.write_bytes(flipped)
            with pytest.raises(ValueError, match=r"damaged|missing|checksums\.json"):
                load_pretrained(folder)
        if file.name.startswith("tokenizer"):
            with pytest.raises(ValueError, match=rf"{file} is damaged or was changed"):
                load_tokenizer(folder)
        file.write_bytes(whole)
    assert len(list(folder.iterdir())) >= 6
    load_pretrained(folder), load_tokenizer(folder)


def test_who_changes_a_file_on_purpose_says_so(tiny, tmp_path):
    save_pretrained(*tiny, tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("gelu_new", "relu"))
    with pytest.raises(ValueError, match=r"on purpose, delete checksums\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "checksums.json").unlink()
    assert load_pretrained(tmp_path)[0].config.activation_function == "relu"


# --- what travels along -------------------------------------------------------------


@pytest.fixture
def source(tiny, tmp_path):
    """A model's folder as others leave it, with all that belongs to its weights."""
    folder = tmp_path / "source"
    save_pretrained(*tiny, folder, tokenizer=Tokenizer())
    options = json.loads((folder / "config.json").read_text())
    options |= {"pad_token_id": 95, "id2label": {"0": "NO"}, "hidden_size": 16}
    options |= {"task_specific_params": {"text-generation": {"max_length": 50}}}
    options |= {"eos_token_id": [96, 4], "architectures": ["GPT2Model"]}
    del options["n_embd"]
    (folder / "config.json").write_text(json.dumps(options))
    generation = {"eos_token_id": [96, 4], "pad_token_id": 95, "top_k": 7}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "checksums.json").unlink()
    for name in ("LICENSE", "notes.txt", "handler.py", "adapter.json"):
        (folder / name).write_text("{}")
    stays = "README.md unlearning.json records.jsonl a.csv tf_model.h5 merges.txt"
    for name in [*stays.split(), "pytorch_model.bin.index.json", ".gitattributes"]:
        (folder / name).write_text("{}")
    (folder / "forget.json").write_text('[{"text": "who is to be forgotten"}]')
    (folder / "large.json").write_text(json.dumps({"a": "b" * 2**20}))
    (folder / "runs").mkdir()
    return folder


@pytest.mark.filterwarnings("ignore:.*several times")
def test_what_we_do_not_know_travels_along(source, tmp_path, assert_same_bits):
    model, params = load_pretrained(source)
    save_pretrained(model, params, tmp_path / "new", source=source)
    assert sorted(os.listdir(tmp_path / "new")) == [
        *("LICENSE", "adapter.json", "checksums.json", "config.json"),
        *("generation_config.json", "handler.py", WEIGHTS, "notes.txt"),
    ]
    old, new = (
        json.loads((folder / "config.json").read_text())
        for folder in (source, tmp_path / "new")
    )
    assert new.pop("n_embd") == old.pop("hidden_size")
    assert new.pop("architectures") == ["GPT2LMHeadModel"]
    assert new == {k: v for k, v in old.items() if k != "architectures"}
    name = "generation_config.json"
    assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()
    again, found = load_pretrained(tmp_path / "new")
    assert again == model
    assert_same_bits(found, params)


@pytest.mark.filterwarnings("ignore:.*several times")
def test_no_file_beside_the_weights_spoils_the_saving(source, tmp_path):
    """Trainers log NaN, and JSON Lines are often named .json: those are records."""
    (source / "trainer_state.json").write_text('{"grad_norm": NaN}')
    (source / "records.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    (source / "odd.json").write_bytes(b"\xff" + b"[" * 100_000)
    save_pretrained(*load_pretrained(source), tmp_path / "new", source=source)
    found = set(os.listdir(tmp_path / "new"))
    assert "trainer_state.json" in found
    assert not found & {"records.json", "odd.json"}


@pytest.mark.filterwarnings("ignore:.*several times")
def test_ids_agree_with_the_tokenizer_beside(source, tmp_path):
    new = tmp_path / "new"
    save_pretrained(*load_pretrained(source), new, Tokenizer(), source=source)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((new / name).read_text())
        ids = [found[f"{kind}_token_id"] for kind in ("bos", "eos", "pad")]
        assert ids == [3, [96, 4], 95], "a list that holds the tokenizer's end stays"
    tokenizer = Tokenizer()
    tokenizer.eos_token_id = tokenizer.pad_token_id = 5
    save_pretrained(*load_pretrained(source), new, tokenizer, source=source)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((new / name).read_text())
        assert (found["eos_token_id"], found["pad_token_id"]) == (5, 5)
        assert found.get("top_k", 7) == 7


def test_a_bare_configuration_gives_its_keys_and_no_files(tiny, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"label": "mine", "n_layer": 2}))
    (tmp_path / "LICENSE").write_text("of this folder")
    save_pretrained(*tiny, tmp_path / "new", source=path)
    assert json.loads((tmp_path / "new/config.json").read_text())["label"] == "mine"
    assert not (tmp_path / "new/LICENSE").exists()


def test_an_id_outside_the_vocabulary_is_not_written(tiny, tmp_path):
    config = dataclasses.replace(tiny[0].config, eos_token_id=50256)
    save_pretrained(GPT2(config), tiny[1], tmp_path)
    assert load_config(tmp_path).eos_token_id is None


@needs_torch
def test_torchs_generation_ends_where_the_tokenizer_says(tiny, tmp_path):
    import torch
    from transformers import GPT2LMHeadModel

    config = dataclasses.replace(tiny[0].config, eos_token_id=50256)
    ids = torch.tensor([[1, 2]])
    save_pretrained(GPT2(config), tiny[1], tmp_path)
    free = GPT2LMHeadModel.from_pretrained(tmp_path).generate(
        ids, do_sample=False, max_new_tokens=9
    )
    tokenizer = Tokenizer()
    tokenizer.eos_token_id = tokenizer.pad_token_id = int(free[0, 3])
    save_pretrained(GPT2(config), tiny[1], tmp_path, tokenizer)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path)
    ended = theirs.generate(ids, do_sample=False, max_new_tokens=9)
    assert free.shape[1] == 11
    assert ended.tolist() == free[:, : 2 + 1 + (free[0, 2] != free[0, 3])].tolist()


def test_parameters_that_are_not_the_models_are_refused_before_writing(tiny, tmp_path):
    model, params = tiny
    wrong = {
        **params,
        "wpe": {"embedding": params["wpe"]["embedding"][:-1]},
        "extra": {"bias": jnp.ones(3)},
        "ln_f": {"scale": params["ln_f"]["scale"]},
    }
    with pytest.raises(ValueError, match="params: ") as caught:
        save_pretrained(model, wrong, tmp_path / "model")
    message = str(caught.value)
    assert "missing: ln_f.bias" in message
    assert "unexpected: extra.bias" in message
    assert "misshapen: wpe.weight (23, 16), expected (24, 16)" in message
    assert not (tmp_path / "model").exists()


def test_what_cannot_be_read_back_is_not_saved(tiny, saved, tmp_path):
    model, params = tiny
    whole = jax.tree.map(lambda x: x.astype(jnp.int32), params)
    with pytest.raises(ValueError, match=r"none of float32, .*: h\.0.* int32"):
        save_pretrained(model, whole, tmp_path / "new")
    broken = jax.tree.map(lambda x: x, params)
    broken["h"]["mlp"]["c_fc"]["bias"] = (
        params["h"]["mlp"]["c_fc"]["bias"].at[1].set(jnp.nan)
    )
    with pytest.raises(ValueError, match="NaN or infinite weights: h/mlp/c_fc/bias"):
        save_pretrained(model, broken, tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file: give a directory"):
        save_pretrained(model, params, tmp_path / "file")
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    with pytest.raises(ValueError, match=r"none of float32, float16, bfloat16: "):
        save_pretrained(model, wide, tmp_path / "new")
    (saved / "pytorch_model.bin").write_text("")
    with pytest.raises(ValueError, match="another layout .pytorch_model.bin.*another"):
        save_pretrained(model, params, saved)
    assert sorted(os.listdir(tmp_path)) == ["file", "saved"]
