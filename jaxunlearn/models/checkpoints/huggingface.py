"""GPT-2 checkpoints in Hugging Face's layouts: names, shapes, and loading.

Our leaves ``h/attn/c_attn/kernel`` [N,D,3D] are the files' ``h.0.attn.c_attn.weight``
[D,3D], ``h.1...``: Conv1D kernels are (in, out) as Linen's, so nothing is transposed.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.data.records import listed
from jaxunlearn.data.text.tokenizer import TOKENIZER_FILES
from jaxunlearn.hub import check_folder, local_folder
from jaxunlearn.memory import available_memory
from jaxunlearn.models.checkpoints.config_file import load_config
from jaxunlearn.models.checkpoints.files import (
    LAYOUTS,
    Tensor,
    layout_files,
    read_checkpoint,
    torch_name,
)
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.tree import layer_names, leaf_name, named_leaves, stacked_prefix
from jaxunlearn.types import Params

DTYPES = ("float32", "float16", "bfloat16")
# JAX computes in float64 only where it is told to: such weights are rounded.
READ_AS = {**{dtype: dtype for dtype in DTYPES}, "float64": "float32"}
# The causal mask, which old checkpoints hold; not attn.c_attn.bias.
STACKED = ("h",)
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
SMALL_FILES = ["*config.json", "LICENSE*", *TOKENIZER_FILES]

LeafSharding = (
    jax.sharding.Sharding | Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
)


def load_pretrained(
    path_or_hub_name: str | Path,
    *,
    dtype: str | None = None,
    sharding: LeafSharding | None = None,
) -> tuple[GPT2, Params]:
    """Return the model and the parameters of a GPT-2 checkpoint.

    Weights are looked for in the order of transformers: ``model.safetensors``, its
    index, ``pytorch_model.bin`` (needs torch; no code in the pickle is run), its index;
    then ``flax_model.msgpack`` and its index. Names with and without ``transformer.``
    are read, and the tied table under the embedding's name or the head's. A folder
    with ``checksums.json``, as ``save_pretrained`` writes one, is compared with it.

    Args:
      path_or_hub_name: A directory with a ``config.json``, or, where no such directory
        exists, a name on the Hugging Face hub to download (``"gpt2"``).
      dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; None keeps the file's, but
        reads float64 as float32.
      sharding: Where every leaf is put: a sharding, or a function from a leaf's name
        (``"h/attn/c_attn/kernel"``) and shape to its sharding; None is the default
        device.

    Returns:
      The model, whose config may be changed with ``dataclasses.replace``, and the
      parameters, stacked over layers.

    Raises:
      FileNotFoundError: Nothing is there, or a config, the weights or a shard is not.
      ValueError: The config asks for what this GPT-2 has not; a file is corrupt, or not
        the one that was written; names or shapes differ from the config's (they are
        listed); weights are not finite, or do not fit in memory.
      ImportError: The weights are a torch pickle and torch is not installed.

    Cost: one leaf on the host at a time beside the parameters, with the whole file read
    first only for ``flax_model.msgpack`` and old torch pickles.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: must be None or one of {', '.join(DTYPES)}")
    directory = local_directory(path_or_hub_name)
    check_folder(directory)
    model = GPT2(load_config(directory))
    shapes = parameter_shapes(model)
    tensors = gpt2_tensors(directory, read_checkpoint(directory))
    check_tensors(directory, tensors, shapes, dtype)

    def read_as(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        first = torch_name(layer_names(leaf_name(path), leaf, STACKED)[0])
        found = dtype or READ_AS[tensors[first].dtype]
        return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(found))

    shapes = jax.tree_util.tree_map_with_path(read_as, shapes)
    if sharding is None:
        check_memory(shapes, directory)
    broken: list[str] = []

    def load(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = leaf_name(path)
        names = [torch_name(n) for n in layer_names(name, leaf, STACKED)]
        value = np.empty(leaf.shape, leaf.dtype)
        slots = value[None] if stacked_prefix(name, STACKED) is None else value
        for slot, n in zip(slots, names, strict=True):
            with np.errstate(over="ignore"):  # found below, as an infinity
                slot[...] = tensors.pop(n).read()
            if not np.isfinite(slot).all():
                broken.append(n)
        return jax.device_put(
            value, sharding(name, leaf.shape) if callable(sharding) else sharding
        )

    params = jax.tree_util.tree_map_with_path(load, shapes)
    if broken:
        raise ValueError(
            f"{directory} holds NaN or infinite weights, as "
            f"{dtype or 'they are stored'}: {', '.join(broken)}"
        )
    return model, params


def file_tensors(params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ``(torch's name, array)`` of every leaf, stacked leaves layer by layer."""
    for name, leaf in named_leaves(params):
        array = np.asarray(leaf)
        arrays = [array] if stacked_prefix(name, STACKED) is None else array
        for n, part in zip(layer_names(name, array, STACKED), arrays, strict=True):
            yield torch_name(n), part


def parameter_shapes(model: GPT2) -> Params:
    """Return the tree of shapes of the model's parameters; nothing is computed."""
    return jax.eval_shape(lambda: model.init(key=jax.random.key(0)))


def check_memory(shapes: Params, source: str | Path) -> None:
    """Refuse parameters that do not fit in memory, before they are allocated.

    Args:
      shapes: The tree of shapes of the parameters.
      source: What asks for them, for the message.

    Raises:
      ValueError: They need more bytes than there are.
    """
    needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    there = available_memory()
    if needed > there:
        raise ValueError(
            f"{source} describes a model of {needed / 1e9:,.1f} GB, and "
            f"{there / 1e9:,.1f} GB of memory are available: is one of its sizes wrong?"
        )


def gpt2_tensors(directory: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without prefix, causal-mask buffers and tied output head."""
    short = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    if len(short) < len(tensors):
        raise ValueError(f"{directory} holds weights with and without 'transformer.'")
    head = short.pop("lm_head.weight", None)
    if head and not np.array_equal(
        head.read(), short.setdefault("wte.weight", head).read()
    ):
        # transformers 5 takes such a head for untied, whatever the config says.
        raise ValueError(
            f"{directory}: lm_head.weight differs from wte.weight; only a head tied to "
            f"the token embedding is supported"
        )
    return {name: t for name, t in short.items() if not BUFFER.fullmatch(name)}


def check_tensors(
    where: str | Path,
    tensors: dict[str, Tensor],
    shapes: Params,
    dtype: str | None,
    allowed: Collection[str] = READ_AS,
) -> None:
    """Raise one ValueError that lists every difference from the expected tensors."""
    expected: dict[str, tuple[int, ...]] = {}
    mixed: list[str] = []
    for name, leaf in named_leaves(shapes):
        names = [torch_name(n) for n in layer_names(name, leaf, STACKED)]
        shape = leaf.shape if stacked_prefix(name, STACKED) is None else leaf.shape[1:]
        expected |= dict.fromkeys(names, shape)
        dtypes = {tensors[n].dtype for n in names if n in tensors}
        known = dtypes <= set(allowed)
        if dtype is None and known and len({READ_AS[d] for d in dtypes}) > 1:
            mixed.append(f"{name} has {' and '.join(sorted(dtypes))}: pass dtype=")
    both = [name for name in expected if name in tensors]
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {tensors[name].shape}, expected {expected[name]}"
            for name in both
            if tensors[name].shape != expected[name]
        ],
        f"none of {', '.join(allowed)}": [
            f"{name} {tensors[name].dtype}"
            for name in both
            if tensors[name].dtype not in allowed
        ],
        "of several dtypes": mixed,
    }
    lines = [f"{kind}: {listed(found)}" for kind, found in problems.items() if found]
    if lines:
        raise ValueError(
            "\n  ".join([f"{where}: the weights are not the config's GPT-2", *lines])
        )


def local_directory(path_or_hub_name: str | Path) -> Path:
    """Return the checkpoint's directory, downloaded where it is a name on the hub."""
    # One layout only, the first that the hub has: repositories often hold them all.
    for layout in LAYOUTS:
        path = local_folder(path_or_hub_name, SMALL_FILES + layout_files(layout))
        if str(path) == str(Path(path_or_hub_name)) or (path / layout).is_file():
            break
    return path
