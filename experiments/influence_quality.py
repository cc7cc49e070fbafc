"""How well each influence score foretells real retraining, and what it costs.

Command:  JAXUNLEARN_DATA=DIR python experiments/influence_quality.py --out OUT
Machine:  2 cores of an AMD EPYC, busy with other work; jax 0.10.2
Time:     28 minutes there (333 s of it retraining)

A small GPT-2 that has learned one text is fine-tuned on 192 examples of another. Truth
is made by training again: on random halves of the examples (linear datamodelling score,
LDS: Spearman's correlation of the summed scores with minus the query's loss, the mean
over queries) and without single examples (LOO). "same order" is that of the run that is
attributed, "other orders" is the mean of runs over others. The interval is a 95 %
bootstrap over the subsets. Interrupted, the same command goes on where it stood.

LDS (leave-one-out; CPU seconds): unrolled 0.96 (0.99; 15), LiSSA 0.87 (0.82; 90),
EK-FAC 0.85 (0.74; 2.8), RelatIF 0.85, Arnoldi 0.81, DataInf 0.70, CG 0.69, Woodbury
0.69, EK-FAC + CG 0.66, SOURCE 0.64, LoGra 0.59, gradient cosine 0.56, gradient dot
0.55, TracIn 0.55, TRAK 0.50, BM25 0.46, act_act 0.16, act_grad -0.01, random -0.03.
BUILD_NOTES.md has the intervals, and says where the published order does not show.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from influence_scorers import SCORERS
from influence_task import SIZES, Task, make_task

from jaxunlearn.commands.console import console, progress_bar
from jaxunlearn.files import write_json
from jaxunlearn.influence.truth.subset_training import random_subsets, train_subsets
from jaxunlearn.influence.truth.validation import (
    leave_one_out,
    linear_datamodelling_score,
    rank_correlation,
    spearman,
)
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table
from jaxunlearn.report.kit.drawing import BLUE, INK, blank

TRAK_RUNS = 4
FRACTION = 0.5
PUBLISHED = {
    "unrolled (MAGIC)": 0.93,
    "EK-FAC + CG": 0.69,
    "SOURCE": 0.47,
    "EK-FAC": 0.45,
    "BM25": 0.22,
    "gradient cosine": 0.16,
    "TRAK x8": 0.14,
}
"""LDS of GPT-2 fine-tuned on WikiText-2, as bergson 2.5.1 publishes them."""


class Truth(NamedTuple):
    """What retraining gave."""

    masks: np.ndarray  # bool[M, N]
    losses: np.ndarray  # float32[M, seeds, Q]
    left_out: np.ndarray  # int64[K]
    differences: np.ndarray  # float32[Q, K]
    seconds: float

    @property
    def ceiling(self) -> float | None:
        """How well runs over other orders foretell the run itself."""
        if self.losses.shape[1] < 2:
            return None
        others = self.losses[:, 1:].mean(axis=1)
        return float(spearman(self.losses[:, 0].T, others.T).mean())


def main(
    out: Path,
    *,
    size: Literal["smoke", "default"] = "default",
    data: Literal["auto", "wikitext", "tofu", "synthetic"] = "auto",
    only: tuple[str, ...] = (),
    group: int = 8,
) -> None:
    """Print the table and write ``results.json`` and ``quality_cost.png``.

    Args:
      out: Folder for them, and for the outcomes of the models trained so far.
      size: Of the task.
      data: The text; auto is WikiText where JAXUNLEARN_DATA is set, else synthetic.
      only: Names of scores; all if none is given.
      group: Models trained at a time.
    """
    # What was compiled once, such as a scorer's own functions, is found again.
    jax.config.update("jax_compilation_cache_dir", str(out / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    unknown = sorted(set(only) - set(SCORERS))
    if unknown:
        raise ValueError(f"only={unknown}: known are {', '.join(SCORERS)}")
    if data == "auto":
        data = "wikitext" if os.environ.get("JAXUNLEARN_DATA") else "synthetic"
    begin = time.perf_counter()
    task = make_task(SIZES[size], data, seeds=max(TRAK_RUNS, SIZES[size].seeds))
    task.checkpoints(0)  # the model that is attributed: no score pays for it
    console.print(f"The task stands after {time.perf_counter() - begin:.0f} s")
    out.mkdir(parents=True, exist_ok=True)
    truth = retrain(task, out, group)
    results = {
        "task": dataclasses.asdict(SIZES[size]) | {"data": data},
        "versions": versions(),
        "ceiling": truth.ceiling,
        "published": PUBLISHED,
        "seconds": {"retraining": truth.seconds},
    }
    rows = finished(out / "results.json", results)
    for name in only or SIZES[size].scores or SCORERS:
        if name not in rows:
            scores, first, warm = timed(SCORERS[name], task)
            rows[name] = {"score": name, **judged(scores, truth)}
            rows[name] |= {"CPU s": round(warm, 2), "first CPU s": round(first, 1)}
            results["seconds"]["all"] = time.perf_counter() - begin
            write_json(out / "results.json", results | {"rows": list(rows.values())})
        row = rows[name]
        console.print(f"  {name}: LDS {row['LDS']:.2f} in {row['CPU s']:.1f} CPU s")
    rows = list(rows.values())
    figure = quality_against_cost(rows, truth.ceiling)
    figure.savefig(out / "quality_cost.png", dpi=200)
    console.print(console_table([shown(row) for row in rows]))
    console.print(
        f"Runs over other orders foretell the run itself by {truth.ceiling:.2f}. "
        f"Retraining took {truth.seconds:.0f} s, all "
        f"{time.perf_counter() - begin:.0f} s. {out / 'results.json'}"
    )


def finished(path: Path, results: Mapping) -> dict[str, dict]:
    """Return the rows that an interrupted run of the same task has written."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    if any(stored[key] != results[key] for key in ("task", "versions", "ceiling")):
        raise ValueError(f"{path} is of another task or version: name another folder")
    return {row["score"]: row for row in stored["rows"]}


