"""Kronecker factors in a file.

An ``.npz`` of ``bases/<matrix>/left|right``, ``eigenvalues/<matrix>``, ``weight`` and
``about``: JSON with the matrices' leaves, the options, and a hash of the parameters.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxunlearn.files import parse_json, read_arrays, write_arrays
from jaxunlearn.gradients.kronecker.eigendecomposition import Basis
from jaxunlearn.gradients.kronecker.fit import KroneckerFactors
from jaxunlearn.gradients.kronecker.layout import Matrix
from jaxunlearn.provenance import params_hash
from jaxunlearn.types import Params


def save_factors(path: Path | str, factors: KroneckerFactors, params: Params) -> None:
    """Write factors, under a temporary name and then renamed.

    Args:
      path: An ``.npz`` file.
      factors: From ``fit_kfac`` or ``fit_ekfac``.
      params: The parameters that they were fitted at: their hash is written too.
    """
    path = Path(path)
    arrays = {"weight": np.asarray(factors.weight)}
    for name, basis in factors.bases.items():
        for side, value in basis._asdict().items():
            if value is not None:
                arrays[f"bases/{name}/{side}"] = np.asarray(value)
        arrays[f"eigenvalues/{name}"] = np.asarray(factors.eigenvalues[name])
    about = {
        "matrices": [matrix._asdict() for matrix in factors.matrices],
        "method": factors.method,
        "fisher": factors.fisher,
        "layers": factors.layers,
        "params": params_hash(params),
    }
    write_arrays(path, {"about": json.dumps(about), **arrays})


def load_factors(path: Path | str, params: Params) -> KroneckerFactors:
    """Return the factors that :func:`save_factors` wrote.

    Args:
      path: The file.
      params: The parameters that they are for.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file holds no factors, or those of other parameters.
    """
    path = Path(path)
    arrays = read_arrays(path, remedy="fit them again")
    try:
        about = parse_json(str(arrays.pop("about")))
        matrices = tuple(Matrix(**read(entry)) for entry in about["matrices"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no Kronecker factors ({error}): fit them again"
        ) from error
    if about["params"] != params_hash(params):
        raise ValueError(
            f"{path} holds factors of other parameters (hash {about['params'][:12]}, "
            f"given {params_hash(params)[:12]}): fit them at these"
        )

    def array(name: str):
        return jnp.asarray(arrays[name]) if name in arrays else None

    names = [matrix.name for matrix in matrices]
    return KroneckerFactors(
        {n: Basis(*(array(f"bases/{n}/{s}") for s in Basis._fields)) for n in names},
        {n: jnp.asarray(arrays[f"eigenvalues/{n}"]) for n in names},
        jnp.asarray(arrays["weight"]),
        matrices,
        about["method"],
        about["fisher"],
        about["layers"],
    )


def read(entry: dict) -> dict:
    """Return a matrix's fields with tuples for JSON's lists."""

    def as_tuple(value):
        return tuple(map(as_tuple, value)) if isinstance(value, list) else value

    return {name: as_tuple(value) for name, value in entry.items()}
