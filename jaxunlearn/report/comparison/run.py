"""A run as a comparison sees it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxunlearn.report.comparison.track_file import Tracked


class Curve(NamedTuple):
    """Losses along something.

    Attributes:
      x: The key of ``rows`` that it runs along; every other number is a loss.
      x_label: What that is, with its unit.
      rows: Dicts in the order of ``x``.
    """

    x: str
    x_label: str
    rows: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """What is known of a run.

    Attributes:
      name: What the page calls it.
      scores: Score -> number, or None where it could not be had.
      blocks: The other parts of the scores file, by name.
      attacks: The attacks that were carried out.
      not_run: Attack -> why it was not.
      curves: Losses over steps or over tried step sizes, by name.
      about: Form of a file -> who wrote it, how.
      sources: The files.
      track: Influence through training, where it was followed.
    """

    name: str
    scores: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    blocks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    attacks: Sequence[Mapping[str, Any]] = ()
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()
    track: Tracked | None = None

    def block(self, name: str) -> Any:
        """Return a part of the scores file; an empty dict where there is none."""
        return self.blocks.get(name) or {}
