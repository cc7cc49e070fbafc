"""What a score is worth, from its correlations over the seeds; pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper.results import difference, sign_of, summary

TRACKS, NO_BETTER, NOT = "tracks", "does not beat the loss", "does not track"
STATUSES = (NOT, NO_BETTER, TRACKS)  # from worst to best

LOSS, KEPT_LOSS = "loss", "kept loss"
BASELINES = (LOSS, KEPT_LOSS)
GROUP = "in the group"  # of an example, whether it is to be forgotten: known for free
CURVATURES = ("hvp", "inverse_hvp")
DOTS = ("gradient_dot", "stored_dot", "act_act", "act_grad")
TRUTHS = ("relearning", "extraction", "behaviour")
ALL = "all"  # examples of all sets

Correlations = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""Level -> truth -> score -> float64[seeds]. Levels: examples, models, matched."""


def status(
    rhos: np.ndarray, losses: Sequence[np.ndarray], *, chance: float, signed: bool
) -> tuple[str, int]:
    """Return what a score is worth, and the sign of its correlation (0: unclear).

    Args:
      rhos: float64[seeds].
      losses: Those of each loss that is to be beaten, of which only the size counts.
      chance: The size of mean correlation that a random score seldom has.
      signed: Whether a negative correlation counts as none.
    """
    sign = sign_of(difference(rhos, np.zeros_like(rhos)))
    if sign == 0 or abs(np.nanmean(rhos)) <= chance:
        return NOT, 0
    if signed and sign < 0:
        return NOT, sign
    beaten = [
        sign_of(difference(sign * rhos, np.sign(np.nansum(loss)) * loss)) > 0
        for loss in losses
    ]
    return (TRACKS if all(beaten) else NO_BETTER), sign


def judgements(
    correlations: Correlations, chance: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Return level -> truth -> score -> status and sign, and level -> score -> status.

    ``of level`` is, among examples, that over all sets; among models, the best status
    that a score has or exceeds, with the same sign, against two of the three truths.
    """
    found: dict[str, Any] = {}
    for level, by_truth in correlations.items():
        found[level] = {}
        for truth, by_score in by_truth.items():
            losses = [by_score[name] for name in BASELINES if name in by_score]
            rules = {"chance": chance[level][truth], "signed": level == "examples"}
            judged = {
                score: status(
                    rhos, () if score in (*BASELINES, GROUP) else losses, **rules
                )
                for score, rhos in by_score.items()
            }
            found[level][truth] = {
                score: {"status": one, "sign": sign}
                for score, (one, sign) in judged.items()
            }
    found["of level"] = {
        level: {
            score: of_level([found[level][t][score] for t in truths])
            for score in found[level][truths[0]]
        }
        for level, truths in (
            ("examples", (ALL,)),
            ("models", TRUTHS),
            ("matched", TRUTHS),
        )
    }
    return found


def of_level(judged: Sequence[Mapping[str, Any]]) -> str:
    """Return the best status that most truths give or exceed, all in one direction.

    >>> up, down = {"status": TRACKS, "sign": 1}, {"status": TRACKS, "sign": -1}
    >>> of_level([up, up, down]), of_level([up, down, {"status": NOT, "sign": 0}])
    ('tracks', 'does not track')
    """

    def median(direction: int) -> int:
        ranks = sorted(
            STATUSES.index(one["status"]) if one["sign"] == direction else 0
            for one in judged
        )
        return ranks[(len(ranks) - 1) // 2]

    return STATUSES[max(median(1), median(-1))]


def verdict_of(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict of one setting, and why.

    The reason also says the verdict if the loss of the forgotten alone were to be
    beaten, as was the rule until a first run had been seen.
    """
    correlations = {
        level: {
            truth: {score: x for score, x in by_score.items() if score != KEPT_LOSS}
            for truth, by_score in by_truth.items()
        }
        for level, by_truth in setting["correlations"].items()
    }
    alone = judgements(correlations, setting["chance"])["of level"]
    why = because(setting, without_kept=decided(alone))
    return decided(setting["judged"]["of level"]), why


def decided(levels: Mapping[str, Mapping[str, str]]) -> str:
    """Return the verdict that follows from the statuses by level.

    - undecided: neither a loss nor a score tells the models apart;
    - does not reproduce: a loss does, no score does;
    - reproduces: a score with curvature and a dot product each beat the losses (over
      all models, or those at matched forget loss) and follow the examples too;
    - partly: anything else.
    """
    examples, models, matched = (
        levels[name] for name in ("examples", "models", "matched")
    )
    scores = (*CURVATURES, *DOTS)
    beating = {s for s in scores if TRACKS in (models[s], matched[s])}
    both = {s for s in beating if examples[s] != NOT}
    if all(models[s] == matched[s] == NOT for s in scores):
        losses = [name for name in BASELINES if name in models]
        clear = {level[loss] for level in (models, matched) for loss in losses}
        return "undecided" if clear == {NOT} else "does not reproduce"
    if both & set(CURVATURES) and both & set(DOTS):
        return "reproduces"
    return "partly"


def because(setting: Mapping[str, Any], *, without_kept: str) -> str:
    """Return the reason with its numbers."""
    levels, found = setting["judged"]["of level"], setting["correlations"]
    scores = (*CURVATURES, *DOTS)

    def told(level: str, truth: str, score: str) -> str:
        return f"{score} {interval(found[level][truth][score])}"

    def best(level: str, truth: str) -> str:
        means = {s: strength(found[level][truth][s]) for s in scores}
        return told(level, truth, max(means, key=lambda s: means[s]))

    def named(level: str, *wanted: str) -> str:
        return ", ".join(s for s in scores if levels[level][s] in wanted) or "none"

    count, same = len(setting["models"]), len(setting["matched models"])
    return (
        f"Judged against the losses of the forgotten and of the kept (against the "
        f"first alone, as until a first run had been seen: {without_kept}), by rank "
        f"correlation with how little can be relearned, over {count} models a seed: "
        f"{told('models', 'relearning', LOSS)}, best score "
        f"{best('models', 'relearning')}; over the {same} at matched forget loss: "
        f"{told('matched', 'relearning', KEPT_LOSS)}, best score "
        f"{best('matched', 'relearning')}; with each example's change by removal: "
        f"{told('examples', ALL, LOSS)}, best score {best('examples', ALL)}, being in "
        f"the group alone {interval(found['examples'][ALL][GROUP])}. Against most "
        f"truths follow: {named('models', TRACKS, NO_BETTER)}, and at matched forget "
        f"loss {named('matched', TRACKS, NO_BETTER)}; better than the losses: "
        f"{named('models', TRACKS)}, at matched forget loss "
        f"{named('matched', TRACKS)}, of examples {named('examples', TRACKS)}."
    )


def strength(rhos: np.ndarray) -> float:
    """Return the size of the mean correlation, -1 where there is none."""
    return abs(float(np.nanmean(rhos))) if np.isfinite(rhos).any() else -1.0


def interval(rhos: np.ndarray) -> str:
    """Return a mean with its interval as text."""
    found = summary(rhos)
    if found["mean"] is None:
        return "not to be had"
    if found["low"] is None:
        return f"{found['mean']:+.2f} (one seed)"
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
