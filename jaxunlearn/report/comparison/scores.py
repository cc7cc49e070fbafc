"""Which scores lead a comparison, which way each is better, how far from retraining.

The retrained model never saw what was to be forgotten: its scores are what unlearning
should come to. Further is not better: a model whose loss on the forgotten examples is
higher than the retrained model's gives them away, too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxunlearn.report.comparison.run import ComparedRun
from jaxunlearn.report.kit.tables import text_of

NEAR, HIGH, LOW, ZERO = "near", "high", "low", "zero"
MARKS = {
    NEAR: ("◎", "near retrained"),
    HIGH: ("↑", "higher is better"),
    LOW: ("↓", "lower is better"),
    ZERO: ("◎", "near 0"),
}
"""A direction's sign and its words."""


class Score(NamedTuple):
    """How a score is called and read."""

    label: str
    better: str | None = None  # one of MARKS; None where we do not know
    meaning: str = ""
    comparison: bool = False  # itself a comparison with the retrained model


EXTRACTION = (
    "share of a forgotten answer that the model writes out by itself once it is given "
    "the rest; 1 is all of it"
)
LEADING: Mapping[str, Score] = {
    "extraction_strength": Score("extraction strength", NEAR, EXTRACTION),
    "forget_extraction_strength": Score("extraction strength", NEAR, EXTRACTION),
    "uds": Score(
        "hidden states (UDS)",
        HIGH,
        "how far the knowledge is gone from the hidden states: 0 as before, 1 as in "
        "the retrained model",
        comparison=True,
    ),
    "forget_loss": Score(
        "forget loss",
        NEAR,
        "mean cross-entropy on the examples to forget, nats a token",
    ),
    "retain_loss": Score(
        "retain loss",
        LOW,
        "mean cross-entropy on the examples to keep, nats a token",
    ),
    "model_utility": Score(
        "model utility",
        HIGH,
        "harmonic mean of probability, ROUGE and truth ratio on what was to be kept",
    ),
    "forget_quality": Score(
        "forget quality",
        HIGH,
        "p-value of a two-sample Kolmogorov-Smirnov test that truth ratios come from "
        "the retrained model; below 0.05 the two differ",
        comparison=True,
    ),
    "privleak": Score(
        "PrivLeak",
        ZERO,
        "Min-K attack against the retrained model's, per cent: below 0 too little was "
        "forgotten, above 0 too much",
        comparison=True,
    ),
    "mia_min_k_auc": Score(
        "Min-K AUC",
        NEAR,
        "how well low token probabilities tell forgotten from never-seen examples: 1 "
        "always, 0.5 not at all",
    ),
}
"""The scores of the summary, in its order."""


class Compared(NamedTuple):
    """A score beside the retrained model's.

    Attributes:
      value: The run's; None where it has none.
      low: Lower end of its 95 % interval, or None.
      high: Upper end.
      reference: The retrained model's, or None.
      difference: value - reference, or None.
      half_widths: The size of the difference over half the width of the reference's
        own 95 % interval, or None: up to 1 cannot be told from it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    difference: float | None = None
    half_widths: float | None = None


def compared(run: ComparedRun, score: str) -> Compared:
    """Return one score of a run, and how far it is from the retrained model's.

    Args:
      run: The run.
      score: The score's name in its file.

    Returns:
      The value and what could be compared.

    >>> reference = {"scores": {"a": 2.0}, "intervals": {"a": [1.5, 2.5]}}
    >>> run = ComparedRun("x", {"a": 3.0}, {"reference": reference})
    >>> compared(run, "a")[3:]
    (2.0, 1.0, 2.0)
    """
    value = run.scores.get(score)
    low, high = interval(run.block("intervals"), score)
    retrained = run.block("reference")
    reference = retrained.get("scores", {}).get(score)
    if value is None or reference is None:
        return Compared(value, low, high, reference)
    difference = value - reference
    least, most = interval(retrained.get("intervals") or {}, score)
    half_widths = None
    if least is not None and most is not None and most > least:
        half_widths = abs(difference) / ((most - least) / 2)
    return Compared(value, low, high, reference, difference, half_widths)


def interval(
    intervals: Mapping[str, Sequence[float | None]], score: str
) -> tuple[float | None, float | None]:
    """Return the two finite ends of a score's interval, or None and None."""
    ends = intervals.get(score) or ()
    if len(ends) != 2 or not all(finite(end) for end in ends):
        return None, None
    return ends[0], ends[1]


