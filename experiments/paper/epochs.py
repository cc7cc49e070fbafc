"""Claim 1: gradients of the first epoch unlearn better than those of several.

Command:  JAXUNLEARN_DATA=DIR python -m experiments.paper.epochs --size tiny
Machine:  @@
Time:     @@

Two worlds, two optimisers, five seeds each. The gradients that the examples to forget
gave in each epoch are added back, on the embedding and on all parameters,

- literally: once, each with the weight ``learning rate / batch size`` that SGD gave it
  (AdamW applied something else; there the weight is a convention), and
- calibrated: with the scale at which the forget loss is the retrained model's.

Whole-model gradient ascent to the same forget loss and the retrained model stand
beside. What is judged is the price, the rise of the retain loss, in differences paired
by seed: the first epoch's minus all epochs', and minus the mean of the other epochs'.

@@
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro

from experiments.paper import results
from experiments.paper.laboratory import Lab
from experiments.paper.matched import (
    Matched,
    direction,
    forget_losses,
    matched,
    matched_ascent,
    measured,
    relearned,
    retain_losses,
    target_of,
)
from experiments.paper.panels import labelled, panels, with_intervals
from experiments.paper.settings import each_setting
from jaxunlearn import tree

CLAIM = "epochs"
STATEMENT = (
    "Claim 1: the first epoch's gradients alone unlearn better than those of several "
    "epochs."
)
OPTIMISERS = ("adamw", "sgd")
LAYERS = {"embedding": "^wte/", "all parameters": "."}
FIRST, ALL = "1", "all"
RELEARNING = (0, 1, 2, 4, 8)  # steps
EQUAL = 0.01  # of the retain loss: an interval within it says that nothing differs


def main(options: results.Options) -> dict[str, Any]:
    """Measure, judge, and write ``epochs.json`` and the figure."""
    started = time.perf_counter()
    found = each_setting(options, OPTIMISERS, measured_lab)
    verdicts = {}
    for name, setting in found.items():
        setting["comparisons"] = comparisons(setting)
        verdicts[name] = judged(setting)
    return results.finish(
        options,
        CLAIM,
        statement=STATEMENT,
        verdicts=verdicts,
        results=summarised(found),
        draw=drawn,
        started=started,
    )


def epoch_sets(epochs: int) -> dict[str, list[int]]:
    """Return each single epoch and all of them, by name.

    >>> epoch_sets(2)
    {'1': [1], '2': [2], 'all': [1, 2]}
    """
    every = list(range(1, epochs + 1))
    return {str(epoch): [epoch] for epoch in every} | {ALL: every}


def measured_lab(lab: Lab) -> dict[str, Any]:
    """Return what is measured in one setting; numbers are float[seeds]."""
    sets = epoch_sets(lab.recipe.epochs)
    ways = {
        layers: {
            name: matched(lab, direction(lab, epochs=epochs, layers=pattern))
            for name, epochs in sets.items()
        }
        | {"ascent": matched_ascent(lab, layers=pattern)}
        for layers, pattern in LAYERS.items()
    }
    return {
        "target": target_of(lab),
        "models": {
            name: all_measures(lab, params)
            for name, params in (("trained", lab.trained), ("retrained", lab.retrained))
        },
        "calibrated": {
            layers: {name: where_reached(lab, way) for name, way in by_set.items()}
            for layers, by_set in ways.items()
        },
        "literal": {
            layers: {
                name: undone(lab, epochs, pattern) for name, epochs in sets.items()
            }
            for layers, pattern in LAYERS.items()
        },
    }


def all_measures(lab: Lab, params) -> dict[str, np.ndarray]:
    """Return every measure; ``relearned``: lowest loss of the half not relearned."""
    curve = relearned(lab, params, steps=RELEARNING)["held_out"]
    return {**measured(lab, params), "relearned": curve.min(axis=0)}


def where_reached(lab: Lab, way: Matched) -> dict[str, np.ndarray]:
    """Return the measures, NaN for seeds that did not reach the target."""
    found = all_measures(lab, way.params) | {"scale": way.scale}
    return {name: np.where(way.reached, x, np.nan) for name, x in found.items()}


def undone(lab: Lab, epochs: Sequence[int], layers: str) -> dict[str, np.ndarray]:
    """Return the losses after the literal undo, scale 1 with SGD's weights.

    ``behaviour`` is as in ``measured``: distance from the retrained model's losses.
    """
    along = direction(lab, epochs=epochs, weights="applied", layers=layers)
    params = tree.add_scaled(lab.trained, 1.0, along)
    forget, retain = forget_losses(lab, params), retain_losses(lab, params)
    ours = np.concatenate([forget, retain], axis=1)
    theirs = np.concatenate(
        [forget_losses(lab, lab.retrained), retain_losses(lab, lab.retrained)], axis=1
    )
    before = retain_losses(lab, lab.trained).mean(axis=1)
    return {
        "forget": forget.mean(axis=1),
        "retain": retain.mean(axis=1),
        "retain_rise": retain.mean(axis=1) / before - 1,
        "behaviour": np.sqrt(np.mean((ours - theirs) ** 2, axis=1)),
    }


# --- the verdict --------------------------------------------------------------------


def compared(ours: Any, theirs: Any) -> dict[str, Any]:
    """Return a paired difference of prices and which way it points.

    A seed that did not reach the target (NaN) pays without bound. Where there is one
    there is no interval, and the sign is the seeds' own if all agree.

    Returns:
      ``value``, ``low``, ``high`` over the seeds where both reached; ``sign``: -1 we
      are cheaper, 1 dearer, 0 undecided; ``equal``: the interval is within ``EQUAL``.
    """
    pairs = np.stack([ours, theirs]).astype(np.float64)
    interval = results.difference(*pairs)
    low, high = (interval.low, interval.high) if interval else (np.nan, np.nan)
    if np.isnan(pairs).any():
        paid = np.where(np.isnan(pairs), np.inf, pairs)
        sign = int(np.all(paid[0] > paid[1])) - int(np.all(paid[0] < paid[1]))
        equal = False
    else:
        sign = results.sign_of(interval)
        equal = bool(-EQUAL < low and high < EQUAL)
    return {
        "value": results.number(interval.value) if interval else None,
        "low": results.number(low),
        "high": results.number(high),
        "not reached": [int(n) for n in np.isnan(pairs).sum(axis=1)],
        "sign": sign,
        "equal": equal,
    }


def comparisons(setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the first epoch's price against all epochs' and the other epochs'."""
    found = {}
    for layers, by_set in setting["calibrated"].items():
        price = {name: row["retain_rise"] for name, row in by_set.items()}
        others = [x for n, x in price.items() if n not in (FIRST, ALL, "ascent")]
        found[layers] = {
            "all epochs": compared(price[FIRST], price[ALL]),
            "other epochs": compared(price[FIRST], np.mean(others, axis=0)),
            "ascent": compared(price[FIRST], price["ascent"]),
        }
    return found


