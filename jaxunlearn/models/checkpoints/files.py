"""The weight files of a Hugging Face directory, read one tensor at a time.

Whatever its layout, a checkpoint becomes a dict of tensors under torch's names
(``transformer.h.0.attn.c_attn.weight``), kernels as (in, out).
"""

import contextlib
import json
import mmap
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxunlearn.files import read_json


class Tensor(NamedTuple):
    """A tensor of a file: what is known before reading, and how to read it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


def read_checkpoint(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of the first layout found in ``directory``; see ``LAYOUTS``.

    Warns where there are others: they may hold other weights, and are not read.

    Raises:
      FileNotFoundError: The directory holds no weights, or not every shard.
      ValueError: A file is truncated or corrupt, or an index names what is no file of
        its directory.
      ImportError: The weights are a torch pickle and torch is not installed.
    """
    layouts = layouts_in(directory)
    if not layouts:
        found = ", ".join(sorted(p.name for p in directory.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{directory} holds no weights: it needs one of {', '.join(LAYOUTS)}, "
            f"and holds {found}"
        )
    chosen, *others = layouts
    if others:
        warnings.warn(
            f"{directory} holds weights several times, and they may differ: {chosen} "
            f"is read, as transformers does, and not {', '.join(others)}",
            stacklevel=3,
        )
    return LAYOUTS[chosen](directory / chosen)


def layouts_in(directory: Path) -> list[str]:
    """Return the layouts in ``directory`` that ``read_checkpoint`` reads, in order."""
    return [name for name in LAYOUTS if (directory / name).is_file()]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file into memory; bfloat16, which NumPy lacks, included."""
    from safetensors import safe_open

    with readable(path):
        with safe_open(path, framework="numpy"):
            pass  # opening checks the header against the length of the file
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        data = np.memmap(path, np.uint8, "r", offset=start)
    names = dict(F64="float64", F32="float32", F16="float16", BF16="bfloat16")

    def tensor(entry: dict[str, Any]) -> Tensor:
        shape, dtype = tuple(entry["shape"]), names.get(entry["dtype"], entry["dtype"])
        begin, end = entry["data_offsets"]
        return Tensor(
            shape, dtype, lambda: data[begin:end].view(jnp.dtype(dtype)).reshape(shape)
        )

    return {k: tensor(v) for k, v in header.items() if k != "__metadata__"}


def read_flax(path: Path) -> dict[str, Tensor]:
    """Read a ``flax_model.msgpack``; each array is freed when its tensor is dropped.

    Its kernels are (out, in), as FlaxConv1D had them, and are turned back. No shape
    tells: ``attn.c_proj`` is square.
    """
    from flax.serialization import msgpack_restore
    from flax.traverse_util import flatten_dict

    with readable(path), path.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data: Any = mapped  # said to be bytes, but any buffer is read
            arrays = flatten_dict(msgpack_restore(data), sep=".")
        return {
            torch_name(name): tensor_of(a.T if name.endswith(".kernel") else a)
            for name, a in arrays.items()
        }


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read a ``pytorch_model.bin``, tensors only: no code in the pickle is run."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch: pip install 'jaxunlearn[parity]', or save "
            f"the model as model.safetensors"
        ) from error

    def array(tensor: Any) -> np.ndarray:
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
        return tensor.numpy()

    with readable(path):
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        tensors = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    odd = [type(tensors).__name__]
    if isinstance(tensors, dict):
        odd = [
            f"{name!r:.60}: {type(tensor).__name__}"
            for name, tensor in tensors.items()
            if not isinstance(name, str)
            or not isinstance(tensor, torch.Tensor)
            or tensor.layout != torch.strided
            or tensor.is_quantized
        ]
    if odd:
        raise ValueError(
            f"{path} is no state dict, from names to dense tensors: it holds {odd[0]}"
        )
    return {
        name: Tensor(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            lambda tensor=tensor: array(tensor.detach()),
        )
        for name, tensor in tensors.items()
    }


def read_shards(
    index: Path, read: Callable[[Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Read every shard that an ``*.index.json`` names; all stand beside it.

    Of a tensor in several shards the last counts, with a warning.
    """
    with readable(index):
        weight_map = read_json(index)["weight_map"]
        names = sorted({os.fspath(name) for name in weight_map.values()})
    foreign = [name for name in names if os.path.basename(name) != name]
    if foreign:
        raise ValueError(
            f"{index} names shards outside its folder, which are not read: "
            f"{', '.join(foreign)}"
        )
    shards = [index.parent / name for name in names]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{index.parent} lacks shards that {index.name} names: {', '.join(absent)}"
        )
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        found = read(shard)
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            warnings.warn(
                f"{index.parent} holds {twice[0]} in several shards, and they may "
                f"differ: that of {shard.name} is read, as transformers does",
                stacklevel=4,
            )
        tensors |= found
    return tensors


LAYOUTS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "model.safetensors": read_safetensors,
    "model.safetensors.index.json": lambda path: read_shards(path, read_safetensors),
    "pytorch_model.bin": read_torch,
    "pytorch_model.bin.index.json": lambda path: read_shards(path, read_torch),
    "flax_model.msgpack": read_flax,
    "flax_model.msgpack.index.json": lambda path: read_shards(path, read_flax),
}
"""The layouts by the file that marks them, in the order they are looked for.

The order is that of transformers, which reads no Flax files: they come last.
"""


def layout_files(layout: str) -> list[str]:
    """Return the patterns of a layout's files.

    >>> layout_files("model.safetensors.index.json")
    ['model.safetensors.index.json', 'model-*.safetensors']
    """
    stem, suffix = layout.removesuffix(".index.json").split(".")
    return [layout, f"{stem}-*.{suffix}"] if layout.endswith(".json") else [layout]


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a parser raises on a broken file into one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} is truncated or corrupt, download or save it again "
            f"({type(error).__name__}: {error})"
        ) from error


def tensor_of(array: np.ndarray) -> Tensor:
    """Wrap an array that is already in memory."""
    return Tensor(array.shape, array.dtype.name, lambda: array)


def torch_name(name: str) -> str:
    """Return torch's name of a Flax leaf, written with dots or slashes.

    >>> torch_name("h/0/ln_1/scale"), torch_name("transformer.wte.embedding")
    ('h.0.ln_1.weight', 'transformer.wte.weight')
    """
    *path, last = name.replace("/", ".").split(".")
    return ".".join(
        [*path, "weight" if last in ("kernel", "embedding", "scale") else last]
    )
