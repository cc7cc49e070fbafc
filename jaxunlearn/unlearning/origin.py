"""Which run a model is of, and which models were unlearned from it."""

from pathlib import Path
from typing import Any

from jaxunlearn.files import read_json, sha256_of
from jaxunlearn.provenance import params_hash
from jaxunlearn.training.runs import check_model

RESULT = "unlearning.json"
"""The file of an unlearned model's folder that says how it came about."""


def run_hash(run: Any) -> str:
    """Return the SHA-256 of a run's description, which decides its trained model."""
    return sha256_of(run.directory / "run.json")


def check_origin(run: Any, directory: Path, params: Any) -> None:
    """Refuse a model that is neither the run's own nor unlearned from it.

    Whether it was unlearned from it says the ``unlearning.json`` beside its weights,
    which holds the hash of just these.
    """
    if (directory / RESULT).exists():
        told = read_json(directory / RESULT)
        origin = {"run_sha256": run_hash(run), "params_sha256": params_hash(params)}
        if isinstance(told, dict) and told.get("result") == origin:
            return
    check_model(run, params)
