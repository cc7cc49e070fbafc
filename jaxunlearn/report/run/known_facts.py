"""Which facts the models of a run answer right, counted from its results.

``results["facts"]`` holds, of the examples to "forget" and of those to keep ("retain"),
for each model one truth value a fact: whether it answers it by its value.
"""

from collections.abc import Mapping
from typing import NamedTuple

FACTS_TOLERANCE = 0.02
"""The share of everybody else's facts that may be lost and the rest count as kept."""


class Count(NamedTuple):
    """Some of several."""

    number: int
    of: int

    def __str__(self) -> str:
        """Say it as tables do."""
        return f"{self.number} of {self.of}"


def known(results: Mapping, model: str, kind: str = "forget") -> Count | None:
    """Return how many facts of a kind a model knows; None where it was not asked."""
    found = results.get("facts", {}).get(kind, {}).get(model)
    return None if found is None else Count(sum(found), len(found))


def kept(results: Mapping, model: str, trained: str) -> Count:
    """Return how many of the kept facts that were known before a model knows."""
    facts = results["facts"]["retain"]
    pairs = zip(facts[trained], facts[model], strict=True)
    both = [after for before, after in pairs if before]
    return Count(sum(both), len(both))


def beyond(results: Mapping, model: str, retrained: str) -> int:
    """Return how many facts to forget a model knows that the retrained one does not.

    Without a retrained model, how many it knows at all.
    """
    facts = results["facts"]["forget"]
    if retrained not in facts:
        return sum(facts[model])
    pairs = zip(facts[model], facts[retrained], strict=True)
    return sum(after and not without for after, without in pairs)
