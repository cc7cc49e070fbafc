"""Claim 1: gradients of the first epoch unlearn better than those of several.

Command:  JAXUNLEARN_DATA=DIR python -m experiments.paper.epochs --size tiny
Machine:  2 CPU cores busy with other work, jax 0.10.2
Time:     8.3 CPU minutes beside those of its four labs, measured while they build

Two worlds, two optimisers, five seeds each. The gradients that the examples to forget
gave in each epoch are added back, on the embedding and on all parameters,

- literally: once, each with the weight ``learning rate / batch size`` that SGD gave it
  (AdamW applied something else; there the weight is a convention), and
- calibrated: with the scale at which the forget loss is the retrained model's.

Whole-model gradient ascent to the same forget loss and the retrained model stand
beside. What is judged is the price, the rise of the retain loss, in differences paired
by seed: the first epoch's minus all epochs', and minus the mean of the other epochs'.

The claim does not reproduce in any of the four settings: taken to one forget loss, the
first epoch's gradients are nowhere cheaper than those of all epochs, and dearer on the
embedding everywhere. Rise of the retain loss in per cent with the first epoch and with
all, and the difference with its interval:

    world, optimiser    embedding                    all parameters
    synthetic, AdamW    18.9, 6.7: +12.2 (2 to 22)   74, 50: +24 (-2 to 49)
    synthetic, SGD       3.0, 1.2: +1.8 (0.4 to 3.2) 26, 9.3: +16 (8 to 24)
    TOFU, AdamW          4.9, 3.7: +1.3 (0.4 to 2.1) 45, 33: +12 (-3 to 26)
    TOFU, SGD            1.0, 0.2: +0.8 (0.5 to 1.2) 10, 3.3: +6.7 (3.6 to 9.8)

Nor is it the best of the single epochs: under SGD it is the dearest, under AdamW it is
not to be told from the others' mean. What it leaves is relearned to a lower loss than
what all epochs leave, everywhere, by 0.06 to 0.37 nats. Applied to the embedding it is
cheaper than whole-model gradient ascent (by 12 to 88 points), but not to be told from
ascent on the embedding: that is the layer's doing, not the epoch's.

At the literal scale the claim holds in one case, SGD on all parameters: all epochs go
2.5 to 3.3 times as far as they should and ruin the rest (retain loss +22 and +76 %),
the first one goes a quarter of the way for +1.5 and +4.7 %. On the embedding all epochs
come nearer to the retrained model. AdamW's gradients at SGD's weights do next to
nothing, the first epoch's or all.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tyro

from experiments.paper import results
from experiments.paper.epochs_verdict import (
    ALL,
    ASCENT,
    FIRST,
    WHOLE,
    comparisons,
    judged,
)
from experiments.paper.laboratory import Lab
from experiments.paper.matched import (
    Matched,
    direction,
    distance,
    matched,
    matched_ascent,
)
from experiments.paper.panels import labelled, panels, with_intervals
from experiments.paper.points import losses, point
from experiments.paper.settings import each_setting, summarised
from jaxunlearn import tree

CLAIM = "epochs"
STATEMENT = (
    "Claim 1: the first epoch's gradients alone unlearn better than those of several "
    "epochs."
)
OPTIMISERS = ("adamw", "sgd")
LAYERS = {"embedding": "^wte/", WHOLE: "."}


def main(options: results.Options) -> dict[str, Any]:
    """Measure, judge, and write ``epochs.json`` and the figure."""
    started = time.perf_counter()
    found = each_setting(options, OPTIMISERS, measured_lab)
    for setting in found.values():
        setting["comparisons"] = comparisons(setting)
    return results.finish(
        options,
        CLAIM,
        statement=STATEMENT,
        verdicts={name: judged(setting) for name, setting in found.items()},
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
    models = {"trained": lab.trained, "retrained": lab.retrained}
    ends = {name: point(lab, params) for name, params in models.items()}
    apart = distance(lab.trained, lab.retrained)

    def reached(way: Matched) -> dict[str, np.ndarray]:
        found = beside(point(lab, way.params), ends) | {"scale": way.scale}
        found["to_trained"] = distance(way.params, lab.trained) / apart
        found["to_retrained"] = distance(way.params, lab.retrained) / apart
        return {name: np.where(way.reached, x, np.nan) for name, x in found.items()}

    def undone(epochs: list[int], layers: str) -> dict[str, np.ndarray]:
        along = direction(lab, epochs=epochs, weights="applied", layers=layers)
        params = tree.add_scaled(lab.trained, 1.0, along)
        return beside(losses(lab, params), ends)

    found = {
        "target": ends["retrained"]["forget"],
        "models": {name: beside(end, ends) for name, end in ends.items()},
        "calibrated": {},
        "literal": {},
    }
    for name, layers in LAYERS.items():
        found["literal"][name] = {n: undone(e, layers) for n, e in sets.items()}
        found["calibrated"][name] = {
            n: reached(matched(lab, direction(lab, epochs=e, layers=layers)))
            for n, e in sets.items()
        } | {ASCENT: reached(matched_ascent(lab, layers=layers))}
    return found


def beside(
    found: Mapping[str, np.ndarray], ends: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return a model's measures beside the trained and the retrained model's.

    ``retain_rise`` over the trained model, relative; ``behaviour``: root mean square
    difference from the retrained model's losses, example by example; the membership
    attack's and the extraction strength's distance from the retrained model's.
    """
    gap = found["losses"] - ends["retrained"]["losses"]
    more = {
        "retain_rise": found["retain"] / ends["trained"]["retain"] - 1,
        "behaviour": np.sqrt(np.mean(gap**2, axis=1)),
    }
    for name in ("membership", "extraction"):
        if name in found:
            more[f"{name}_gap"] = np.abs(found[name] - ends["retrained"][name])
    return {name: x for name, x in found.items() if name != "losses"} | more


# --- the figure ---------------------------------------------------------------------

COLOURS = {"embedding": "#0072b2", "all parameters": "#d55e00"}
MARKERS = {"embedding": "o", "all parameters": "s"}


def drawn(found: Mapping[str, Any]):
    """Draw prices by epoch, and the literal undo, a row a setting."""
    from jaxunlearn.report.kit.drawing import INK, key, legend

    figure, grid = panels(len(found), 2)
    for (price, literal), (name, setting) in zip(grid, found.items(), strict=True):
        sets = list(next(iter(setting["literal"].values())))
        for shift, (layers, by_set) in zip(
            (-0.1, 0.1), setting["calibrated"].items(), strict=True
        ):
            look = {"color": COLOURS[layers], "marker": MARKERS[layers]}
            names = [*sets, ASCENT]
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
        literal.locator_params(axis="x", nbins=5)
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
