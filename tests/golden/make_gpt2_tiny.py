"""Make gpt2_tiny.npz, torch's numbers for a small odd GPT-2 with random weights.

Run once, from the root of the repository: python tests/golden/make_gpt2_tiny.py
The file tells its own versions; what stands in it is listed in ``main``.
"""

import importlib.metadata
import platform
import tempfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).with_name("gpt2_tiny.npz")
# Odd on purpose: 3 heads of 5, a feed-forward width that is no multiple of anything.
SHAPE = dict(vocab_size=61, n_positions=16, n_embd=15, n_layer=2, n_head=3, n_inner=23)
TOKENS = dict(bos_token_id=60, eos_token_id=60)


def main() -> None:
    import torch
    import transformers

    from jaxunlearn.models.checkpoints.parity import random_batch
    from jaxunlearn.models.checkpoints.torch_reference import torch_quantities

    torch.manual_seed(0)
    config = transformers.GPT2Config(**SHAPE, **TOKENS, layer_norm_epsilon=1e-3)
    model = transformers.GPT2LMHeadModel(config)
    parameters = {
        name.removeprefix("transformer."): value
        for name, value in model.named_parameters()
    }
    rng = np.random.default_rng(0)
    direction = {}
    with torch.no_grad():
        for name, value in parameters.items():
            # Far from the start of training, so that every term of the model counts.
            value += 0.2 * torch.randn(value.shape)
            direction[name] = rng.normal(size=value.shape).astype(np.float32)
    batch = random_batch(SHAPE["vocab_size"], 3, SHAPE["n_positions"], seed=0)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        quantities = torch_quantities(Path(directory), batch, direction)
        config_json = (Path(directory) / "config.json").read_text()
    packages = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "transformers", "numpy")
    ]
    np.savez_compressed(
        OUT,
        versions=np.array(
            ", ".join([f"python {platform.python_version()}", *packages])
        ),
        config=np.array(config_json),
        **{f"batch/{name}": value for name, value in batch.items()},
        **{f"params/{n}": value.detach().numpy() for n, value in parameters.items()},
        **{f"direction/{name}": value for name, value in direction.items()},
        **{f"torch/{name}": value for name, value in quantities.items()},
    )
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