def judged(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict of one setting, and why.

    Of the four differences (against all and against the other epochs, on the embedding
    and on all parameters): all in favour of the first epoch, some, none.
    """
    told = setting["comparisons"]
    against = [told[layers][whom] for layers in told for whom in list(told[layers])[:2]]
    signs = [one["sign"] for one in against]
    if all(sign < 0 for sign in signs):
        verdict = "reproduces"
    elif any(sign < 0 for sign in signs):
        verdict = "partly"
    elif any(sign > 0 for sign in signs) or all(one["equal"] for one in against):
        verdict = "does not reproduce"
    else:
        verdict = "undecided"
    parts = []
    for layers, row in told.items():
        by_set = setting["calibrated"][layers]
        first, every = (per_cent(by_set[name]["retain_rise"]) for name in (FIRST, ALL))
        parts.append(
            f"{layers}: retain loss {first} with the first epoch, {every} with all; "
            f"first minus all {points(row['all epochs'])}, minus the other epochs "
            f"{points(row['other epochs'])}"
        )
    return verdict, f"At matched forget loss, {'; '.join(parts)}. {literally(setting)}"


def per_cent(values: np.ndarray) -> str:
    """Return the mean of shares where they exist."""
    there = values[np.isfinite(values)]
    missing = len(values) - len(there)
    mean = f"{100 * there.mean():+.1f} %" if len(there) else "nowhere at the target"
    return mean + (f" ({missing} of {len(values)} not there)" if missing else "")


def points(row: Mapping[str, Any]) -> str:
    """Return a difference of shares in percentage points with its interval."""
    if row["value"] is None:
        return "not to be had"
    return (
        f"{100 * row['value']:+.1f} points [{100 * row['low']:+.1f}, "
        f"{100 * row['high']:+.1f}]"
    )


def literally(setting: Mapping[str, Any]) -> str:
    """Say what the literal undo on all parameters did."""
    rows = setting["literal"]["all parameters"]
    trained = setting["models"]["trained"]["forget"]
    need = (setting["target"] - trained).mean()
    told = ", ".join(
        f"{name} {np.mean(rows[key]['forget'] - trained):+.3f} (retain "
        f"{per_cent(rows[key]['retain_rise'])})"
        for name, key in (("first", FIRST), ("all", ALL))
    )
    gap = results.difference(rows[FIRST]["behaviour"], rows[ALL]["behaviour"])
    nearer = {-1: "the first epoch is", 0: "neither is clearly", 1: "all epochs are"}
    return (
        f"Literal undo, of {need:+.2f} nats to the target: {told}; "
        f"{nearer[results.sign_of(gap)]} nearer to the retrained model's losses."
    )


# --- the files ----------------------------------------------------------------------


def summarised(value: Any) -> Any:
    """Return the same tree with every array over seeds as its summary."""
    if isinstance(value, Mapping):
        return {key: summarised(inner) for key, inner in value.items()}
    return results.summary(value) if isinstance(value, np.ndarray) else value


COLOURS = {"embedding": "#0072b2", "all parameters": "#d55e00"}
MARKERS = {"embedding": "o", "all parameters": "s"}


def drawn(found: Mapping[str, Any]):
    """Draw prices by epoch, and the literal undo, a row a setting."""
    from jaxunlearn.report.drawing import INK, key, legend

    figure, grid = panels(len(found), 2)
    for (price, literal), (name, setting) in zip(grid, found.items(), strict=True):
        sets = list(next(iter(setting["literal"].values())))
        for shift, (layers, by_set) in zip(
            (-0.1, 0.1), setting["calibrated"].items(), strict=True
        ):
            look = {"color": COLOURS[layers], "marker": MARKERS[layers]}
            names = [*sets, "ascent"]
            with_intervals(
                price,
                np.arange(len(names)) + shift,
                [by_set[one]["retain_rise"] for one in names],
                times=100,
                linestyle="none",
                **look,
            )
            rows = setting["literal"][layers]
            x, y = (
                [rows[one][k]["mean"] for one in sets] for k in ("retain", "forget")
            )
            literal.plot(x, y, linestyle="none", markersize=4, alpha=0.8, **look)
            for one in (FIRST, ALL):
                at = sets.index(one)
                literal.annotate(
                    one,
                    (x[at], y[at]),
                    xytext=(4, -9 if one == FIRST else 3),
                    textcoords="offset points",
                    fontsize=7.5,
                    color=COLOURS[layers],
                )
        retrained = setting["models"]["retrained"]
        price.axhline(100 * retrained["retain_rise"]["mean"], color=INK, ls=":", lw=1.3)
        price.set_xticks(range(len(sets) + 1), [*sets, "asc."])
        labelled(price, "gradients of epoch", "retain loss (rise, %)", name)
        for model, marker in (("trained", "o"), ("retrained", "*")):
            literal.plot(
                setting["models"][model]["retain"]["mean"],
                setting["models"][model]["forget"]["mean"],
                marker=marker,
                markersize=6 if model == "trained" else 10,
                markerfacecolor="none" if model == "trained" else "#009e73",
                color=INK,
                linestyle="none",
                zorder=0 if model == "trained" else 3,
            )
        labelled(literal, "retain loss (nats a token)", "forget loss", "literal undo")
    marks = {"linestyle": "none"}
    legend(
        figure,
        [key(n, color=COLOURS[n], marker=MARKERS[n], **marks) for n in LAYERS]
        + [
            key("retrained", linestyle=":", marker="*", markerfacecolor="#009e73"),
            key("trained", marker="o", markerfacecolor="none", **marks),
        ],
    )
    return figure


if __name__ == "__main__":
    try:
        main(tyro.cli(results.Options))
    except (ValueError, OSError) as error:
        print(f"{CLAIM}: error: {error}", file=sys.stderr)
        sys.exit(2)