def retrain(task: Task, out: Path, group: int) -> Truth:
    """Train on subsets, and without single examples."""
    size, run, begin = task.size, task.run(), time.perf_counter()
    masks = random_subsets(size.subsets, size.examples, fraction=FRACTION)
    with progress_bar("models of subsets", size.subsets * size.seeds) as update:
        losses = train_subsets(
            run,
            masks,
            seeds=range(size.seeds),
            group=group,
            path=out / "subsets.npz",
            progress=lambda done, _: update(done),
        )
    draw = np.random.default_rng(0)
    left_out = np.sort(draw.choice(size.examples, size.left_out, replace=False))
    with progress_bar("models without an example", 1 + size.left_out) as update:
        differences = leave_one_out(
            run,
            size.examples,
            which=left_out,
            group=group,
            path=out / "left_out.npz",
            progress=lambda done, _: update(done),
        )
    return Truth(masks, losses, left_out, differences, time.perf_counter() - begin)


def judged(scores: np.ndarray, truth: Truth) -> dict[str, Any]:
    """Return the correlations of scores with what retraining gave."""
    same, others = (
        linear_datamodelling_score(scores, truth.masks, losses, resamples=300)
        for losses in (truth.losses[:, 0], truth.losses[:, 1:].mean(axis=1))
    )
    alone = rank_correlation(
        scores[:, truth.left_out], truth.differences, resamples=300
    )
    return {
        "LDS": same.mean,
        "LDS over subsets": same.over_runs,
        "LDS over queries": same.over_queries,
        "LDS other orders": others.mean,
        "LOO": alone.mean,
        "LOO over queries": alone.over_queries,
    }


def timed(scorer: Callable, task: Task) -> tuple[np.ndarray, float, float]:
    """Return scores, CPU seconds of the call, and of a second one that is warm.

    A call of more than a minute is not made twice: compiling is a small part of it.
    """
    seconds = []
    while len(seconds) < 2 and sum(seconds) < 60:
        begin = time.process_time()
        scores = np.asarray(scorer(task))
        seconds.append(time.process_time() - begin)
    return scores, seconds[0], seconds[-1]


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row of the printed table."""
    low, high = row["LDS over subsets"]
    published = PUBLISHED.get(row["score"])
    return {
        "score": row["score"],
        "LDS": f"{row['LDS']:.2f}",
        "95 %": f"{low:.2f} to {high:.2f}",
        "other orders": f"{row['LDS other orders']:.2f}",
        "LOO": f"{row['LOO']:.2f}",
        "CPU s": f"{row['CPU s']:.1f}",
        "first": f"{row['first CPU s']:.1f}",
        "published": "" if published is None else f"{published:.2f}",
    }


def quality_against_cost(rows: Sequence[Mapping], ceiling: float | None):
    """Draw each score's LDS over its CPU seconds."""
    figure, axes = blank("CPU seconds", "LDS", height=4.5)
    axes.set_xscale("log")
    for row in rows:
        low, high = row["LDS over subsets"]
        cost = max(row["CPU s"], 0.01)
        axes.plot([cost, cost], [low, high], color=BLUE, linewidth=1, alpha=0.5)
        axes.plot(cost, row["LDS"], "o", color=BLUE, markersize=4)
        axes.annotate(
            row["score"],
            (cost, row["LDS"]),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=6.5,
            color=INK,
        )
    if ceiling is not None:
        axes.axhline(ceiling, color=INK, linestyle=":", linewidth=1)
        axes.annotate(
            "runs over other orders",
            (axes.get_xlim()[0], ceiling),
            fontsize=6.5,
            color=INK,
            va="bottom",
        )
    axes.axhline(0, color=INK, linewidth=0.7)
    return figure


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except (ValueError, OSError) as error:
        print(f"influence_quality: error: {error}", file=sys.stderr)
        sys.exit(2)
