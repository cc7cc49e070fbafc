"""``jaxunlearn parity``: does JAX compute from a checkpoint what torch computes?"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxunlearn.types import IGNORED_LABEL, Params

if TYPE_CHECKING:
    from jaxunlearn.models.gpt2 import GPT2

TOLERANCES = {
    # The models' rounding differs by the order of their sums, some 1e-6 relative; ten
    # to a hundred times that is allowed, a wrong formula is off by 1e-2 and more.
    "logits": ("absolute", 1e-4),
    "token losses": ("absolute", 1e-4),
    "gradient": ("relative", 1e-4),
    # A second derivative sums products of first ones, whose errors add.
    "hvp": ("relative", 1e-3),
    # A square doubles a relative error.
    "fisher": ("relative", 2e-4),
}
"""Per quantity: what is bounded, and by how much; of each leaf by itself."""


class Difference(NamedTuple):
    """How far one array of ours is from torch's."""

    item: str
    absolute: float
    relative: float
    measure: str
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the bounded difference is within tolerance; a NaN is not."""
        value = self.absolute if self.measure == "absolute" else self.relative
        return bool(value <= self.tolerance)


def parity(
    *,
    model: Path,
    batch_size: int = 2,
    length: int = 32,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Compare a GPT-2 checkpoint in JAX and in torch, derivatives included.

    Both read the same directory and the same seeded batch, with padding and unlabelled
    prompts, and compute in float32: the logits, the loss of every token, the gradient
    of every leaf, the Hessian times a random direction, and the Fisher diagonal.
    Prints a table of the largest absolute difference and of ``||a - b|| / ||b||``.

    Args:
      model: Directory of the checkpoint, or its name on the Hugging Face hub.
      batch_size: Examples compared.
      length: Tokens an example, padding included; at least 8.
      seed: Seed of the batch and of the direction.
      out: JSON file for the numbers and the versions they were made with.

    Returns:
      0 if every difference is within its tolerance, else 1.

    Raises:
      ImportError: torch is not installed.
      ValueError: The checkpoint, ``batch_size`` or ``length`` cannot be used.
    """
    from jaxunlearn.commands.arguments import MOST, check_number
    from jaxunlearn.commands.console import console
    from jaxunlearn.commands.torch_reference import torch_quantities
    from jaxunlearn.files import write_json
    from jaxunlearn.models.checkpoints.huggingface import (
        file_tensors,
        load_pretrained,
        local_directory,
        parameter_shapes,
    )
    from jaxunlearn.provenance import versions
    from jaxunlearn.report.kit.tables import console_table

    directory = local_directory(model)
    gpt2, params = load_pretrained(directory, dtype="float32")
    config = gpt2.config
    if not 1 <= batch_size <= MOST:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, at most {MOST}")
    check_number("seed", seed, 0, 2**32 - 1)
    if not 8 <= length <= config.n_positions:
        raise ValueError(
            f"length={length}: must be from 8 to n_positions={config.n_positions}"
        )
    batch = random_batch(config.vocab_size, batch_size, length, seed=seed)
    direction = random_direction(parameter_shapes(gpt2), seed=seed)
    theirs = torch_quantities(directory, batch, dict(file_tensors(direction)))
    found = differences(jax_quantities(gpt2, params, batch, direction), theirs)

    console.print(console_table(table_rows(found), title=f"JAX and torch on {model}"))
    failed = [difference.item for difference in found if not difference.within]
    console.print(
        f"NOT within tolerance: {', '.join(failed)}"
        if failed
        else f"All {len(found)} arrays are within tolerance.",
        markup=False,
    )
    if out is not None:
        write_json(
            out,
            {
                "model": str(model),
                "batch_size": batch_size,
                "length": length,
                "seed": seed,
                "within_tolerance": not failed,
                "differences": [d._asdict() | {"within": d.within} for d in found],
                "versions": versions(),
            },
        )
    return 1 if failed else 0


