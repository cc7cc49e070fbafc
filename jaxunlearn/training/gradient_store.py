"""Recorded gradients on disk: one safetensors file a training step.

A file holds the arrays of :class:`~jaxunlearn.training.recorder.ExampleGradients` for
the examples of its step, and ``update_weight`` (learning rate times share); its header
names epoch and step, with two hashes: of the columns that :func:`read_index` reads, and
of everything. It is written under a temporary name and renamed, so a killed run
leaves whole files only, and a resumed one writes the same files again.
"""

import itertools
from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.files import write_tensors
from jaxunlearn.models.tying import HEAD, TABLE, untie
from jaxunlearn.provenance import params_hash
from jaxunlearn.sealed import unchecked
from jaxunlearn.training.recorder import ExampleGradients
from jaxunlearn.training.replay import WEIGHTS, Exposure
from jaxunlearn.types import Params

EMBEDDING_FIELDS = ExampleGradients._fields[4:]
COLUMNS = ("index", "update_weight", "norm", "truncation")
SPIKE = 5.0


class StoredExample(NamedTuple):
    """One line of a store's index."""

    exposure: Exposure
    norm: float
    truncation: float  # relative error of the stored head part
    file: Path
    row: int


def write_step(
    directory: Path,
    examples: ExampleGradients,
    update_weight: np.ndarray,
    *,
    epoch: int,
    step: int,
    dtype: str,
) -> Path:
    """Write one step's gradients and return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    real = np.asarray(examples.index) >= 0
    exact = {"index", "norm", "truncation", "lookup_ids", "head_ids"}
    arrays = {"update_weight": np.asarray(update_weight, np.float32)[real]}
    for name, value in examples._asdict().items():
        parts = (
            {f"dense/{k}": v for k, v in value.items()}
            if name == "dense"
            else {name: value}
        )
        for key, part in parts.items():
            if part is not None:
                stored = np.asarray(part if key in exact else jnp.asarray(part, dtype))
                arrays[key] = stored if real.all() else stored[real]
    path = directory / f"step-{step:08d}.safetensors"
    columns = {name: arrays[name] for name in COLUMNS}
    metadata = {
        "epoch": str(epoch),
        "step": str(step),
        "columns_sha256": arrays_hash(columns, epoch, step),
        "sha256": arrays_hash(arrays, epoch, step),
    }
    write_tensors(path, arrays, metadata)
    return path


def read_index(directory: Path) -> list[StoredExample]:
    """Return what a store holds, in the order of training.

    Raises:
      ValueError: The folder holds no recorded gradients, or a damaged file.
    """
    files = sorted(Path(directory).glob("step-*.safetensors"))
    if not files:
        raise ValueError(
            f"{directory} holds no recorded gradients: train with recording on, or "
            f"let them be replayed"
        )
    lines = []
    for file in files:
        columns, epoch, step = read_arrays(file, COLUMNS)
        rows = zip(*(columns[name] for name in COLUMNS), strict=True)
        for row, (index, weight, norm, truncation) in enumerate(rows):
            exposure = Exposure(int(index), epoch, step, float(weight))
            lines.append(
                StoredExample(exposure, float(norm), float(truncation), file, row)
            )
    return lines


def read_arrays(
    file: Path, names: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], int, int]:
    """Read a step's arrays, all or those of ``names``, with its epoch and step.

    Raises:
      ValueError: The file is damaged; the hash of ``COLUMNS`` is compared where they
        are read, that of everything where everything is.
    """
    from safetensors import safe_open

    remedy = "train again into a new folder, or let the gradients be replayed"
    try:
        with safe_open(file, framework="flax") as stored:
            header = stored.metadata()
            read = {
                name: np.asarray(stored.get_tensor(name))
                for name in names or stored.keys()  # noqa: SIM118 (not a mapping)
            }
        epoch, step = int(header["epoch"]), int(header["step"])
        expected = header.get("sha256" if names is None else "columns_sha256")
    except Exception as error:  # safetensors raises many kinds for a damaged header
        raise ValueError(f"{file} is damaged ({error}): {remedy}") from error
    if expected is None and len(header) == 2:
        unchecked(file.parent)
    elif expected != arrays_hash(read, epoch, step):
        raise ValueError(f"{file} is damaged (its hash differs): {remedy}")
    return read, epoch, step


def arrays_hash(arrays: Mapping[str, np.ndarray], epoch: int, step: int) -> str:
    """Return the hash of a step's arrays and of when it was."""
    return params_hash({**arrays, "when": np.array([epoch, step])})


