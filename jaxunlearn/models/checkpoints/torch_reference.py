"""What torch makes of a GPT-2 checkpoint: the numbers that parity is measured against.

The loss is written out here a second time, in torch and without any of our code, so
that a mistake in ours cannot hide in both.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def torch_quantities(
    directory: Path,
    batch: Mapping[str, np.ndarray],
    direction: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return logits, losses and derivatives by Hugging Face's GPT2LMHeadModel.

    Args:
      directory: A checkpoint that torch reads; taken in float32, eager attention.
      batch: ``input_ids``, ``attention_mask`` and ``labels``, [B,T].
      direction: What the Hessian of the mean loss is multiplied with, by names without
        ``transformer.``.

    Returns:
      ``logits`` [B,T,V], ``token losses`` [B,T-1], and under ``gradient NAME``,
      ``hvp NAME`` and ``fisher NAME`` an array a parameter.

    Raises:
      ImportError: torch is not installed.
      ValueError: torch does not read the directory.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "parity compares with torch, which is not installed: "
            "pip install 'jaxunlearn[parity]'"
        ) from error
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        # Eager, since the fused attention has no second derivative.
        model = GPT2LMHeadModel.from_pretrained(directory, attn_implementation="eager")
    except OSError as error:
        raise ValueError(
            f"torch reads no weights in {directory}; load_pretrained and "
            f"save_pretrained make a model.safetensors of them ({error})"
        ) from error
    model = model.float().eval()
    parameters = {
        name.removeprefix("transformer."): value
        for name, value in model.named_parameters()
    }
    ids, mask, labels = (
        torch.tensor(batch[name], dtype=torch.int64)
        for name in ("input_ids", "attention_mask", "labels")
    )

    def forward(rows: slice):
        logits = model(input_ids=ids[rows], attention_mask=mask[rows]).logits
        targets = labels[rows, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), targets, reduction="none"
        )
        return logits, losses, losses.sum(-1) / (targets != -100).sum(-1)

    def named(prefix: str, values) -> dict[str, np.ndarray]:
        arrays = (value.detach().numpy() for value in values)
        return {f"{prefix} {n}": a for n, a in zip(parameters, arrays, strict=True)}

    logits, token_losses, losses = forward(slice(None))
    leaves = list(parameters.values())
    gradient = torch.autograd.grad(losses.mean(), leaves, create_graph=True)
    vectors = [torch.tensor(direction[name]) for name in parameters]
    product = torch.autograd.grad(gradient, leaves, grad_outputs=vectors)
    fisher = [torch.zeros_like(leaf) for leaf in leaves]
    for i in range(len(ids)):
        _, _, loss = forward(slice(i, i + 1))
        for total, g in zip(fisher, torch.autograd.grad(loss[0], leaves), strict=True):
            total += g * g / len(ids)
    return {
        "logits": logits.detach().numpy(),
        "token losses": token_losses.detach().numpy(),
        **named("gradient", gradient),
        **named("hvp", product),
        **named("fisher", fisher),
    }
