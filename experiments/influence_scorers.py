"""The scores that ``influence_quality.py`` compares, each from a task to [Q, N]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from influence_task import Task

from jaxunlearn import influence
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence import Checkpoint, TrainingRun
from jaxunlearn.influence.methods.lexical import bm25
from jaxunlearn.influence.options import used_by
from jaxunlearn.tree import norm, subtract
from jaxunlearn.types import Batch

Scorer = Callable[[Task], np.ndarray]
"""From a task to scores [Q, N], > 0 for proponents."""


def by_method(
    method: str, options: Callable[[Task], dict[str, Any]] | None = None
) -> Scorer:
    """Return the scorer of ``influence.scores(method=...)`` at the trained model."""

    def score(task: Task) -> np.ndarray:
        return influence.scores(
            task.model.per_example_loss,
            task.checkpoints()[-1],
            task.train,
            task.query,
            method=method,
            **({} if options is None else used_by(method, options(task))),
        ).scores

    return score


def gauss_newton(task: Task) -> dict[str, Any]:
    """The curvature of the iterative inverses."""
    return {
        "curvature": "gauss_newton",
        "key": jax.random.key(0),
        "max_steps": task.size.steps,
        "rank": min(50, 2 * task.size.steps),
    }


def the_run(task: Task) -> dict[str, Any]:
    """The training run itself."""
    return {"run": TrainingRun(task.step, task.state(), task.batches())}


def epochs(task: Task) -> dict[str, Any]:
    """The parameters after each epoch, and the schedule's rate in its middle."""
    size = task.size
    middles = (np.arange(size.epochs) + 0.5) / size.epochs
    rates = size.learning_rate * (1 + np.cos(np.pi * middles)) / 2
    points = zip(task.checkpoints(), rates.tolist(), strict=True)
    return {"checkpoints": [Checkpoint(params, rate) for params, rate in points]}


def segments(task: Task) -> dict[str, Any]:
    """The epochs, each with the rate at which plain descent would go as far as Adam."""
    loss = task.model.per_example_loss
    steps = task.steps // task.size.epochs
    gradient = jax.jit(jax.grad(lambda p: jnp.mean(loss(p, task.train))))
    points, before = [], task.start
    for after in task.checkpoints():
        rate = norm(subtract(after, before)) / norm(gradient(before)) / steps
        points.append(Checkpoint(after, float(rate), steps))
        before = after
    return {"checkpoints": points}


def models(count: int) -> Callable[[Task], dict[str, Any]]:
    """Return the option of ``count`` models, each trained in another order."""

    def options(task: Task) -> dict[str, Any]:
        trained = [task.checkpoints(seed)[-1] for seed in range(count)]
        return {
            "checkpoints": [Checkpoint(params) for params in trained],
            "projection": Projection("dense", (1024,)),
        }

    return options


def words(task: Task) -> np.ndarray:
    """BM25 over the tokens."""

    def texts(batch: Batch) -> list[np.ndarray]:
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [ids[mask > 0] for ids, mask in rows]

    return bm25(texts(task.train), texts(task.query))


def chance(task: Task) -> np.ndarray:
    """Random numbers."""
    shape = (task.size.queries, task.size.examples)
    return np.random.default_rng(0).normal(size=shape)


SCORERS: dict[str, Scorer] = {
    "unrolled (MAGIC)": by_method("unrolled", the_run),
    "SOURCE": by_method("source", segments),
    "EK-FAC + CG": by_method("ekfac_cg", gauss_newton),
    "EK-FAC": by_method("ekfac"),
    "influence, CG": by_method("cg", gauss_newton),
    "influence, LiSSA": by_method("lissa", gauss_newton),
    "influence, Arnoldi": by_method("lanczos", gauss_newton),
    "influence, Woodbury": by_method("woodbury"),
    "DataInf": by_method("datainf"),
    "RelatIF": by_method("relatif"),
    "TRAK x1": by_method("trak", models(1)),
    "TRAK x4": by_method("trak", models(4)),
    "LoGra": by_method("logra"),
    "TracIn": by_method("tracin", epochs),
    "gradient dot": by_method("gradient_dot"),
    "gradient cosine": by_method("cosine"),
    "act_grad": by_method("act_grad"),
    "act_act": by_method("act_act"),
    "BM25": words,
    "random": chance,
}
