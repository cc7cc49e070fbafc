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

from jaxunlearn import influence
from jaxunlearn.commands.console import console
from jaxunlearn.files import write_json
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table
from jaxunlearn.report.kit.drawing import BLUE, INK, blank
from jaxunlearn.tasks import ClassificationTask, classification_task
from jaxunlearn.training import Recipe
from jaxunlearn.unlearning import METHODS, Limits, Sets, unlearn

FORGOTTEN_CLASS = 3
SCORES = ("gradient_dot", "cosine", "datainf", "ekfac", "trak", "act_act")
ANY = Limits(max_retain_nats=None, max_relative_step=None)


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
        given: dict[str, Any] = {"limits": ANY}
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
    row: dict[str, Any] = {"model": name, "status": f"{seeds} seeds"}
    for column in each[0]:
        values = np.array([one[column] for one in each])
        row[column] = float(values.mean())
        row[f"{column} deviation"] = float(values.std(ddof=1))
    return row


def main(out: Path, size: Literal["full", "smoke"] = "full") -> dict[str, Any]:
    """Train, score, unlearn, retrain; write ``results.json`` and ``digits.png``.

    Args:
      out: Folder for both.
      size: How much.
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
        console.print(table(f"{name}: influence", rows))
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
            console.print(table(f"{name}: forget {what}", rows))
    seconds = time.perf_counter() - begun
    results = {"size": dataclasses.asdict(amount), "versions": versions(), **tables}
    write_json(out / "results.json", {**results, "seconds": seconds})
    draw(tables["unlearning"]).savefig(out / "digits.png", dpi=200)
    console.print(f"{seconds:.0f} s. {out / 'results.json'}")
    return results


def table(title: str, rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows for the console, deviations left to the file."""
    columns = [k for k in rows[-1] if not k.endswith("deviation")]
    short = [
        {
            k: f"{v:.3f}" if isinstance(v := row.get(k, ""), float) else v
            for k in columns
        }
        for row in rows
    ]
    return console_table(short, title=title)


def draw(tables: dict[str, list[dict[str, Any]]]) -> Any:
    """Return the figure: what is forgotten against what is still known."""
    figure, axes = blank("forget accuracy", "accuracy on unseen images", height=3.2)
    marks = dict(zip(METHODS, "osDv^<>Ph*Xp8d", strict=False))
    for rows in tables.values():
        for row in rows:
            x, y = row["forget accuracy"], row["unseen accuracy"]
            own = row["model"] in marks
            mark = marks.get(row["model"], "x" if row["model"] == "before" else "+")
            axes.plot([x], [y], mark, color=BLUE if own else INK, markersize=6)
    used = [
        k for k in marks if any(r["model"] == k for t in tables.values() for r in t)
    ]
    for name in ("before", "retrained", *used):
        mark = marks.get(name, "x" if name == "before" else "+")
        colour = BLUE if name in marks else INK
        axes.plot([], [], mark, color=colour, label=name)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
