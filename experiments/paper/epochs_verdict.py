"""Which epochs' gradients are cheaper: paired differences and the verdict. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper.results import difference, sign_of
from experiments.paper.settings import paired

FIRST, ALL, ASCENT = "1", "all", "ascent"
WHOLE = "all parameters"
EQUAL = 0.01  # of the retain loss: an interval within it says that nothing differs


MEASURES = ("relearned", "extraction_gap", "membership_gap", "behaviour")


def compared(ours: Any, theirs: Any) -> dict[str, Any]:
    """Return a paired difference of prices and which way it points.

    A seed that did not reach the target (NaN) pays without bound. Where there is one,
    the sign is the seeds' own if all of them agree.

    Returns:
      ``value``, ``low``, ``high`` over the seeds where both reached; ``sign``: -1 we
      are cheaper, 1 dearer, 0 neither; ``equal``: the interval is within ``EQUAL``;
      ``not_reached``: the seeds, ours and theirs.
    """
    pairs = np.stack([ours, theirs]).astype(np.float64)
    missing, found = np.isnan(pairs), paired(*pairs)
    if missing.any():
        paid = np.where(missing, np.inf, pairs)
        found["sign"] = int(np.all(paid[0] > paid[1])) - int(np.all(paid[0] < paid[1]))
        equal = False
    else:
        ends = found["low"], found["high"]
        equal = None not in ends and -EQUAL < ends[0] and ends[1] < EQUAL
        found["sign"] *= not equal
    return found | {"equal": equal, "not_reached": missing.sum(axis=1).tolist()}


def comparisons(setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the first epoch's price against others', and what else differs from all's.

    ``other epochs`` is against the mean of their prices, without bound if one of them
    did not reach the target; ``ascent`` is of the same layers' or the whole model's.
    """
    found = {}
    ascent = setting["calibrated"][WHOLE][ASCENT]["retain_rise"]
    for layers, by_set in setting["calibrated"].items():
        price = {name: row["retain_rise"] for name, row in by_set.items()}
        others = [x for n, x in price.items() if n not in (FIRST, ALL, ASCENT)]
        first, every = by_set[FIRST], by_set[ALL]
        found[layers] = {
            "all epochs": compared(price[FIRST], price[ALL]),
            "other epochs": compared(price[FIRST], np.mean(others, axis=0)),
            "ascent": compared(price[FIRST], price[ASCENT]),
            "whole-model ascent": compared(price[FIRST], ascent),
            "measures": {name: paired(first[name], every[name]) for name in MEASURES},
        }
    return found


def judged(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict of one setting, and why.

    Of the four differences (against all and against the other epochs, on the embedding
    and on all parameters): all in favour of the first epoch, some, none.
    """
    told = setting["comparisons"]
    against = [
        row[whom] for row in told.values() for whom in ("all epochs", "other epochs")
    ]
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
    ascent = per_cent(setting["calibrated"][WHOLE][ASCENT]["retain_rise"])
    cheaper = points(told["embedding"]["whole-model ascent"])
    return verdict, (
        f"At matched forget loss, {'; '.join(parts)}; whole-model ascent {ascent}, the "
        f"first epoch's embedding minus it {cheaper}. "
        f"{literally(setting)}"
    )


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
    """Say what the literal undo did."""
    trained = setting["models"]["trained"]["forget"]
    need = (setting["target"] - trained).mean()
    nearer = {-1: "the first epoch", 0: "neither clearly", 1: "all epochs"}
    parts = []
    for layers, rows in setting["literal"].items():
        first, every = (
            f"{np.mean(rows[name]['forget'] - trained):+.3f} (retain "
            f"{per_cent(rows[name]['retain_rise'])})"
            for name in (FIRST, ALL)
        )
        gap = difference(rows[FIRST]["behaviour"], rows[ALL]["behaviour"])
        parts.append(
            f"{layers}: first {first}, all {every}, nearer to the retrained model's "
            f"losses: {nearer[sign_of(gap)]}"
        )
    return f"Literal undo, {need:+.2f} nats being needed, {'; '.join(parts)}."
