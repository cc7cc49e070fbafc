"""The tables of bench_influence.py: every row beside its peers, and the targets."""

from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table


class Limit(NamedTuple):
    """``ours[quantity] <= at_most * reference``."""

    row: str
    against: str  # "step", "floor", or a peer's label
    at_most: float
    quantity: str = "warm"


LIMITS = (
    Limit("direction", "step", 0.80),
    Limit("products_blocks", "torch hooks", 0.90),
    Limit("products_blocks", "floor", 1.25),
    Limit("products_blocks", "dattri", 0.15),
    Limit("products_blocks", "kronfluence", 1.0, "rss_mb"),
    Limit("products_all", "torch.func", 0.90),
    Limit("ekfac_blocks", "bergson", 0.55),
    Limit("ekfac_blocks", "kronfluence", 0.47),
    Limit("ekfac_blocks", "kronfluence", 1.0, "rss_mb"),
    Limit("index_build", "step", 0.75),
    Limit("index_build", "bergson", 0.95),
    Limit("index_query", "dattri LoGra", 0.10),
    Limit("hvp", "step", 2.5),
    Limit("hvp", "torch double backward", 1.0),
    Limit("fisher_diagonal", "step", 1.3),
)
FIRST_CALL_SECONDS = 6.0
IMPORT_SECONDS = 2.0
UNIT_OF = {"step": 80, "floor": 80}
SEQUENCES = {"index_build": 64}
"""Sequences that a row reads, where they are not the units' 80."""


def print_tables(
    rows: dict[str, dict], scores: dict[str, np.ndarray], imported: float
) -> dict:
    """Print what was measured; return it as JSON can hold it."""
    console = Console(width=130)
    console.print(measured(rows, scores))
    console.print(targets(rows, imported))
    for name, row in rows.items():
        for what, value in row.get("quality", {}).items():
            console.print(f"{name}: {what} {value:.4f}")
    return {
        name: {key: value for key, value in row.items() if key != "scores"}
        for name, row in rows.items()
    } | {"import jaxunlearn": imported}


def measured(rows: dict[str, dict], scores: dict[str, np.ndarray]) -> Table:
    """Return the table of times: ours, then each peer of the row."""
    table = Table(title="CPU seconds on one core; ratios are ours / theirs")
    for column in ("row", "who", "warm", "/ step", "/ floor", "ours / peer"):
        table.add_column(
            column, justify="left" if column in ("row", "who") else "right"
        )
    for column in ("first", "import", "MB", "max error", "Pearson"):
        table.add_column(column, justify="right")
    for name, ours in rows.items():
        if "/" in name:
            continue
        per_step, per_floor = (relative(name, ours, unit) for unit in UNIT_OF)
        table.add_row(
            name,
            "jaxunlearn",
            f"{ours['warm']:.2f}",
            f"{per_step:.2f}",
            f"{per_floor:.2f}",
            "",
            *costs(ours),
            *own_agreement(name, scores),
        )
        if name == "units":
            table.add_row("", "jaxunlearn floor", f"{ours['floor']:.2f}")
        for key, peer in rows.items():
            if not key.startswith(f"{name}/"):
                continue
            label = key.removeprefix(f"{name}/")
            mine = ours["floor"] if label == "torch floor" else ours["warm"]
            ratio = f"{mine / peer['warm']:.2f}"
            found = agreement(scores.get(name), peer["scores"])
            table.add_row(
                "", label, f"{peer['warm']:.2f}", "", "", ratio, *costs(peer), *found
            )
        table.add_section()
    return table


def relative(name: str, ours: dict, unit: str) -> float:
    """Return the row's time over the unit's, both for as many sequences."""
    share = SEQUENCES.get(name, UNIT_OF[unit]) / UNIT_OF[unit]
    return ours["warm"] / (share * ours[unit])


def costs(row: dict) -> tuple[str, str, str]:
    return f"{row['first']:.1f}", f"{row['imported']:.1f}", f"{row['rss_mb']:.0f}"


def agreement(ours: np.ndarray | None, theirs: np.ndarray | None) -> tuple[str, str]:
    """Return the largest error relative to the largest score, and the correlation."""
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return "", ""
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    correlation = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    return f"{error:.1e}", f"{correlation:.6f}"


def own_agreement(name: str, scores: dict[str, np.ndarray]) -> tuple[str, str]:
    """Compare the rows of one summed query with the products of all parameters."""
    if name in ("direction", "forget_query") and "products_all" in scores:
        return agreement(scores.get(name), scores["products_all"].sum(axis=0))
    return "", ""


def targets(rows: dict[str, dict], imported: float) -> Table:
    """Return the table of targets, met or missed."""
    table = Table(title="Targets")
    for column in ("row", "of", "measured", "at most", ""):
        table.add_column(column)

    def add(name: str, what: str, value: float, limit: float) -> None:
        verdict = "met" if value <= limit else "MISSED"
        table.add_row(name, what, f"{value:.2f}", f"{limit:.2f}", verdict)

    for limit in LIMITS:
        ours = rows.get(limit.row)
        peer = rows.get(f"{limit.row}/{limit.against}")
        if ours is None:
            continue
        if limit.against in UNIT_OF:
            value = relative(limit.row, ours, limit.against)
        elif peer is not None:
            value = ours[limit.quantity] / peer[limit.quantity]
        else:
            continue
        memory = " (resident peak)" if limit.quantity == "rss_mb" else ""
        add(limit.row, limit.against + memory, value, limit.at_most)
    for name, ours in rows.items():
        if "/" not in name:
            extra = ours["first"] - ours["warm"]
            add(name, "first call beyond a warm one, s", extra, FIRST_CALL_SECONDS)
    add("", "import jaxunlearn, s", imported, IMPORT_SECONDS)
    return table
