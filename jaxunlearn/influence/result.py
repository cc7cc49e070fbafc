"""What influence scores are, with all that is needed to read them; and their file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn.files import json_text, parse_json, read_arrays, write_arrays
from jaxunlearn.sealed import typed

SIGN = (
    "positive: a proponent, training on the example lowered the query's loss; "
    "removing it would raise it"
)
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class InfluenceScores:
    """Influence of n training examples on Q queries.

    Attributes:
      scores: float32[Q,n]; row and column order of the data, padding left out.
      method: Its name in ``METHODS``.
      coverage: Which parameters the scores see: ``layers`` (the expression, None is
        all), ``parameters`` and ``of`` (how many, of how many; None of how many where
        activations alone count), ``tapped`` (how many of them by taps; of activations,
        in the matrices whose inputs were seen), and ``checkpoints``.
      curvature: What was inverted, such as ``"fisher"``; ``"none"``.
      damping: What was added to it: a number, or layer -> number; None if nothing.
      notes: What the solvers said of each query; empty if there was no solver.
      index: int64[n], the positions of the training examples in their data set.
      by_layer: Layer -> its part of the scores, float32[Q,n]; None if not asked for.
      by_token: float32[Q,n,T], each training token's part; None if not asked for.
      groups: Group -> the sum over its training examples, float32[Q]; None without.
      sign: How to read the sign.
      provenance: What the scores were made from (hashes, files, versions), where the
        caller noted it.
      directions: Leaf name -> float32[Q,...], of which the scores are the products with
        the training gradients; None if not asked for. Not in the file.
    """

    scores: np.ndarray
    method: str
    coverage: dict[str, Any]
    curvature: str
    damping: Any
    notes: tuple[str, ...]
    index: np.ndarray
    by_layer: dict[str, np.ndarray] | None = None
    by_token: np.ndarray | None = None
    groups: dict[str, np.ndarray] | None = None
    sign: str = SIGN
    provenance: dict[str, Any] | None = None
    directions: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Described:
    """What a file of scores says beside its arrays."""

    format: int
    method: str
    coverage: dict[str, Any]
    curvature: str
    damping: Any
    notes: tuple[str, ...]
    sign: str
    provenance: dict[str, Any] | None = None


def save_scores(path: Path | str, found: InfluenceScores) -> None:
    """Write scores to an ``.npz``, under a temporary name and then renamed.

    Its arrays: ``scores``, ``index``, ``by_token`` where present, ``layer:<name>`` and
    ``group:<name>``, and ``description``, a JSON text with ``format``, ``method``,
    ``coverage``, ``curvature``, ``damping``, ``notes``, ``sign`` and ``provenance``.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path={path}: scores are an .npz file, end its name so")
    description = {
        "format": FORMAT,
        "method": found.method,
        "coverage": found.coverage,
        "curvature": found.curvature,
        "damping": found.damping,
        "notes": list(found.notes),
        "sign": found.sign,
        "provenance": found.provenance,
    }
    arrays = {"scores": found.scores, "index": found.index}
    if found.by_token is not None:
        arrays["by_token"] = found.by_token
    for kind, parts in (("layer", found.by_layer), ("group", found.groups)):
        arrays |= {f"{kind}:{name}": part for name, part in (parts or {}).items()}
    write_arrays(path, {"description": json_text(description), **arrays})


def load_scores(path: Path | str) -> InfluenceScores:
    """Read what :func:`save_scores` wrote.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is no scores file, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"scores={path}: no such file")
    arrays = read_arrays(path, remedy="score again")
    try:
        text = str(arrays.pop("description"))
        told = typed(parse_json(text), Described, later=("provenance",))
        scores, index = arrays["scores"], arrays["index"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no file of influence scores: {error}") from error
    if told.format > FORMAT:
        raise ValueError(
            f"{path} has format {told.format}; this version reads up to {FORMAT}: "
            f"update jaxunlearn"
        )

    def parts(kind: str) -> dict[str, np.ndarray] | None:
        chosen = {
            name.partition(":")[2]: array
            for name, array in arrays.items()
            if name.startswith(f"{kind}:")
        }
        return chosen or None

    return InfluenceScores(
        scores=scores,
        method=told.method,
        coverage=told.coverage,
        curvature=told.curvature,
        damping=told.damping,
        notes=told.notes,
        index=index,
        by_layer=parts("layer"),
        by_token=arrays.get("by_token"),
        groups=parts("group"),
        sign=told.sign,
        provenance=told.provenance,
    )
