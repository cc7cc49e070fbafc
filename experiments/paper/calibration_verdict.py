"""What follows from the path of scales: windows, stops, harm, the verdict. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper.settings import paired
from jaxunlearn.unlearning import (
    PathPoint,
    Rule,
    false_stop,
    first_stop,
    held,
    membership_at_chance,
    score_below,
    target_reached,
)

FACTORS = 2.0 ** np.arange(-4, 4.5, 0.5)  # of the matched scale
NEAR, DEAR = 0.1, 0.1  # of the target forget loss, of the retain loss
OCTAVE = 1.0  # a window of scales narrower than a factor of two calls for calibration
RELEARNED_NOISE = 0.05  # of the retrained model's relearned loss
EXTRACTION_NOISE = 0.05
SHARE = 0.5  # of a score, to which it has to fall
OVER = (2.0, 4.0, 8.0)  # times the matched scale: over-exposed


def at(factor: float) -> int:
    """Return the position of a factor in the sweep, which begins with 0."""
    return 1 + int(np.flatnonzero(np.isclose(FACTORS, factor))[0])


def window(low, high, retain, scale) -> dict[str, np.ndarray]:
    """Return the scales that serve: near the target, at a small price.

    Args:
      low: float[seeds], factor where the forget loss is 10 % below the target.
      high: Where it is 10 % above; infinite if it never is.
      retain: float[1 + factors, seeds], retain losses, first of the trained models.
      scale: float[seeds], the matched scales.

    Returns:
      ``low`` and ``high`` factors; ``dear``, where the retain loss has risen by 10 %;
      ``octaves``, how many factors of two lie between low and the lesser of the others,
      0 if none; ``others_serve``, whether the geometric mean of the other seeds' scales
      is in the window, 1 or 0.
    """
    rise = retain[1:] / retain[0] - 1
    dear = np.array([crossing(one, DEAR) for one in rise.T])
    low = np.clip(low, FACTORS[0], FACTORS[-1])
    top = np.minimum(np.minimum(high, dear), FACTORS[-1])
    there = np.isfinite(scale)
    borrowed = np.full(len(scale), np.nan)
    for seed in np.flatnonzero(there) if there.sum() > 1 else ():
        others = np.delete(scale, seed)
        mean = np.exp(np.mean(np.log(others[np.isfinite(others)])))
        borrowed[seed] = mean / scale[seed]
    serves = (low <= borrowed) & (borrowed <= top)
    return {
        "low": low,
        "high": np.where(there, high, np.nan),
        "dear": np.where(there, dear, np.nan),
        "octaves": np.where(there, np.maximum(0.0, np.log2(top / low)), np.nan),
        "others_serve": np.where(np.isfinite(borrowed), serves, np.nan),
    }


def crossing(rise: np.ndarray, limit: float) -> float:
    """Return the factor from which on a rise passes a limit; infinite if it never does.

    Between the measured factors the rise is linear in the factor's logarithm.
    """
    over = np.flatnonzero(~(rise <= limit))
    if len(over) == 0:
        return np.inf
    i = over[0]
    if i == 0 or not np.isfinite(rise[i]):
        return float(FACTORS[max(i - 1, 0)])
    share = (limit - rise[i - 1]) / (rise[i] - rise[i - 1])
    return float(FACTORS[i - 1] * (FACTORS[i] / FACTORS[i - 1]) ** share)


# --- stopping -----------------------------------------------------------------------


def rules_of(target: float, extraction_strength: float) -> dict[str, Rule]:
    """Return the rules, given what the retrained model has."""
    reached = target_reached(target * (1 - 1e-4))  # rounding of the calibrated point

    def extracted(history) -> str | None:
        now = history[-1].scores["extraction"]
        return f"extraction: {now:.3f}" if now <= extraction_strength else None

    return {
        "forget loss at target": reached,
        "target held for 2 checks": held(reached, 2),
        "membership at chance": membership_at_chance(),
        "extraction as retrained": extracted,
        "gradient dot halved": score_below(SHARE, "self_dot"),
    }


def stops_of(setting: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Return where each rule stops on the sweep, and what the model knows there.

    Returns:
      For each rule float[seeds], NaN where it never stops: ``factor``; ``gap``, the
      relearned loss minus the retrained model's (below 0: still known);
      ``false_relearning`` and ``false_extraction``, 1 or 0; ``forgotten``, the factor
      from which on relearning finds nothing any more (NaN: none in the sweep);
      ``retain_rise``.
    """
    sweep, retrained = setting["sweep"], setting["retrained"]
    factors, seeds = setting["factors"], len(setting["target"])
    names = rules_of(1.0, 0.0)
    fields = ("factor", "gap", "false_relearning", "false_extraction", "forgotten")
    found = {
        name: {field: np.full(seeds, np.nan) for field in (*fields, "retain_rise")}
        for name in names
    }
    for seed in np.flatnonzero(np.isfinite(setting["scale"])):
        own = {name: values[:, seed] for name, values in sweep.items()}
        path = [
            PathPoint(
                step=i,
                forget=own["forget"][i],
                retain=own["retain"][i],
                membership=own["membership"][i],
                scores={k: own[k][i] for k in ("extraction", "self_dot")},
                scale=factor,
            )
            for i, factor in enumerate(factors)
        ]
        reference = {name: values[seed] for name, values in retrained.items()}
        rules = rules_of(setting["target"][seed], reference["extraction"])
        truths = {
            "relearning": {
                "truth": np.nan_to_num(own["relearned"], nan=np.inf),
                "threshold": reference["relearned"] * (1 - RELEARNED_NOISE),
                "higher_is_known": False,
            },
            "extraction": {
                "truth": own["extraction"],
                "threshold": reference["extraction"] + EXTRACTION_NOISE,
            },
        }
        for name, rule in rules.items():
            stop, row = first_stop(path, rule), found[name]
            if stop is None:
                continue
            i = stop.position
            row["factor"][seed] = factors[i]
            row["gap"][seed] = own["relearned"][i] - reference["relearned"]
            row["retain_rise"][seed] = own["retain"][i] / own["retain"][0] - 1
            for truth, options in truths.items():
                wrong = false_stop(path, rule, **options)
                row[f"false_{truth}"][seed] = wrong is not None
                if truth == "relearning" and wrong and wrong.forgotten_from:
                    row["forgotten"][seed] = factors[wrong.forgotten_from]
    return found


