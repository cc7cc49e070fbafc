"""Claim: the embedding is crucial, the last two blocks do nothing, it alone serves.

Command:  JAXUNLEARN_DATA=DIR python -m experiments.paper.layers --size tiny
Machine:  2 CPU cores, jax 0.10.2
Time:     TIME

NUMBERS
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.paper import results as shared
from experiments.paper.laboratory import Lab
from experiments.paper.matched import (
    Key,
    direction,
    forget_losses,
    matched,
    measured,
)
from experiments.paper.results import finish, labs, summary
from jaxunlearn import tree
from jaxunlearn.influence.validation import spearman
from jaxunlearn.influence.weighted_training import take_batch
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.report.drawing import BLUE, INK, PAPER, key
from jaxunlearn.types import Params

STATEMENT = (
    "The embedding layer is crucial to unlearning by stored gradients, those of the "
    "last two blocks do nothing, and the embedding alone serves at half the space."
)
ALL, EMBEDDING, LAST = "everything", "token embedding", "last two blocks"
WITHOUT = "all but "
NOTHING = 0.05  # of what everything moves
MARGIN = 0.05  # of the kept loss (relative), and nats of behaviour: no dearer
COSTS = ("retain_rise", "behaviour", "membership_gap", "extraction")
# Under SGD only these are taken to the target: the others would double the time.
CLAIMED = (
    *(ALL, EMBEDDING, "its input part", "its output part", LAST, "all blocks"),
    *(WITHOUT + EMBEDDING, WITHOUT + LAST),
)
COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7")
MARKERS = ("o", "s", "D", "^")


@dataclasses.dataclass(frozen=True)
class Options(shared.Options):
    """Options; those of every experiment, and the optimisers of fine-tuning."""

    optimisers: tuple[Literal["adamw", "sgd"], ...] = ("adamw", "sgd")


def groups(layers: int) -> dict[str, tuple[str, str]]:
    """Return every group of parameters by name: its pattern, the embedding's part.

    >>> list(groups(12))[:4], groups(12)["last two blocks"]
    (['everything', 'token embedding', 'its input part', 'its output part'], ...)
    """
    last = f"h/({layers - 2}|{layers - 1})/"
    blocks = {f"block {i + 1}": (f"^h/{i}/", "tied") for i in range(layers)}
    left_out = {
        EMBEDDING: "wte/",
        "position embedding": "wpe/",
        "all blocks": "h/",
        LAST: last,
        "last norm": "ln_f/",
    }
    return {
        ALL: (".", "tied"),
        EMBEDDING: ("^wte/", "tied"),
        "its input part": ("^wte/", "input"),
        "its output part": ("^wte/", "output"),
        "position embedding": ("^wpe/", "tied"),
        **blocks,
        LAST: (f"^{last}", "tied"),
        "all blocks": ("^h/", "tied"),
        "last norm": ("^ln_f/", "tied"),
        **{WITHOUT + name: (f"^(?!{part})", "tied") for name, part in left_out.items()},
    }


def disjoint(layers: int) -> list[str]:
    """Return the names of groups that make up everything, each parameter once."""
    blocks = [f"block {i + 1}" for i in range(layers)]
    return [EMBEDDING, "position embedding", *blocks, "last norm"]


def main(options: Options) -> dict[str, Any]:
    """Run the experiment and write layers.json, layers.png and layers.svg."""
    started = time.perf_counter()
    results, verdicts = {"GPT-2 124M": gpt2_shares()}, {}
    for (world, optimiser), lab in labs(options, options.optimisers).items():
        setting = f"{world}, {optimiser}"
        print(f"{setting}: groups of layers", flush=True)
        chosen = groups(lab.size.layers) if optimiser == "adamw" else CLAIMED
        results[setting] = by_group(lab, tuple(chosen))
        for part, found in judged(results[setting]).items():
            verdicts[f"{setting}: {part}"] = found
    return finish(
        options,
        "layers",
        statement=STATEMENT,
        verdicts=verdicts,
        results=results,
        draw=drawn,
        started=started,
    )


# --- what is measured ---------------------------------------------------------------


def by_group(lab: Lab, to_target: Sequence[str]) -> dict[str, Any]:
    """Return what the first epoch's gradients of each group do, as JSON.

    Args:
      lab: The runs.
      to_target: Names of the groups that are also compared at matched forget loss.
    """
    before = forget_losses(lab, lab.trained).mean(axis=1)
    uphill = forget_gradient(Key(lab))(lab.trained, lab.sets.forget)
    retrained = measured(lab, lab.retrained)
    full = matched(lab, direction(lab, epochs=[1]))
    known = np.where(full.reached, full.scale, np.nan)
    found, prices, sizes = {}, {}, {}
    for name, (layers, part) in groups(lab.size.layers).items():
        way, literal = (
            direction(lab, epochs=[1], weights=weights, layers=layers, part=part)
            for weights in ("unit", "applied")
        )
        found[name] = {
            "literal": moved(lab, np.ones(len(before)), literal) - before,
            "common": moved(lab, known, way) - before,
            "slope": np.asarray(jax.vmap(tree.vdot)(uphill, literal), np.float64),
            "norm": np.asarray(jax.vmap(tree.norm)(way), np.float64),
        }
        sizes[name] = stored(way, tree.select(lab.start, layers))
        if name in to_target:
            end = full if name == ALL else matched(lab, way)
            prices[name] = price_of(measured(lab, end.params), retrained)
            prices[name]["scale"] = end.scale / known
            for values in prices[name].values():
                values[~end.reached] = np.nan
    whole = found[ALL]
    return {
        "seeds": len(before),
        "groups": {
            name: {
                **{kind: summary(x[kind] / whole[kind]) for kind in x},
                **sizes[name],
                "bytes_share": sizes[name]["bytes"] / sizes[ALL]["bytes"],
                **against(prices.get(name), prices[ALL]),
            }
            for name, x in found.items()
        },
        "literal rise": summary(whole["literal"]),
        "common rise": summary(whole["common"]),
        "rank agreement with literal": {
            kind: summary(rank_agreement(found, kind, lab.size.layers))
            for kind in ("norm", "slope")
        },
        "trained": summaries(price_of(measured(lab, lab.trained), retrained)),
        "retrained": summaries(price_of(retrained, retrained)),
    }


def moved(lab: Lab, scale: np.ndarray, along: Params) -> np.ndarray:
    """Return the forget losses at ``trained + scale along``, float[seeds]."""
    end = jax.vmap(tree.add_scaled)(
        jax.tree.map(jnp.asarray, lab.trained), jnp.asarray(scale, jnp.float32), along
    )
    return forget_losses(lab, end).mean(axis=1).astype(np.float64)


@functools.lru_cache(maxsize=8)
def forget_gradient(at: Key) -> Callable[[Params, np.ndarray], Params]:
    """Return the jitted gradient of the mean forget loss, over seeds."""
    lab = at.lab

    def loss(params, rows):
        batch = take_batch(lab.sets.train, rows)
        return jnp.mean(lab.model.per_example_loss(params, batch))

    return jax.jit(jax.vmap(jax.grad(loss)))


def price_of(model: Mapping, retrained: Mapping) -> dict[str, np.ndarray]:
    """Return what unlearning cost, of what `matched.measured` gave."""
    gap = np.abs(model["membership"] - retrained["membership"])
    return {cost: np.copy(model.get(cost, gap)) for cost in COSTS}


def rank_agreement(found: Mapping, kind: str, layers: int) -> np.ndarray:
    """Return Spearman's correlation with the literal rise, over disjoint groups."""
    names = disjoint(layers)
    a, b = (np.stack([found[n][k] for n in names], axis=1) for k in (kind, "literal"))
    return spearman(a, b)


