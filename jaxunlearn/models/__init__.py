"""Language models as pure functions, and their checkpoints; imported on first use."""

from importlib import import_module
from typing import Any

_HOME = {
    "GPT2": "gpt2",
    "GPT2Config": "gpt2",
    "generate": "generation",
    "load_config": "config_file",
    "load_pretrained": "huggingface",
    "save_pretrained": "saving",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