def harm_of(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return what exposure beyond the matched scale does, in pairs by seed.

    Returns:
      ``retain_rise`` by factor: rise of the retain loss, over that at the matched
      scale, as a share of the trained model's; ``gap`` by factor: the relearned loss
      minus the retrained model's, below 0 where the data are still known; ``fresh``: at
      the target, gradients computed anew minus the stored one, in both.
    """
    sweep, theirs = setting["sweep"], setting["retrained"]["relearned"]
    rise = sweep["retain"] / sweep["retain"][0] - 1
    fresh = setting["fresh to the target"]
    return {
        "retain_rise": {f: paired(rise[at(f)], rise[at(1)]) for f in OVER},
        "gap": {f: paired(sweep["relearned"][at(f)], theirs) for f in (1.0, *OVER)},
        "fresh": {
            "retain_rise": paired(
                fresh["retain"] / sweep["retain"][0] - 1, rise[at(1)]
            ),
            "relearned": paired(fresh["relearned"], sweep["relearned"][at(1)]),
        },
    }


# --- the verdict --------------------------------------------------------------------


def judged(setting: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the verdict on each part of the claim in one setting, and why."""
    return {
        "calibration is needed": calibration_needed(setting),
        "a stop may be false": stop_false(setting),
        "over-exposure ends it early": ended_early(setting),
    }


def calibration_needed(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Judge: the window of scales is under an octave, and twice the scale costs."""
    window, cost = setting["window"], setting["harm"]["retain_rise"]
    there = np.isfinite(window["octaves"])
    octaves, count = window["octaves"][there], int(there.sum())
    width = paired(window["octaves"], np.zeros(len(there)))
    narrow = -paired(window["octaves"], np.full(len(there), OCTAVE))["sign"]
    missing = f" ({(~there).sum()} more not at the target)" if not there.all() else ""
    return answered(narrow, cost[2.0]["sign"]), (
        f"Scales within {NEAR:.0%} of the target forget loss that cost less than "
        f"{DEAR:.0%} of the retain loss span {said(width, 1, '.2f', ' octaves')}, none "
        f"for {int((octaves == 0).sum())} of {count} seeds{missing}; the other seeds' "
        f"scale serves {int(np.nansum(window['others_serve']))}. Twice the matched "
        f"scale costs {said(cost[2.0], 100, '+.1f', ' points')} of retain loss more."
    )


def stop_false(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Judge: there is a rule that stops while relearning finds the data.

    That is, the interval of ``gap`` is below 0, and more than half of the rule's stops
    are false beyond the noise; partly, if single seeds' stops are. A stop before the
    first step says something of the rule only, and is not counted.
    """
    guilty, single, ran, parts = [], False, False, []
    for name, row in setting["stops"].items():
        stopped = row["factor"] > 0
        count, before = int(stopped.sum()), int((row["factor"] == 0).sum())
        ran = ran or count > 0
        if not count:
            parts.append(f"{name} never" + " after the first step" * bool(before))
            continue
        false = {
            truth: int(row[f"false_{truth}"][stopped].sum())
            for truth in ("relearning", "extraction")
        }
        gap = paired(np.where(stopped, row["gap"], np.nan), np.zeros(len(stopped)))
        single = single or any(false.values())
        if gap["sign"] < 0 and 2 * false["relearning"] > count:
            guilty.append(name)
        also = f", {false['extraction']} by extraction" * bool(false["extraction"])
        parts.append(
            f"{name} {false['relearning']} of {count}{also} "
            f"({said(gap, 1, '+.2f', ' nats')}"
            + f"; {before} more before the first step" * bool(before)
            + ")"
        )
    verdict = (
        "reproduces"
        if guilty
        else "partly"
        if single
        else "does not reproduce"
        if ran
        else "undecided"
    )
    return verdict, (
        "False stops by relearning (relearned loss there minus the retrained model's): "
        f"{'; '.join(parts)}."
    )


def ended_early(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Judge: beyond the matched scale the data are still known."""
    gaps, costs = setting["harm"]["gap"], setting["harm"]["retain_rise"]
    parts = [
        f"{factor:g} times: {said(gaps[factor], 1, '+.2f', ' nats')} for "
        f"{said(costs[factor], 100, '+.0f', ' points')} of retain loss"
        for factor in OVER
    ]
    return answered(*(-gaps[factor]["sign"] for factor in OVER)), (
        "Relearned loss minus the retrained model's, at the matched scale "
        f"{said(gaps[1.0], 1, '+.2f', ' nats')}; {'; '.join(parts)}."
    )


def answered(*answers: int) -> str:
    """Return the verdict of answers that are yes (1), no (-1) or open (0).

    >>> answered(1, 1), answered(1, 0), answered(-1, 0), answered(0, 0)
    ('reproduces', 'partly', 'does not reproduce', 'undecided')
    """
    if min(answers) > 0:
        return "reproduces"
    if max(answers) > 0:
        return "partly"
    return "does not reproduce" if min(answers) < 0 else "undecided"


def said(row: Mapping[str, Any], times: float, form: str, unit: str) -> str:
    """Say a paired difference with its interval."""
    if row["value"] is None:
        return "not to be had"
    value, low, high = (format(times * row[k], form) for k in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"
