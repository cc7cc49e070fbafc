"""``jaxunlearn parity``: does JAX compute from a checkpoint what torch computes?"""

import functools
from collections.abc import Iterable
from pathlib import Path

import jax

from jaxunlearn.models.checkpoints.parity import Difference
from jaxunlearn.models.decoder import Decoder
from jaxunlearn.types import Batch, Params


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
    from jaxunlearn.files import write_json
    from jaxunlearn.models.checkpoints.huggingface import (
        file_tensors,
        load_pretrained,
        local_directory,
        parameter_shapes,
    )
    from jaxunlearn.models.checkpoints.parity import (
        differences,
        jax_quantities,
        random_batch,
        random_direction,
    )
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities
    from jaxunlearn.provenance import versions
    from jaxunlearn.report.kit.tables import console_table

    directory = local_directory(model)
    gpt2, params = load_pretrained(directory, dtype="float32")
    config = gpt2.config
    if not 1 <= batch_size <= MOST:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, at most {MOST}")
    check_number("seed", seed, 0, 2**32 - 1)
    if not 8 <= length <= gpt2.positions:
        raise ValueError(
            f"length={length}: must be from 8 to n_positions={gpt2.positions}"
        )
    batch = random_batch(config.vocab_size, batch_size, length, seed=seed)
    direction = random_direction(parameter_shapes(gpt2), seed=seed)
    theirs = torch_quantities(directory, batch, dict(file_tensors(gpt2, direction)))
    ours = jax_quantities(gpt2, params, batch, direction, derivatives)
    found = differences(ours, theirs)

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


def derivatives(
    model: Decoder, params: Params, batch: Batch, direction: Params
) -> dict[str, Params]:
    """Return the gradient, the product with the Hessian, and the Fisher diagonal."""
    from jaxunlearn.gradients import fisher_diagonal, hvp
    from jaxunlearn.models.decoder import per_example_loss

    loss = functools.partial(per_example_loss, model)
    return {
        "gradient": jax.grad(lambda p: loss(p, batch).mean())(params),
        "hvp": hvp(loss, params, batch, direction),
        "fisher": fisher_diagonal(loss, params, batch, batch_size=1),
    }


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
