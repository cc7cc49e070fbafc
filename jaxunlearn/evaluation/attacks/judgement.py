"""What one attack got out of a model, beside what it gets from a reference."""

from jaxunlearn.evaluation.attacks import table
from jaxunlearn.evaluation.attacks.inputs import Inputs, Settings
from jaxunlearn.evaluation.attacks.recovered import Recovered, curve, recovery
from jaxunlearn.evaluation.attacks.table import Entry
from jaxunlearn.evaluation.display import SILENT, Display

LEVEL = 0.95
RESAMPLES = 5000
LEAST_EXCESS = 0.01
"""Of metrics that all go from 0 to 1; less is no recovery, however sure it is."""


def entries_of(
    name: str, inputs: Inputs, settings: Settings, display: Display = SILENT
) -> list[dict]:
    """Run one attack on every model; return what a file of attacks says of it.

    Args:
      name: Of the attack, see :data:`~.table.ATTACKS`.
      inputs: The models and records.
      settings: The attack's numbers.
      display: Where it tells what it is doing.

    Returns:
      An entry a curve of the attack: the curves by role, the excess over the reference
      that leaves the least, and whether the attack recovers anything.
    """
    attack = table.ATTACKS[name]
    runs: dict[str, list[tuple[str, list[Recovered]]]] = {}
    for role, one in inputs.models():
        with display.working(f"{name}: {role} {one.name}"):
            runs.setdefault(role, []).append(
                (one.name, attack.run(inputs, settings, one))
            )
    display.line(f"{name}: done")
    return [
        {"attack": name, **judged(entry, position, runs)}
        for position, entry in enumerate(attack.entries)
    ]


def judged(
    entry: Entry, position: int, runs: dict[str, list[tuple[str, list[Recovered]]]]
) -> dict:
    """Return one curve of an attack, judged beside the reference nearest to it."""
    ours = runs["model"][0][1][position]
    starts = {"starts_unattacked": entry.starts_unattacked}
    together = {"level": family_level(), "resamples": RESAMPLES, "least": LEAST_EXCESS}
    against = [
        (recovery(ours, found[position], **starts, **together), found, reference)
        for reference, found in runs["reference"]
    ]
    least, found, reference = min(against, key=lambda one: one[0].excess.low)
    theirs = found[position]
    # Only the verdict has to hold for all attacks together.
    alone = recovery(ours, theirs, **starts)
    curves = {"model": ours, "reference": theirs}
    if "original" in runs:
        curves["original"] = runs["original"][0][1][position]
    return {
        "name": entry.name,
        "x": entry.x,
        "metric": entry.metric,
        "higher_is_recovered": True,
        "curves": {
            of: [point._asdict() for point in curve(values)]
            for of, values in curves.items()
        },
        "excess": least.excess._asdict(),
        "unattacked": alone.unattacked and alone.unattacked._asdict(),
        "added": alone.added and alone.added._asdict(),
        "recovers": least.recovers,
        "reference": reference,
        "note": entry.note,
    }


def family_level() -> float:
    """Return the level of one interval by which all of them together have 95 %.

    Bonferroni's, over the entries of every attack, whichever are run: a dozen verdicts
    at 95 % each would find something in every other model that never knew a thing.
    """
    entries = sum(len(attack.entries) for attack in table.ATTACKS.values())
    return 1 - (1 - LEVEL) / entries
