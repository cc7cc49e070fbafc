"""Checkpoints in Hugging Face's layouts: names, shapes, and loading.

A leaf stacked over blocks, as GPT-2's ``h/attn/c_attn/kernel`` [N,D,3D], is one tensor
a block in the files, ``h.0.attn.c_attn.weight`` [D,3D], ``h.1...``; which name is which
says the family's row (``families.py``).
"""

import math
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
from jaxunlearn.models.checkpoints.families import Family, family, file_name
from jaxunlearn.models.checkpoints.files import (
    LAYOUTS,
    Tensor,
    layout_files,
    read_checkpoint,
)
from jaxunlearn.models.decoder import Decoder
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.tree import layer_names, leaf_name, named_leaves, stacked_prefix
from jaxunlearn.types import Params

DTYPES = ("float32", "float16", "bfloat16")
# JAX computes in float64 only where it is told to: such weights are rounded.
READ_AS = {**{dtype: dtype for dtype in DTYPES}, "float64": "float32"}
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
    """Return the model and the parameters of a checkpoint.

    Weights are looked for in the order of transformers: ``model.safetensors``, its
    index, ``pytorch_model.bin`` (needs torch; no code in the pickle is run), its index;
    then ``flax_model.msgpack`` and its index. Names with and without the prefix of a
    model with a head (``transformer.``) are read, and the tied table under the
    embedding's name or the head's. A folder with ``checksums.json``, as
    ``save_pretrained`` writes one, is compared with it.

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
      ValueError: The config asks for what is not supported; a file is corrupt, or not
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
    config = load_config(directory)
    row = family(config)
    model = row.model(config)
    shapes = parameter_shapes(model)
    tensors = bare_tensors(row, directory, read_checkpoint(directory))
    check_tensors(row, directory, tensors, shapes, dtype)

    def read_as(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        first = file_name(row, layer_names(leaf_name(path), leaf, model.stacked)[0])
        found = dtype or READ_AS[tensors[first].dtype]
        return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(found))

    shapes = jax.tree_util.tree_map_with_path(read_as, shapes)
    if sharding is None:
        check_memory(shapes, directory)
    broken: list[str] = []

    def load(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = leaf_name(path)
        names = [file_name(row, n) for n in layer_names(name, leaf, model.stacked)]
        value = np.empty(leaf.shape, leaf.dtype)
        slots = value[None] if stacked_prefix(name, model.stacked) is None else value
        for slot, n in zip(slots, names, strict=True):
            with np.errstate(over="ignore"):  # found below, as an infinity
                array = tensors.pop(n).read()
                slot[...] = array.T if row.transposed(name) else array
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


def file_tensors(model: Decoder, params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ``(name, array)`` of every leaf as files hold it, layer by layer."""
    row = family(model.config)
    for name, leaf in named_leaves(params):
        array = np.asarray(leaf)
        arrays = [array] if stacked_prefix(name, model.stacked) is None else array
        for n, part in zip(
            layer_names(name, array, model.stacked), arrays, strict=True
        ):
            yield file_name(row, n), part.T if row.transposed(name) else part


def parameter_shapes(model: Decoder) -> Params:
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


def bare_tensors(
    row: Family, directory: Path, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors without prefix, buffers and tied output head."""
    short = {name.removeprefix(row.prefix): t for name, t in tensors.items()}
    if len(short) < len(tensors):
        raise ValueError(f"{directory} holds weights with and without {row.prefix!r}")
    name, table = row.head
    head = short.pop(name, None)
    if head and not np.array_equal(head.read(), short.setdefault(table, head).read()):
        # transformers 5 takes such a head for untied, whatever the config says.
        raise ValueError(
            f"{directory}: {name} differs from {table}; only a head tied to the token "
            f"embedding is supported"
        )
    return {name: t for name, t in short.items() if not row.ignored.fullmatch(name)}


def check_tensors(
    row: Family,
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
        names = [file_name(row, n) for n in layer_names(name, leaf, row.model.stacked)]
        whole = stacked_prefix(name, row.model.stacked) is None
        shape = leaf.shape if whole else leaf.shape[1:]
        shape = shape[::-1] if row.transposed(name) else shape
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
        first = f"{where}: the weights are not the config's {row.model.__name__}"
        raise ValueError("\n  ".join([first, *lines]))


def local_directory(path_or_hub_name: str | Path) -> Path:
    """Return the checkpoint's directory, downloaded where it is a name on the hub."""
    # One layout only, the first that the hub has: repositories often hold them all.
    for layout in LAYOUTS:
        path = local_folder(path_or_hub_name, SMALL_FILES + layout_files(layout))
        if str(path) == str(Path(path_or_hub_name)) or (path / layout).is_file():
            break
    return path
