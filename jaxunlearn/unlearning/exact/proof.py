"""What an exact replay came to, as a sealed file without texts."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from jaxunlearn.sealed import read_sealed, typed, write_sealed

RULE = (
    "the rows of forgotten examples are padding of weight 0; every other row, the "
    "order, the keys, the learning rates and the count of steps are as they were"
)
"""What stands in the place of a forgotten example; exactness is under this rule."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What a replay came to, and all that it is a function of; no texts.

    Attributes:
      rule: What stood in the place of forgotten examples.
      forget: Their positions in the run's data, in order.
      first_use: The first step, from 0, whose batch held one of them.
      checkpoint: Steps done where the replay began; 0 is the start.
      steps: Steps of the whole run.
      steps_replayed: Of these taken again.
      steps_saved: Of these not taken again.
      run: SHA-256 of data, tokenizer and start, model configuration and recipe.
      retained_sha256: Of the records that were not forgotten, in order.
      params_sha256: Of the parameters that the replay came to.
      versions: Of what computed it; others may round otherwise.
    """

    rule: str
    forget: tuple[int, ...]
    first_use: int
    checkpoint: int
    steps: int
    steps_replayed: int
    steps_saved: int
    run: Mapping[str, str]
    retained_sha256: str
    params_sha256: str
    versions: Mapping[str, str]


def differences(one: Proof, other: Proof, *, but: Collection[str] = ()) -> list[str]:
    """Return the fields in which two proofs differ, those named in ``but`` left out."""
    a, b = dataclasses.asdict(one), dataclasses.asdict(other)
    return [name for name in a if name not in but and a[name] != b[name]]


def write_proof(path: Path | str, proof: Proof) -> None:
    """Write a proof, with its own hash."""
    write_sealed(path, dataclasses.asdict(proof))


def read_proof(path: Path | str) -> Proof:
    """Read what :func:`write_proof` wrote.

    Raises:
      ValueError: It is damaged or was edited.
    """
    remedy = "delete its folder, and replay again"
    return read_sealed(path, lambda found: typed(found, Proof), remedy=remedy)