def random_batch(
    vocab_size: int, batch_size: int, length: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Return a batch of random tokens, each row with a prompt and with padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(vocab_size, size=(batch_size, length))
    ends = rng.integers(length // 2, length, size=(batch_size, 1))
    starts = rng.integers(1, length // 2 - 1, size=(batch_size, 1))
    place = np.arange(length)
    labelled = (starts <= place) & (place < ends)
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": (place < ends).astype(np.int32),
        "labels": np.where(labelled, ids, IGNORED_LABEL).astype(np.int32),
    }


def random_direction(shapes: Params, *, seed: int) -> Params:
    """Return a random tree of length 1, float32, in the shapes of ``shapes``."""
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda x: rng.standard_normal(x.shape), shapes)
    length = np.sqrt(sum(np.sum(x * x) for x in jax.tree.leaves(drawn)))
    return jax.tree.map(lambda x: (x / length).astype(np.float32), drawn)


def jax_quantities(
    model: "GPT2", params: Params, batch: Mapping[str, np.ndarray], direction: Params
) -> dict[str, np.ndarray]:
    """Return what ``torch_quantities`` returns, computed by this library."""
    from jaxunlearn.models.checkpoints.huggingface import file_tensors

    # Elsewhere than on CPUs a float32 product is rounded to fewer bits by default.
    with jax.default_matmul_precision("highest"):
        logits, token_losses, trees = _compute(model, params, dict(batch), direction)
    return {
        "logits": np.asarray(logits),
        "token losses": np.asarray(token_losses),
        **{
            f"{kind} {name}": array
            for kind, tree in trees.items()
            for name, array in file_tensors(tree)
        },
    }


@functools.partial(jax.jit, static_argnums=0)
def _compute(
    model: "GPT2", params: Params, batch: dict, direction: Params
) -> tuple[jax.Array, jax.Array, dict[str, Params]]:
    from jaxunlearn.gradients import fisher_diagonal, hvp

    loss = model.per_example_loss
    derivatives = {
        "gradient": jax.grad(lambda p: loss(p, batch).mean())(params),
        "hvp": hvp(loss, params, batch, direction),
        "fisher": fisher_diagonal(loss, params, batch, batch_size=1),
    }
    return model.logits(params, batch), model.token_losses(params, batch), derivatives


def differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> list[Difference]:
    """Return the difference of every array, in the order of ``ours``, by layer.

    Raises:
      ValueError: The two do not hold the same arrays.
    """
    if set(ours) != set(theirs):
        raise ValueError(
            f"only one side has {', '.join(sorted(set(ours) ^ set(theirs)))}"
        )

    def difference(item: str) -> Difference:
        a, b = (np.asarray(side[item], np.float64) for side in (ours, theirs))
        gap, size = np.linalg.norm(a - b), np.linalg.norm(b)
        kind = item if item in TOLERANCES else item.split(" ")[0]
        # Where torch has exact zeros, ours must be exact zeros too.
        relative = gap / size if size else (0.0 if gap == 0 else float("inf"))
        return Difference(
            item, float(np.abs(a - b).max()), float(relative), *TOLERANCES[kind]
        )

    return [difference(item) for item in sorted(ours, key=by_layer)]


def by_layer(item: str) -> tuple:
    """Order logits, losses, gradient, HVP, Fisher; in each, layer after layer."""
    kind, _, name = (item, "", "") if item in TOLERANCES else item.partition(" ")
    parts = name.split(".")
    layer = int(parts[1]) if parts[0] == "h" else {"ln_f": 1_000_000}.get(parts[0], -1)
    return list(TOLERANCES).index(kind), layer, name


def table_rows(found: Iterable[Difference]) -> list[dict]:
    """Return a row for each array; of HVP and Fisher, for the worst leaf only."""
    found = list(found)
    rows = [d for d in found if not d.item.startswith(("hvp", "fisher"))]
    for kind in ("hvp", "fisher"):
        leaves = [d for d in found if d.item.startswith(kind)]
        rows.append(max(leaves, key=lambda d: (not d.within, d.relative)))
    return [
        {
            "item": d.item if d in rows[:-2] else f"worst {d.item}",
            "absolute": f"{d.absolute:.1e}",
            "relative": f"{d.relative:.1e}",
            "tolerance": f"{d.tolerance:.0e} {d.measure[:3]}",
            "ok": d.within,
        }
        for d in rows
    ]
