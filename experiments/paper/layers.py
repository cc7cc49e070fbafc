"""Claim 2: the embedding is crucial, the last two blocks do nothing, it alone serves.

Command:  JAXUNLEARN_DATA=DIR python -m experiments.paper.layers --size tiny
Machine:  2 CPU cores, busy with other work; jax 0.10.2 on the CPU
Time:     4.7 CPU minutes, and those of the four labs (about 1.5 each)

Two worlds, two optimisers, five seeds each. The gradients that the examples to forget
gave in the first epoch are added back on one group of layers, or on all but one,

- at a common scale: the literal undo, each gradient with the weight ``learning rate /
  batch size`` that SGD gave it (AdamW applied something else; there the weight is a
  convention), and the scale at which everything together reaches the target; what a
  group moves the forget loss is told as a share of what everything moves;
- at matched forget loss, the retrained model's: the group has its own scale, and what
  is compared is the price.

Why the shares are what they are: the norm of each group's gradient, and the slope of
the forget loss along it. Space: the bytes of the arrays that hold the gradient.

Found (synthetic AdamW and SGD, TOFU AdamW and SGD; 95 % t intervals in layers.json):

- Crucial: partly. All but the embedding moves 38, 57, 46, 54 % of what everything moves
  literally, 63, 65, 79, 67 % where everything reaches the target. It gets there too, at
  1.2 to 1.3 times the scale, and is dearer: kept loss +111, +38, +56, +15 %, with
  everything +74, +26, +45, +10 %.
- Last two blocks: partly. They move 3.7, 4.2, 1.9, 3.9 % literally, and 0.6, 2.7, 0.6,
  3.1 %. It is a matter of scale: at 20, 11, 29, 11 times that of everything they reach
  the target in every seed, at a higher price than everything.
- Alone serves: reproduces. Kept loss +19, +3, +5, +1 %; nearer to the retrained model's
  losses, 0.26, 0.14, 0.24, 0.14 nats against 0.74, 0.44, 1.26, 0.42. It takes 17.8 % of
  the bytes here, and 31.0 % of GPT-2 124M: less than half.

The norms of the gradients rank the layers as the literal effect does (0.82 to 0.94).
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.paper.gradients import mean_gradient
from experiments.paper.judging import below, combined, raised, summaries, told
from experiments.paper.laboratory import Lab
from experiments.paper.layer_groups import (
    EMBEDDING,
    EVERYTHING,
    INPUT,
    LAST,
    NORM,
    OUTPUT,
    POSITIONS,
    WITHOUT,
    disjoint,
    gpt2_shares,
    groups,
    stored,
)
from experiments.paper.layers_figure import drawn
from experiments.paper.matched import Key, direction, forget_losses, matched, measured
from experiments.paper.results import Options, finish, summary
from experiments.paper.settings import each_setting
from jaxunlearn import tree
from jaxunlearn.influence.truth.validation import spearman
from jaxunlearn.types import Params

STATEMENT = (
    "Claim 2: the embedding layer is crucial, gradients of the last two blocks do "
    "nothing, and the embedding alone serves, at half the space."
)
OPTIMISERS = ("adamw", "sgd")
NOTHING = 0.05  # of what everything moves
CRUCIAL = 0.5  # so much of it at most is moved without what is crucial
MARGIN = 0.05  # of the kept loss, relative, and of the behaviour, in nats
PRICES = ("retain_rise", "behaviour", "membership_gap", "extraction")
# Taken to the target under SGD, and not taken there under AdamW, to spare time.
CLAIMED = (EVERYTHING, EMBEDDING, INPUT, OUTPUT, LAST, WITHOUT + EMBEDDING)
SPARED = (WITHOUT + POSITIONS, WITHOUT + NORM)


def main(options: Options) -> dict[str, Any]:
    """Measure, judge, and write ``layers.json`` and the figure."""
    started = time.perf_counter()
    found = each_setting(options, OPTIMISERS, by_group)
    return finish(
        options,
        "layers",
        statement=STATEMENT,
        verdicts={
            f"{setting}: {part}": verdict
            for setting, result in found.items()
            for part, verdict in judged(result).items()
        },
        results={"settings": found, "GPT-2 124M": gpt2_shares()},
        draw=drawn,
        started=started,
    )


# --- what is measured ---------------------------------------------------------------


def by_group(lab: Lab) -> dict[str, Any]:
    """Return what the first epoch's gradients of each group do, as JSON."""
    chosen = groups(lab.size.layers)
    to_target = [name for name in chosen if name not in SPARED]
    if lab.recipe.optimizer == "sgd":
        to_target = CLAIMED
    before = forget_losses(lab, lab.trained).mean(axis=1)
    uphill = mean_gradient(Key(lab))(lab.trained, lab.sets.forget)
    retrained = measured(lab, lab.retrained)
    full = matched(lab, direction(lab, epochs=[1]))
    scale = np.where(full.reached, full.scale, np.nan)
    found, prices, sizes = {}, {}, {}
    for name, (layers, part) in chosen.items():
        way, literal = (
            direction(lab, epochs=[1], weights=weights, layers=layers, part=part)
            for weights in ("unit", "applied")
        )
        found[name] = {
            "literal": moved(lab, np.ones(len(scale)), literal) - before,
            "common": moved(lab, scale, way) - before,
            "slope": np.asarray(jax.vmap(tree.vdot)(uphill, literal), np.float64),
            "norm": np.asarray(jax.vmap(tree.norm)(way), np.float64),
        }
        sizes[name] = stored(way, tree.select(lab.start, layers))
        if name in to_target:
            end = full if name == EVERYTHING else matched(lab, way)
            price = price_of(measured(lab, end.params), retrained)
            price["scale"] = end.scale / scale
            prices[name] = {
                kind: np.where(end.reached, x, np.nan) for kind, x in price.items()
            }
    whole = found[EVERYTHING]
    return {
        "seeds": len(before),
        "groups": {
            name: {
                **{kind: summary(x / whole[kind]) for kind, x in found[name].items()},
                **sizes[name],
                "bytes_share": sizes[name]["bytes"] / sizes[EVERYTHING]["bytes"],
                **against(prices.get(name), prices[EVERYTHING]),
            }
            for name in chosen
        },
        "rise of everything": summaries({k: whole[k] for k in ("literal", "common")}),
        "rank agreement with literal": {
            kind: summary(rank_agreement(found, kind, lab.size.layers))
            for kind in ("norm", "slope")
        },
        "trained": summaries(price_of(measured(lab, lab.trained), retrained)),
        "retrained": summaries(price_of(retrained, retrained)),
    }


