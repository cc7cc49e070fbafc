"""Unlearning handwritten digits: another domain, through the same rooms.

Command:  python experiments/digits.py --out OUT
Machine:  a CPU

Two small networks learn the 8x8 digits of scikit-learn, five seeds of each together.
Influence scores of the first seed's model say which training images speak for what it
says of images it never saw. Then one class is unlearned, and as many random images, by
every method of ``unlearning.METHODS`` that a labelled image gives what it needs, each
to the forget loss of models retrained without these images. The table stands beside
those: five seeds, with the standard deviation over them.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from digits_models import (
    NETWORKS,
    SIZES,
    Images,
    Size,
    in_batches,
    load_images,
    train_together,
)
from markdown_table import write_table

from jaxunlearn import influence
from jaxunlearn.commands.console import console
from jaxunlearn.files import write_json
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table
from jaxunlearn.report.kit.drawing import BLUE, INK, blank, legend
from jaxunlearn.tasks import ClassificationTask, classification_task
from jaxunlearn.training import Recipe
from jaxunlearn.unlearning import METHODS, Limits, Sets, unlearn

FORGOTTEN_CLASS = 3
SCORES = ("gradient_dot", "cosine", "datainf", "ekfac", "trak", "act_act")
ANY = Limits(max_retain_nats=None, max_relative_step=None)
SETTINGS: dict[str, dict[str, Any]] = {
    # By default a forgotten example fades out near a loss of 3; a class goes to 11.
    "simnpo": {"beta": 0.1, "forget_weight": 1.0},
    "ssd": {"alpha": 8.0},  # of at most n / n_F, 10 and 20
    "whp": {"learning_rate": 1e-3, "alpha": 3.0},
}
"""By method; what is not its default."""


def measure(
    task: ClassificationTask, params: Any, sets: dict[str, Images]
) -> dict[str, float]:
    """Return loss and accuracy of each set."""
    found = {}
    for name, images in sets.items():
        batch = {"inputs": images.inputs, "labels": images.labels}
        outputs = task.outputs(params, batch)
        right = np.asarray(outputs).argmax(-1) == images.labels
        found[f"{name} accuracy"] = float(right.mean())
        losses = task.loss_of_outputs(outputs, batch)
        found[f"{name} loss"] = float(np.mean(np.asarray(losses)))
    return found


def influence_rows(
    task: ClassificationTask, params: Any, train: Images, unseen: Images, size: Size
) -> list[dict[str, Any]]:
    """Return a row a score: how often an image's strongest helpers share its class."""
    query = unseen.take(np.arange(size.queries))
    batches, queries = in_batches(train, size.batch), in_batches(query, size.queries)
    rows = []
    for method in SCORES:
        begun = time.perf_counter()
        found = influence.scores(task, params, batches, queries, method=method)
        best = np.argsort(-found.scores, axis=1)[:, :10]
        same = train.labels[best] == query.labels[:, None]
        rows.append(
            {
                "score": method,
                "tapped": found.coverage["tapped"],
                "parameters": found.coverage["of"],
                "same class among the first 10": float(same.mean()),
                "seconds": time.perf_counter() - begun,
            }
        )
    return rows


def applicable(name: str, task: ClassificationTask) -> bool:
    """Return whether a method needs nothing that labelled images do not have."""
    row = METHODS[name]
    lacking = {"run", "indices", "tokenizer"} | {
        need for need in ("states", "outputs", "targets") if not hasattr(task, need)
    }
    return row.form != "exact" and not row.needs & lacking


def unlearning_rows(
    task: ClassificationTask,
    params: Any,
    sets: dict[str, Images],
    target: float,
    size: Size,
) -> list[dict[str, Any]]:
    """Return a row a method, each at the target or where it stopped before."""
    data = Sets(
        in_batches(sets["forget"], size.batch),
        in_batches(sets["retain"], size.batch),
        in_batches(sets["unseen"], size.batch),
    )
    rows = []
    for name in METHODS:
        if not applicable(name, task):
            continue
        given: dict[str, Any] = {"limits": ANY, **SETTINGS.get(name, {})}
        form = METHODS[name].form
        if form in ("objective", "edit"):
            given["target"] = target
        if form == "objective":
            epochs = 2 + 600 * size.batch // (20 * len(sets["forget"].labels))
            given["recipe"] = Recipe(
                epochs=epochs, batch_size=size.batch, learning_rate=1e-3
            )
            given["evaluate_every"] = 2
        begun = time.perf_counter()
        outcome = unlearn(task, params, data, name, **given)
        seconds = time.perf_counter() - begun
        measured = measure(outcome.task or task, outcome.params, sets)
        status = outcome.status.name.lower()
        rows.append({"model": name, "status": status, **measured, "seconds": seconds})
    return rows


