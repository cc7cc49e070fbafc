"""The file of attacks: what it holds, and what of an earlier one still counts."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxunlearn.evaluation.attacks.inputs import Inputs, Settings
from jaxunlearn.evaluation.display import Display
from jaxunlearn.json_shapes import check
from jaxunlearn.provenance import data_hash, params_hash, versions
from jaxunlearn.sealed import read_sealed, write_sealed

FORMAT = "jaxunlearn attack"

INTERVAL = {"value": float, "low?": float, "high?": float}
CURVES = {str: [{"x": None, "value": float, "low?": float, "high?": float}]}
ATTACK_SHAPE: Mapping[str, Any] = {
    "about?": {"versions?": {str: None}},
    "attacks": [
        {
            "name": str,
            "x": str,
            "metric": str,
            "higher_is_recovered?": bool,
            "curves": CURVES,
            "excess?": INTERVAL,
            "added?": INTERVAL,
            "recovers?": bool,
            "note?": str,
        }
    ],
    "not_run?": {str: str},
}
"""What a file of attacks holds, see :mod:`~jaxunlearn.json_shapes`."""


def about_attacks(
    inputs: Inputs, settings: Settings, told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what attacks are of; its ``inputs`` decides whether a file can be kept.

    Args:
      inputs: The models and records.
      settings: The attacks' numbers.
      told: What else to say of them: the command, how models were named.
    """
    models = [one for _, one in inputs.models()]
    fingerprint = {
        "models": [params_hash(one.params) for one in models],
        "records": {name: data_hash(found) for name, found in inputs.records.items()},
        "prefixes": inputs.prefixes,
        "settings": dataclasses.asdict(settings),
    }
    return {
        "format": FORMAT,
        "model": inputs.model.name,
        "name": inputs.model.name,
        "reference": ", ".join(one.name for one in inputs.references),
        **told,
        "versions": versions(),
        "inputs": fingerprint,
    }


def finished_attacks(path: Path, about: dict[str, Any], display: Display) -> list[dict]:
    """Return the entries that an earlier run with the same inputs wrote.

    Raises:
      ValueError: The file is damaged, or of another kind.
    """
    if not path.exists():
        return []
    earlier = read_sealed(
        path,
        attack_file,
        remedy="name another out=FILE, or delete it to attack again",
        unsealed=lambda found: True,  # as earlier versions wrote it
    )
    if earlier["about"].get("inputs") != json.loads(json.dumps(about["inputs"])):
        display.line(f"{path} is of other inputs or options and is written anew.")
        return []
    return earlier["attacks"]


def attack_file(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds, if it is one that attacks wrote."""
    about = found.get("about")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError("it is no attack file")
    check(found, ATTACK_SHAPE, "in it")
    return found


def write_attacks(path: Path, found: dict[str, Any]) -> None:
    """Write the file whole."""
    write_sealed(path, found)
