"""Hugging Face checkpoints: layouts, names both ways, ``config.json``."""