def norm_spikes(index: list[StoredExample]) -> list[StoredExample]:
    """Return the examples whose gradient norm is above 5 times the median.

    Such a gradient often comes from a loss spike and undoes more than its example.
    """
    median = float(np.median([line.norm for line in index]))
    return [line for line in index if line.norm > SPIKE * median]


def stored_gradient(
    directory: Path,
    like: Params,
    indices: Collection[int],
    *,
    epochs: Collection[int] = (1,),
    weight: str = "sgd",
) -> tuple[Params, list[StoredExample]]:
    """Return ``sum_i sum_e w_ie grad l_i`` on the recorded leaves, zeros elsewhere.

    Untied, as :func:`jaxunlearn.training.replay.weighted_gradient`.

    The stored twin of :func:`jaxunlearn.training.replay.replayed_gradient`; the two
    agree up to the store's dtype and truncation.

    Raises:
      ValueError: A requested example or epoch is not in the store.
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight={weight!r}: one of {', '.join(WEIGHTS)}")
    wanted = set(indices)
    if not wanted or not epochs:
        raise ValueError(
            f"indices={sorted(wanted)}, epochs={sorted(epochs)}: name at least one "
            f"example and one epoch"
        )
    chosen = [
        line
        for line in read_index(directory)
        if line.exposure.index in wanted and line.exposure.epoch in set(epochs)
    ]
    missing = {(i, e) for i in wanted for e in epochs} - {
        (line.exposure.index, line.exposure.epoch) for line in chosen
    }
    if missing:
        raise ValueError(
            f"{directory} lacks the gradients of {len(missing)} requested (example, "
            f"epoch) pairs, such as {sorted(missing)[:3]}: record those epochs, or let "
            f"them be replayed"
        )
    total = tree.zeros_like(untie(like))
    for line, one in read_examples(chosen, like):
        a = line.exposure.update_weight if weight == "sgd" else 1.0
        total = tree.add_scaled(total, 1.0, tree.scaled(a, one))
    return total, chosen


def read_examples(
    lines: list[StoredExample], like: Params
) -> Iterator[tuple[StoredExample, Params]]:
    """Yield each stored example with its gradient, made dense."""
    for file, of_file in itertools.groupby(lines, key=lambda line: line.file):
        stored, _, _ = read_arrays(file)
        for line in of_file:
            arrays = {
                name: jnp.asarray(values[line.row]).astype(
                    jnp.int32 if name.endswith("_ids") else jnp.float32
                )
                for name, values in stored.items()
                if name.startswith("dense/") or name in EMBEDDING_FIELDS
            }
            yield line, dense_gradient(arrays, like)


def dense_gradient(arrays: dict[str, jax.Array], like: Params) -> Params:
    """Return one example's stored arrays as a gradient of ``untie(like)``."""
    total = tree.zeros_like(untie(like))
    flat = dict(tree.named_leaves(total))
    for stored, part in arrays.items():
        if stored.startswith("dense/"):
            name, layer = leaf_and_layer(stored.removeprefix("dense/"), flat)
            flat[name] = part if layer is None else flat[name].at[layer].set(part)
    if "lookup_ids" in arrays:
        table, head = "/".join(TABLE), "/".join(HEAD)
        flat[table] = flat[table].at[arrays["lookup_ids"]].add(arrays["lookup_rows"])
        entries = arrays["head_values"][..., None] * arrays["head_hidden"][:, None]
        flat[head] = flat[head].at[arrays["head_ids"]].add(entries)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: flat[tree.leaf_name(path)], total
    )


def leaf_and_layer(name: str, leaves: Container[str]) -> tuple[str, int | None]:
    """Return the leaf that a stored name is of, and its layer where it is stacked.

    >>> leaf_and_layer("h/11/ln_1/bias", ["h/ln_1/bias"])
    ('h/ln_1/bias', 11)
    """
    parts = name.split("/")
    for i, part in enumerate(parts):
        whole = "/".join((*parts[:i], *parts[i + 1 :]))
        if name not in leaves and part.isdigit() and whole in leaves:
            return whole, int(part)
    return name, None


def summary(directory: Path) -> dict:
    """Return the store's size, its largest truncation error and its norm spikes."""
    index = read_index(directory)
    files = {line.file for line in index}
    return {
        "gradients": len(index),
        "bytes": sum(file.stat().st_size for file in files),
        "largest_truncation": max(line.truncation for line in index),
        "norm_spikes": [line.exposure.index for line in norm_spikes(index)],
    }
