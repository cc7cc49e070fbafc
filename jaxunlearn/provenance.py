"""What a result was made with: versions and hashes."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

PACKAGES = ("jaxunlearn", "jax", "jaxlib", "flax", "optax", "numpy", "transformers")


def versions() -> dict[str, str]:
    """Return the versions of Python, the packages and the device that compute here."""
    import jax

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}


def data_hash(records: Sequence[dict]) -> str:
    """Return the SHA-256 of records, their order and all their fields.

    >>> data_hash([{"text": "a"}])[:12]
    '7c24616314d4'
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def params_hash(params: Any) -> str:
    """Return the SHA-256 of a tree of arrays: names, dtypes, shapes and bits."""
    import jax
    import numpy as np

    digest = hashlib.sha256()
    for name, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
