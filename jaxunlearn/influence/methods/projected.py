"""Scores in projected gradients, with their damped Fisher: TRAK and LoGra."""

import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.kronecker.inverse import MEAN_EIGENVALUE, Damping
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.gradients.projections.rows import (
    gradient_row_layout,
    projected_gradients,
)
from jaxunlearn.influence.work import Checkpoint, Work

DEFAULTS = {"trak": Projection("dense", (2048,)), "logra": Projection()}


def projected_scores(work: Work, kind: str) -> tuple[np.ndarray, list, int]:
    """Return (scores [Q,n], dampings, checkpoints).

    ``row_q^T (R^T R / n + damping I)^-1 row_i``, block by block of the row: one block
    for TRAK, one a layer for LoGra (Choe et al., What is your data worth to GPT?,
    2024, equation 3). TRAK (Park et al., 2023, equation 17) is the mean of this over
    checkpoints; here of the loss's gradients. For a model output f with
    ``l = log(1 + e^-f)`` these are TRAK's, ``grad f`` times its factor 1 - p.
    """
    projection = work.projection or DEFAULTS[kind]
    points = work.checkpoints or (Checkpoint(work.params),)
    rule = MEAN_EIGENVALUE if work.damping is None else work.damping
    total, dampings = 0.0, []
    for done, point in enumerate(points):
        params = tree.cast(point.params, jnp.float32)
        train, query = (
            np.asarray(
                projected_gradients(
                    loss, params, batches, projection, layers=work.layers
                )
            )[real]
            for loss, batches, real in (
                (work.loss, work.train, work.real),
                (work.query_loss, work.query, work.real_queries),
            )
        )
        blocks = gradient_row_layout(
            work.loss, params, work.train[0], projection, layers=work.layers
        )
        for block in blocks:
            part = slice(block.offset, block.offset + block.size)
            found, damping = damped_products(query[:, part], train[:, part], rule)
            total = total + found
            dampings.append(damping)
        if work.progress is not None:
            work.progress(done + 1, len(points))
    return np.asarray(total / len(points), np.float32), dampings, len(points)


def damped_products(
    query: np.ndarray, train: np.ndarray, rule: float | Damping
) -> tuple[np.ndarray, float]:
    """Return ``q (R^T R / n + damping I)^-1 R^T`` and the damping, in float64."""
    query, train = query.astype(np.float64), train.astype(np.float64)
    count, width = train.shape
    damping = rule.value if isinstance(rule, Damping) else rule
    if isinstance(rule, Damping) and rule.rule == "mean_eigenvalue":
        damping = rule.value * np.sum(train**2) / (count * width)
    if not np.any(train):
        return np.zeros((len(query), count)), float(damping)
    if width <= count:
        fisher = train.T @ train / count + damping * np.eye(width)
        return np.linalg.solve(fisher, query.T).T @ train.T, float(damping)
    # Fewer examples than numbers: the same through the n x n Gram matrix, as
    # (R^T R / n + d I)^-1 R^T = R^T (R R^T / n + d I)^-1.
    gram = train @ train.T
    inner = gram / count + damping * np.eye(count)
    return np.linalg.solve(inner, (query @ train.T).T).T, float(damping)