def moved(lab: Lab, scale: np.ndarray, along: Params) -> np.ndarray:
    """Return the forget losses at ``trained + scale along``, float64[seeds]."""
    trained = jax.tree.map(jnp.asarray, lab.trained)
    end = jax.vmap(tree.add_scaled)(trained, jnp.float32(scale), along)
    return forget_losses(lab, end).mean(axis=1).astype(np.float64)


def price_of(model: Mapping, retrained: Mapping) -> dict[str, np.ndarray]:
    """Return what unlearning cost, of what `matched.measured` gave."""
    gap = np.abs(model["membership"] - retrained["membership"])
    return {price: model.get(price, gap) for price in PRICES}


def rank_agreement(found: Mapping, kind: str, layers: int) -> np.ndarray:
    """Return Spearman's correlation with the literal rise, over disjoint groups."""
    names = disjoint(layers)
    a, b = (np.stack([found[n][k] for n in names], axis=1) for k in (kind, "literal"))
    return spearman(a, b)


def against(price: Mapping | None, everything: Mapping) -> dict[str, Any]:
    """Return a group's prices at matched forget loss, and less those of everything."""
    if price is None:
        return {}
    return {
        "reached": int(np.isfinite(price["scale"]).sum()),
        "matched": summaries(price),
        "dearer": summaries({kind: price[kind] - everything[kind] for kind in PRICES}),
    }


# --- verdicts -----------------------------------------------------------------------


def judged(result: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the verdict on each part of the claim, and why, from `by_group`'s JSON.

    - Embedding crucial: without it the rest moves less than half of what everything
      moves, at both common scales; at matched forget loss the rest is dearer in kept
      loss than everything, or does not get there.
    - Last two blocks nothing: below 5 % at both common scales; and they never reach the
      target.
    - Alone serves: it reaches the target in every seed, and neither the kept loss nor
      the distance from the retrained model's losses is more than 0.05 above that of
      everything. It has to take half the space, or less.
    """
    rows, seeds = result["groups"], result["seeds"]
    whole, rest = rows[EVERYTHING], rows[WITHOUT + EMBEDDING]
    last, alone = rows[LAST], rows[EMBEDDING]
    everything = whole["matched"]
    gone = rest["reached"] < seeds == whole["reached"]
    crucial = combined(
        [
            below(rest["literal"], CRUCIAL),
            below(rest["common"], CRUCIAL),
            gone or raised(rest["dearer"]["retain_rise"], MARGIN),
        ]
    )
    nothing = combined(
        [
            below(last["literal"], NOTHING),
            below(last["common"], NOTHING),
            {0: True, seeds: False}.get(last["reached"]),
        ]
    )
    serves = "does not reproduce"
    if alone["reached"] == seeds:
        prices = [alone["dearer"][kind] for kind in ("retain_rise", "behaviour")]
        serves = combined([below(price, MARGIN) for price in prices])
    if serves == "reproduces" and alone["bytes_share"] > 0.5:
        serves = "partly"
    return {
        "embedding crucial": (
            crucial,
            f"All but the embedding {moves(rest)}; at matched forget loss "
            f"{there(rest, seeds)}, the kept loss up by "
            f"{told(rest['matched']['retain_rise'], '%')}, with everything by "
            f"{told(everything['retain_rise'], '%')}.",
        ),
        "last two blocks nothing": (
            nothing,
            f"They {moves(last)} (norms of gradients rank the layers as the literal "
            f"rise does, Spearman {told(result['rank agreement with literal']['norm'])}"
            f"); at matched forget loss {there(last, seeds)}, the kept loss up by "
            f"{told(last['matched']['retain_rise'], '%')}, with everything by "
            f"{told(everything['retain_rise'], '%')}.",
        ),
        "embedding alone serves": (
            serves,
            f"At matched forget loss {there(alone, seeds)}, the kept loss up by "
            f"{told(alone['matched']['retain_rise'], '%')} and the losses "
            f"{told(alone['matched']['behaviour'], 'nats')} from the retrained "
            f"model's; with everything {told(everything['retain_rise'], '%')} and "
            f"{told(everything['behaviour'], 'nats')}. It takes "
            f"{100 * alone['bytes_share']:.1f} % of the bytes.",
        ),
    }


def moves(row: Mapping) -> str:
    """Return what a group moves at the common scales, as words."""
    return (
        f"move {told(row['literal'], '%')} of what everything moves at the literal "
        f"scale and {told(row['common'], '%')} where that reaches the target"
    )


def there(row: Mapping, seeds: int) -> str:
    """Return how many seeds reach the target, and how far that is, as words."""
    scale = told(row["matched"]["scale"])
    return f"{row['reached']} of {seeds} seeds get there, at {scale} times its scale"


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"layers: error: {error}")
