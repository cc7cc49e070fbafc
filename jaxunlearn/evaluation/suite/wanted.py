"""Scores that have to be there: what each needs, refused before models are read."""

import difflib
from collections.abc import Collection, Mapping, Sequence

from jaxunlearn.evaluation.suite.measurement import HOLDOUT
from jaxunlearn.evaluation.text.answer_log import Scores

SETS = ("forget", "retain", "real_authors", "world_facts", HOLDOUT)
WRONG = tuple(f"{name}.perturbed_answer" for name in SETS[1:4])
RATIOS = ("forget.paraphrased_answer", "forget.perturbed_answer")
NEEDS: dict[str, tuple[str, ...]] = {
    "uds": ("original", "reference"),
    "logit_lens_depth": ("original", "reference"),
    "memorization": RATIOS,
    **dict.fromkeys(("privleak", "s_mia", "privacy"), (HOLDOUT, "reference")),
    **dict.fromkeys(
        ("forget_quality", "forget_quality_log10", "forget_quality_statistic"),
        ("reference", *RATIOS),
    ),
    **dict.fromkeys(("model_utility", "model_utility_arithmetic"), SETS[1:4] + WRONG),
}
"""What a score needs beyond the set in its name."""

GIVEN_BY = {
    "reference": "reference=DIR, retrain=N or reference_logs=FILE",
    "original": "original=DIR",
    "gradient_norm": "gradient_norm",
    **{name: f"{name}=FILE" for name in SETS},
}
"""By which argument that is given."""


def check_metric(name: str, known: Collection[str]) -> None:
    """Refuse a score that there is not, and name those that are called alike."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of {sorted(known)}"
    raise ValueError(f"metrics={name}: there is no such score; {hint}")


def check_wanted(
    metrics: Sequence[str],
    sets: Mapping[str, Sequence[dict]],
    given: Collection[str],
) -> None:
    """Refuse scores that need what was not given.

    Args:
      metrics: The scores.
      sets: Set name -> records.
      given: What there is of ``reference``, ``original`` and ``gradient_norm``.
    """

    def lacking(need: str) -> str | None:
        """Return the argument without which a score cannot be had."""
        name, _, field = need.partition(".")
        if not field:
            return None if need in given or need in sets else GIVEN_BY[need]
        if any(record.get(field) for record in sets.get(name, ())):
            return None
        return f"{field} in the records of {GIVEN_BY[name]}"

    for score in metrics:
        for need in needs_of(score):
            argument = lacking(need)
            if argument is not None:
                raise ValueError(f"metrics={score} needs {argument}")


def needs_of(score: str) -> tuple[str, ...]:
    """Return what a score needs: sets, fields of their records, models."""
    if score in NEEDS:
        return NEEDS[score]
    if score.startswith("mia_"):
        more = ("reference", "gradient_norm")
        return (HOLDOUT, *(need for need in more if score.startswith(f"mia_{need}_")))
    (name,) = (name for name in SETS if score.startswith(f"{name}_"))
    fields = {"truth": "perturbed_answer", "paraphrased": "paraphrased_answer"}
    kind = score.removeprefix(f"{name}_").partition("_")[0]
    return (name, f"{name}.{fields[kind]}") if kind in fields else (name,)


def refuse_missing(metrics: Sequence[str], scores: Scores) -> None:
    """Refuse if a score that has to be there is not.

    Raises:
      ValueError: Naming what it lacks.
    """
    for name in metrics:
        if name in scores.missing:
            raise ValueError(f"metrics={name}: {scores.missing[name]}")
        check_metric(name, scores.values)