def of_seeds(
    task: ClassificationTask, together: Any, sets: dict[str, Images], name: str
) -> dict[str, Any]:
    """Return the row of models of several seeds: means, and deviations beside them."""
    seeds = len(jax.tree.leaves(together)[0])
    each = [
        measure(task, jax.tree.map(lambda x, i=i: x[i], together), sets)
        for i in range(seeds)
    ]
    row: dict[str, Any] = {"model": name, "status": ""}
    for column in each[0]:
        values = np.array([one[column] for one in each])
        row[column] = float(values.mean())
        row[f"{column} deviation"] = float(values.std(ddof=1))
    return row


def main(
    out: Path, size: Literal["full", "smoke"] = "full", write: Path | None = None
) -> dict[str, Any]:
    """Train, score, unlearn, retrain; write ``results.json`` and ``digits.png``.

    Args:
      out: Folder for both.
      size: How much.
      write: A Markdown file whose tables are replaced by these.
    """
    begun, amount = time.perf_counter(), SIZES[size]
    out.mkdir(parents=True, exist_ok=True)
    train, unseen = load_images(amount)
    forgotten = {
        f"class {FORGOTTEN_CLASS}": train.labels == FORGOTTEN_CLASS,
        "random": np.arange(len(train.labels)) < amount.random,
    }
    tables: dict[str, Any] = {"influence": {}, "unlearning": {}}
    for name in amount.networks:
        task = classification_task(NETWORKS[name])
        models = train_together(task, train, amount, seed=0)
        params = jax.tree.map(lambda x: x[0], models)
        rows = influence_rows(task, params, train, unseen, amount)
        tables["influence"][name] = rows
        console.print(console_table(shown(rows), title=f"{name}: influence"))
        for what, mask in forgotten.items():
            sets = {
                "forget": train.take(np.flatnonzero(mask)),
                "retain": train.take(np.flatnonzero(~mask)),
                "unseen": unseen,
            }
            again = train_together(task, sets["retain"], amount, seed=100)
            retrained = of_seeds(task, again, sets, "retrained")
            target = retrained["forget loss"]
            rows = [
                {"model": "before", "status": "", **measure(task, params, sets)},
                retrained,
                *unlearning_rows(task, params, sets, target, amount),
            ]
            tables["unlearning"][f"{name}, {what}"] = rows
            console.print(console_table(shown(rows), title=f"{name}: forget {what}"))
    seconds = time.perf_counter() - begun
    results = {"size": dataclasses.asdict(amount), "versions": versions(), **tables}
    write_json(out / "results.json", {**results, "seconds": seconds})
    draw(tables["unlearning"]).savefig(out / "digits.png", dpi=200)
    if write is not None:
        for kind, of_kind in tables.items():
            for name, rows in of_kind.items():
                write_table(write, f"{kind}: {name}", shown(rows))
    console.print(f"{seconds:.0f} s. {out / 'results.json'}")
    return results


def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return rows to read: three digits, with deviations, and what fell short said."""
    lines = []
    for row in rows:
        line = {}
        for column in rows[-1]:
            value, deviation = row.get(column, ""), row.get(f"{column} deviation")
            if isinstance(value, float):
                value = f"{value:.1f}" if column == "seconds" else f"{value:.3f}"
            line[column] = value if deviation is None else f"{value} ± {deviation:.3f}"
        if line.pop("status", "") in ("steps", "trials"):
            line["model"] += ", short of it"
        lines.append(line)
    return lines


def draw(tables: dict[str, list[dict[str, Any]]]) -> Any:
    """Return the figure: at one forget loss, what was paid on images never seen."""
    figure, axes = blank("loss on unseen images, log scale", "", height=4.6)
    names = [row["model"] for row in next(iter(tables.values()))][::-1]
    look = {"mlp": "o", "cnn": "s"}
    for name, rows in tables.items():
        network, what = name.split(", ")
        losses = [row["unseen loss"] for row in rows][::-1]
        filled = {"color": BLUE} if what == "random" else {"color": INK, "mfc": "none"}
        axes.plot(losses, range(len(names)), look[network], label=name, **filled)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


if __name__ == "__main__":
    tyro.cli(main)