def finite(value: float | None) -> bool:
    """Return whether there is a number, and a finite one."""
    return value is not None and math.isfinite(value)


def leading_scores(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the scores of the summary that any run has a number for."""
    return [
        score
        for score in LEADING
        if any(run.scores.get(score) is not None for run in runs)
    ]


def other_scores(runs: Sequence[ComparedRun]) -> list[str]:
    """Return every score beyond the summary's that any run has a number for."""
    names = dict.fromkeys(
        name
        for run in runs
        for name, value in run.scores.items()
        if value is not None and name not in LEADING
    )
    return list(names)


def label_of(score: str) -> str:
    """Return a score's name for readers.

    >>> label_of("forget_loss"), label_of("my_score")
    ('forget loss', 'my score')
    """
    return LEADING[score].label if score in LEADING else score.replace("_", " ")


def labels_of(scores: Sequence[str]) -> dict[str, str]:
    """Name for readers, all different.

    >>> labels_of(["a_b", "a b", "c_d"])
    {'a_b': 'a_b', 'a b': 'a b', 'c_d': 'c d'}
    """
    labels = [label_of(score) for score in scores]
    return {
        score: label if labels.count(label) == 1 else score
        for score, label in zip(scores, labels, strict=True)
    }


def best(runs: Sequence[ComparedRun], score: str) -> set[str]:
    """Return the names of the runs that are best in a score.

    By its direction: highest, lowest, nearest to 0, or nearest to the retrained model,
    each run to its own. Empty where fewer than two runs can be ranked, where all are
    equal, or where a score has no known direction.
    """
    better = LEADING[score].better if score in LEADING else None
    ranks = {}
    for run in runs:
        found = compared(run, score)
        value = {
            HIGH: None if found.value is None else -found.value,
            LOW: found.value,
            ZERO: None if found.value is None else abs(found.value),
            NEAR: None if found.difference is None else abs(found.difference),
        }.get(better or "")
        if finite(value):
            ranks[run.name] = value
    if len(set(ranks.values())) < 2:
        return set()
    least = min(ranks.values())
    return {name for name, rank in ranks.items() if rank == least}


def sentence_of(run: ComparedRun) -> str:
    """Return what the leading scores and the attacks say of a run, in sentences."""
    found = {s: compared(run, s) for s in LEADING}
    judged = {
        score: one
        for score, one in found.items()
        if finite(one.half_widths) and not LEADING[score].comparison
    }
    known = {s: c for s, c in found.items() if c.value is not None}
    broken = [s for s, c in known.items() if not finite(c.value)]
    parts = []
    if broken:
        names = ", ".join(map(label_of, broken))
        parts.append(f"Not a finite number: {names}.")
    if judged:
        within = sum(c.half_widths <= 1 for c in judged.values())
        furthest = max(judged, key=lambda score: judged[score].half_widths)
        parts.append(
            f"{within} of {len(judged)} scores lie within the retrained model’s "
            f"95 % interval; furthest from it is {label_of(furthest)}, "
            f"{times(judged[furthest].half_widths)} half-widths away."
        )
    elif not run.block("reference"):
        parts.append("No retrained model was measured, so nothing says how far it is.")
    attacks = [attack for attack in run.attacks if attack.get("recovers") is not None]
    if attacks:
        back = [attack["name"] for attack in attacks if attack["recovers"]]
        parts.append(
            f"{len(back)} of {len(attacks)} attacks get more out of it than out of the "
            f"retrained model{': ' + ', '.join(back) if back else ''}."
        )
    return " ".join(parts)


def short(value: float | None) -> str:
    """Return a number with three digits; large ones as ``text_of`` writes them.

    >>> short(0.12345), short(-2.0), short(12345.6), short(None)
    ('0.123', '−2', '12,346', '–')
    """
    if value is None or not math.isfinite(value) or abs(value) >= 1000:
        return text_of(value).replace("-", "−")
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return text.replace("-", "−")


def difference_text(difference: float) -> str:
    """Return a difference with its sign and three digits.

    >>> difference_text(0.0213), difference_text(-3.0), difference_text(0.0)
    ('+0.0213', '−3', '0')
    """
    return ("+" if difference > 0 else "") + short(difference)


def times(half_widths: float) -> str:
    """Return a number of half-widths with two digits.

    >>> times(0.53), times(12.34), times(1234.0)
    ('0.53', '12', '1,234')
    """
    return f"{half_widths:.2g}" if half_widths < 99.5 else f"{half_widths:,.0f}"
