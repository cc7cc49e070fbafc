"""The families of models whose checkpoints are read and written, one row each."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.gpt2_config import GPT2Config


class Family(NamedTuple):
    """How Hugging Face's files hold a family.

    Attributes:
      config: The configuration, a dataclass whose fields have the names of
        ``config.json``.
      model: From a configuration to the model.
      architecture: The class of transformers that reads the files.
      names: Pairs of a leaf's name and its name in the files, ``{n}`` the number of a
        block. The same pairs serve reading and writing.
      prefix: What stands in front of the names of a model with its head.
      head: The head's name in the files, and that of the table it is tied to.
      ignored: Names in the files that hold no weights.
      transposed: Of which leaves the files hold the transpose.
      required: Fields without which there is no model.
      aliases: Other names of fields.
      copies: Further keys that are written: the field whose value they repeat.
      supported_only: Options of Hugging Face's: the only value that is supported, and
        why.
    """

    config: type[GPT2Config]
    model: type[GPT2]
    architecture: str
    names: tuple[tuple[str, str], ...]
    prefix: str
    head: tuple[str, str]
    ignored: re.Pattern[str]
    transposed: Callable[[str], bool]
    required: tuple[str, ...]
    aliases: Mapping[str, str]
    copies: Mapping[str, str]
    supported_only: Mapping[str, tuple[Any, str]]


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        config=GPT2Config,
        model=GPT2,
        architecture="GPT2LMHeadModel",
        names=(
            ("wte/embedding", "wte.weight"),
            ("wpe/embedding", "wpe.weight"),
            ("h/{n}/ln_1/scale", "h.{n}.ln_1.weight"),
            ("h/{n}/ln_1/bias", "h.{n}.ln_1.bias"),
            ("h/{n}/attn/c_attn/kernel", "h.{n}.attn.c_attn.weight"),
            ("h/{n}/attn/c_attn/bias", "h.{n}.attn.c_attn.bias"),
            ("h/{n}/attn/c_proj/kernel", "h.{n}.attn.c_proj.weight"),
            ("h/{n}/attn/c_proj/bias", "h.{n}.attn.c_proj.bias"),
            ("h/{n}/ln_2/scale", "h.{n}.ln_2.weight"),
            ("h/{n}/ln_2/bias", "h.{n}.ln_2.bias"),
            ("h/{n}/mlp/c_fc/kernel", "h.{n}.mlp.c_fc.weight"),
            ("h/{n}/mlp/c_fc/bias", "h.{n}.mlp.c_fc.bias"),
            ("h/{n}/mlp/c_proj/kernel", "h.{n}.mlp.c_proj.weight"),
            ("h/{n}/mlp/c_proj/bias", "h.{n}.mlp.c_proj.bias"),
            ("ln_f/scale", "ln_f.weight"),
            ("ln_f/bias", "ln_f.bias"),
        ),
        prefix="transformer.",
        head=("lm_head.weight", "wte.weight"),
        # The causal mask, which old checkpoints hold; not attn.c_attn.bias.
        ignored=re.compile(r"h\.\d+\.attn\.(masked_)?bias"),
        # Conv1D kernels are (in, out), as Linen's.
        transposed=lambda name: False,
        required=("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"),
        # As in transformers' GPT2Config.attribute_map.
        aliases={
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        },
        copies={"n_ctx": "n_positions"},
        supported_only={
            "is_encoder_decoder": (False, "the model is a decoder"),
            "add_cross_attention": (False, "there is no encoder to attend to"),
            "tie_word_embeddings": (True, "the output head is the token embedding"),
            "scale_attn_by_inverse_layer_idx": (
                False,
                "every layer scales its scores alike",
            ),
            "reorder_and_upcast_attn": (False, "scores are always float32"),
            "quantization_config": (None, "quantised weights have no gradient"),
            "pruned_heads": ({}, "every layer has n_head heads"),
        },
    ),
}
"""``model_type`` of a ``config.json`` -> the family."""


def family_name(config: Any) -> str:
    """Return the name of the family that a configuration is of."""
    return next(
        name for name, row in FAMILIES.items() if isinstance(config, row.config)
    )


def family(config: Any) -> Family:
    """Return the family that a configuration is of."""
    return FAMILIES[family_name(config)]


def file_name(row: Family, name: str) -> str:
    """Return the name in the files of a leaf, or of one layer of a stacked leaf.

    A leaf that the family has not keeps its own, with dots.

    >>> [file_name(FAMILIES["gpt2"], name) for name in ("h/0/ln_1/scale", "x/y")]
    ['h.0.ln_1.weight', 'x.y']
    """
    for leaf, theirs in row.names:
        pattern = re.escape(leaf).replace(r"\{n\}", r"(?P<n>\d+)")
        match = re.fullmatch(pattern, name)
        if match:
            return theirs.format(**match.groupdict())
    return name.replace("/", ".")