def stored(stacked: Params, mask: Params) -> dict[str, int]:
    """Return the bytes of the group's arrays in one seed's recorded gradient.

    ``nonzero_bytes`` are those of its entries that are not 0: what a sparse store would
    keep beside their places.
    """
    first = jax.tree.map(lambda x: np.asarray(x)[0], stacked)
    arrays = [np.asarray(x) for _, x in tree.selected_slices(first, mask)]
    return {
        "bytes": sum(x.nbytes for x in arrays),
        "nonzero_bytes": sum(int(np.count_nonzero(x)) * x.itemsize for x in arrays),
    }


def against(price: Mapping | None, everything: Mapping) -> dict[str, Any]:
    """Return a group's prices at matched forget loss, and less those of everything."""
    if price is None:
        return {}
    return {
        "reached": int(np.isfinite(price["scale"]).sum()),
        "matched": summaries(price),
        "dearer": summaries({c: price[c] - everything[c] for c in COSTS}),
    }


def summaries(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the summary of each."""
    return {name: summary(x) for name, x in values.items()}


def gpt2_shares() -> dict[str, Any]:
    """Return how many parameters GPT-2 124M has in each group, and their shares."""
    config = GPT2Config()
    shapes = jax.eval_shape(lambda: GPT2(config).init(key=jax.random.key(0)))
    sizes = {
        name: tree.selected_size(shapes, tree.select(shapes, layers))
        for name, (layers, _) in groups(config.n_layer).items()
        if name in (ALL, EMBEDDING, LAST, "position embedding", "all blocks")
    }
    return {
        name: {"parameters": size, "share": size / sizes[ALL]}
        for name, size in sizes.items()
    }


# --- verdicts -----------------------------------------------------------------------


def judged(result: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the verdict on each part of the claim, and why, from `by_group`'s JSON."""
    rows, seeds = result["groups"], result["seeds"]
    rest, last, alone = rows[WITHOUT + EMBEDDING], rows[LAST], rows[EMBEDDING]
    crucial = combined(
        [
            below(rest["literal"], 0.5),
            below(rest["common"], 0.5),
            True if rest["reached"] < seeds else dearer(rest["dearer"]["retain_rise"]),
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
        serves = combined(
            [below(alone["dearer"][x], MARGIN) for x in ("retain_rise", "behaviour")]
        )
    if serves == "reproduces" and alone["bytes_share"] > 0.5:
        serves = "partly"
    whole = rows[ALL]
    at_literal = "of what everything moves at the literal scale"
    at_common = "where everything together reaches the target"
    return {
        "embedding is crucial": (
            crucial,
            f"Without it the rest still moves {percent(rest['literal'])} {at_literal} "
            f"and {percent(rest['common'])} {at_common}; at matched forget loss the "
            f"kept loss rises {percent(rest['matched']['retain_rise'])} without it and "
            f"{percent(whole['matched']['retain_rise'])} with everything "
            f"({reached(rest, seeds)}).",
        ),
        "last two blocks do nothing": (
            nothing,
            f"They move {percent(last['literal'])} {at_literal} and "
            f"{percent(last['common'])} {at_common}; at {times(last)} that scale "
            f"{reached(last, seeds)}, and the kept loss rises "
            f"{percent(last['matched']['retain_rise'])}.",
        ),
        "embedding alone serves": (
            serves,
            f"At {times(alone)} the scale of everything {reached(alone, seeds)}: kept "
            f"loss {percent(alone['matched']['retain_rise'])}, with everything "
            f"{percent(whole['matched']['retain_rise'])}; distance from the retrained "
            f"model's losses {plain(alone['matched']['behaviour'])} nats against "
            f"{plain(whole['matched']['behaviour'])}; bytes stored "
            f"{100 * alone['bytes_share']:.1f} % of everything.",
        ),
    }


def combined(tests: Sequence[bool | None]) -> str:
    """Return the verdict of tests that say yes, no, or nothing.

    >>> combined([True, True]), combined([True, False]), combined([None, False])
    ('reproduces', 'partly', 'undecided')
    """
    if all(tests):
        return "reproduces"
    if any(tests):
        return "partly"
    return "undecided" if None in tests else "does not reproduce"


def below(found: Mapping, bound: float) -> bool | None:
    """Return whether an interval lies below a bound (above: False; on it: None)."""
    if found.get("low") is None:
        return None
    return True if found["high"] < bound else (False if found["low"] > bound else None)


def dearer(found: Mapping) -> bool | None:
    """Return whether a difference lies above 0; False where it is below the margin."""
    if found.get("low") is None:
        return None
    return True if found["low"] > 0 else (False if found["high"] < MARGIN else None)


def percent(found: Mapping) -> str:
    """Return a mean with its interval, in per cent."""
    return f"{plain(found, 100)} %"


def plain(found: Mapping, unit: float = 1) -> str:
    """Return a mean with its interval.

    >>> plain({"mean": 0.5, "low": 0.25, "high": 0.75})
    '0.5 (0.25 to 0.75)'
    """
    if found.get("mean") is None:
        return "nothing"
    if found["low"] is None:
        return f"{unit * found['mean']:.3g}"
    low, high = (f"{unit * found[x]:.3g}" for x in ("low", "high"))
    return f"{unit * found['mean']:.3g} ({low} to {high})"


def times(row: Mapping) -> str:
    """Return by how much a group's scale is that of everything."""
    scale = row["matched"]["scale"]["mean"]
    return "no multiple of" if scale is None else f"{scale:.3g} times"


def reached(row: Mapping, seeds: int) -> str:
    """Return in how many seeds the target was reached."""
    return f"{row['reached']} of {seeds} seeds reach the target"


# --- figure -------------------------------------------------------------------------


def drawn(results: Mapping[str, Any]) -> Any:
    """Draw the share of the effect, and the price at matched forget loss, by group."""
    settings = {name: x for name, x in results.items() if "groups" in x}
    names = list(next(iter(settings.values()))["groups"])
    figure, (left, right) = side_by_side(2, width=9, height=0.8 + 0.36 * len(names))
    for position, (setting, result) in enumerate(settings.items()):
        look = {"color": COLOURS[position % 4], "marker": MARKERS[position % 4]}
        offset = 0.17 * (position - (len(settings) - 1) / 2)
        for row, name in enumerate(names):
            group = result["groups"][name]
            bar(left, group["literal"], row + offset, **look)
            bar(left, group["common"], row + offset, markerfacecolor=PAPER, **look)
            if "matched" in group:
                bar(right, group["matched"]["retain_rise"], row + offset, **look)
    left.set_yticks(range(len(names)), names)
    right.set_yticks(range(len(names)), [])
    for axes in (left, right):
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=0.8)
    right.set_xscale("symlog", linthresh=10)
    left.set_xlabel("share of what everything moves (%)", color=INK)
    right.set_xlabel("rise of the kept loss at matched forget loss (%)", color=INK)
    handles = [
        key(name, linestyle="-", color=COLOURS[i % 4], marker=MARKERS[i % 4])
        for i, name in enumerate(settings)
    ]
    handles += [
        key("at the literal scale", linestyle="none", marker="o"),
        key(
            "where everything reaches the target",
            linestyle="none",
            marker="o",
            markerfacecolor=PAPER,
        ),
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    return figure


def bar(axes: Any, found: Mapping, y: float, **look: Any) -> None:
    """Draw a mean with its interval, in per cent."""
    if found["mean"] is None:
        return
    if found["low"] is not None:
        ends = [100 * found["low"], 100 * found["high"]]
        axes.plot(ends, [y, y], color=look["color"], linewidth=1)
    axes.plot(100 * found["mean"], y, linestyle="none", markersize=4, **look)


def side_by_side(count: int, *, width: float, height: float) -> tuple[Any, list]:
    """Return a figure of empty panels beside each other, in the style of the reports."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in panels:
        axes.set_facecolor("none")
        axes.tick_params(colors=INK, labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.grid(color=INK, alpha=0.15, linewidth=0.7)
        axes.set_axisbelow(True)
    return figure, panels


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        print(f"layers: error: {error}", file=sys.stderr)
        sys.exit(2)
