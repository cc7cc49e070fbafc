"""A small GPT-2 with weights far from their start, and ways to write it to files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

from jaxunlearn.models import GPT2, GPT2Config, save_pretrained
from jaxunlearn.models.checkpoints.huggingface import file_tensors
from jaxunlearn.tree import named_leaves

TINY = GPT2Config(
    vocab_size=97,
    n_positions=24,
    n_embd=16,
    n_layer=2,
    n_head=2,
    bos_token_id=96,
    eos_token_id=96,
)


def random_params(model):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))

    def draw(path, x):
        normal = 0.25 * rng.standard_normal(x.shape)
        return np.float32(normal + (path[-1].key == "scale"))

    return jax.tree.map(
        jax.numpy.asarray, jax.tree_util.tree_map_with_path(draw, shapes)
    )


@pytest.fixture(scope="session")
def tiny():
    """The model and its parameters."""
    model = GPT2(TINY)
    return model, random_params(model)


@pytest.fixture(scope="session")
def make_params():
    """Parameters for another configuration."""
    return random_params


@pytest.fixture(scope="session")
def batch():
    """Three rows of 12 with prompts, padding on the right, and odd indices."""
    rng = np.random.default_rng(1)
    ids = rng.integers(96, size=(3, 12)).astype(np.int32)
    place, ends = np.arange(12), np.array([[12], [7], [9]])
    starts = np.array([[0], [3], [5]])
    labelled = (starts <= place) & (place < ends)
    return {
        "input_ids": ids,
        "attention_mask": (place < ends).astype(np.int32),
        "labels": np.where(labelled, ids, -100).astype(np.int32),
        "index": np.array([5, 0, 11], np.int32),
        "weight": np.ones(3, np.float32),
    }


@pytest.fixture(scope="session", name="value_and_gradient")
def loss_and_gradient():
    """From a model to its compiled ``(params, batch) -> (losses, gradient)``."""
    return value_and_gradient


def value_and_gradient(model):
    """Compile ``(params, batch) -> (losses [B], gradient of their weighted sum)``."""

    def objective(params, batch):
        losses = model.per_example_loss(params, batch)
        return jnp.sum(batch["weight"] * losses), losses

    def compute(params, batch):
        gradient, losses = jax.grad(objective, has_aux=True)(params, batch)
        return losses, gradient

    return jax.jit(compute)


# --- checkpoint files ---------------------------------------------------------------


@pytest.fixture
def saved(tiny, tmp_path):
    """A directory as save_pretrained writes it, to be spoilt at will."""
    save_pretrained(*tiny, tmp_path / "saved")
    (tmp_path / "saved" / "checksums.json").unlink()
    return tmp_path / "saved"


@pytest.fixture
def tensors(tiny):
    """The tensors under torch's names without prefix, writable."""
    return {name: np.array(array) for name, array in file_tensors(*tiny)}


@pytest.fixture(scope="session", name="assert_same_bits")
def same_bits():
    """Raise unless two trees have the same leaves, dtypes and bits."""
    return assert_same_bits


def assert_same_bits(a, b):
    a, b = dict(named_leaves(a)), dict(named_leaves(b))
    assert a.keys() == b.keys()
    for name, leaf in a.items():
        assert leaf.dtype == b[name].dtype, name
        assert np.asarray(leaf).tobytes() == np.asarray(b[name]).tobytes(), name


def write_safetensors(directory, tensors):
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()},
        directory / "model.safetensors",
    )


def write_shards(directory, tensors):
    weight_map = {}
    for i in range(3):
        shard = f"model-{i + 1:05}-of-00003.safetensors"
        part = dict(list(tensors.items())[i::3])
        safetensors.numpy.save_file(part, directory / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def flax_leaves(tensors):
    """As Hugging Face's Flax models had them: FlaxConv1D kernels are (out, in)."""
    for name, array in tensors.items():
        *path, last = name.removeprefix("transformer.").split(".")
        if last == "weight":
            if array.ndim == 1:
                last = "scale"
            elif path[-1] in ("wte", "wpe"):
                last = "embedding"
            else:
                last, array = "kernel", array.T.copy()
        top = () if path[0] == "lm_head" else ("transformer",)
        yield (*top, *path, last), array


def write_flax(directory, tensors):
    tree = unflatten_dict(dict(flax_leaves(tensors)))
    (directory / "flax_model.msgpack").write_bytes(msgpack_serialize(tree))


def write_flax_shards(directory, tensors):
    leaves, weight_map = list(flax_leaves(tensors)), {}
    for i in range(2):
        shard = f"flax_model-{i + 1:05}-of-00002.msgpack"
        part = dict(leaves[i::2])
        tree = msgpack_serialize(unflatten_dict(part))
        (directory / shard).write_bytes(tree)
        weight_map |= dict.fromkeys(("/".join(path) for path in part), shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "flax_model.msgpack.index.json").write_text(json.dumps(index))


def as_torch(array):
    import torch

    if array.dtype == jnp.bfloat16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def write_bin(directory, tensors, **options):
    import torch

    state = {name: as_torch(array) for name, array in tensors.items()}
    torch.save(state, directory / "pytorch_model.bin", **options)


def write_old_bin(directory, tensors):
    write_bin(directory, tensors, _use_new_zipfile_serialization=False)


def write_bin_shards(directory, tensors):
    import torch

    weight_map = {}
    for i in range(2):
        shard = f"pytorch_model-{i + 1:05}-of-00002.bin"
        part = dict(list(tensors.items())[i::2])
        torch.save({k: as_torch(v) for k, v in part.items()}, directory / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def writers():
    """Functions of (directory, tensors) that write each layout."""
    return {
        "safetensors": write_safetensors,
        "shards": write_shards,
        "flax": write_flax,
        "flax shards": write_flax_shards,
        "bin": write_bin,
        "old bin": write_old_bin,
        "bin shards": write_bin_shards,
    }
