"""The shape and options of a GPT-2, under Hugging Face's names."""

import dataclasses

import jax
import jax.numpy as jnp

ACTIVATIONS = {
    # "gelu_new" is the tanh form that GPT-2 was trained with; "gelu" is exact.
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


DROPOUT = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
"""The fields that hold dropout rates."""

SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
"""The fields that say which parameters a model may have."""

MOST, MOST_LAYERS = 2**31 - 1, 10_000
"""The largest size, which an int32 indexes, and the most layers, which have names."""
LARGEST = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Shape and options of a GPT-2, in Hugging Face's names; the last three are ours.

    Attributes:
      n_inner: Feed-forward width F; None is 4 D.
      attention: ``"xla"`` (differentiable to any order) or ``"cudnn"`` (NVIDIA GPUs,
        bfloat16 or float16, reverse mode only: training and gradients, no
        Hessian-vector products, no forward-mode scores).
      remat: Recompute each whole block in the backward pass; else its matrix products
        are kept.
      dtype: The dtype of the computation, ``"float32"`` or ``"bfloat16"``, whatever the
        parameters are stored in, so that no number depends on that; None takes theirs.
        Softmax, normalization and loss are float32 whatever it is.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256
    attention: str = "xla"
    remat: bool = False
    dtype: str | None = "float32"

    def __post_init__(self):
        """Refuse a shape that no GPT-2 has."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            most = MOST_LAYERS if name == "n_layer" else MOST
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)}: must be 1 to {most}")
        if self.n_inner is not None and not 1 <= self.n_inner <= MOST:
            raise ValueError(f"n_inner={self.n_inner}: must be 1 to {MOST}, or None")
        for name in DROPOUT:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)}: a dropout rate is at least 0 and "
                    f"below 1"
                )
        if not 0 < self.layer_norm_epsilon <= LARGEST:
            raise ValueError(
                f"layer_norm_epsilon={self.layer_norm_epsilon}: must be a finite "
                f"number above 0"
            )
        if not 0 <= self.initializer_range <= LARGEST:
            raise ValueError(
                f"initializer_range={self.initializer_range}: must be a finite number, "
                f"at least 0"
            )
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}"
            )
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function={self.activation_function!r} is not supported; "
                f"known: {', '.join(ACTIVATIONS)}"
            )
        if self.attention not in ("xla", "cudnn"):
            raise ValueError(f'attention={self.attention!r}: must be "xla" or "cudnn"')
