"""One entry point for all influence scores.

==================== =========================================================
method               score of training example i for query q
==================== =========================================================
gradient_dot         ``<g_q, g_i>``
cosine               the same over ``|g_q| |g_i|``
tracin               the sum over checkpoints of ``rate <g_q, g_i>``
influence_<inverse>  ``<(A + damping I)^-1 g_q, g_i>``; also by the bare name of the
                     inverse: cg, ekfac_cg, lissa, lanczos, nystroem, diagonal,
                     woodbury, datainf, kfac, ekfac
relatif              ekfac (or ``inverse=``) over ``|(A + damping I)^-1 g_i|``
self_influence       of each example on itself; no query
trak, logra          in projected gradients, with their damped Fisher
source, unrolled     through the training run: SOURCE's segments; exactly (MAGIC)
act_act, act_grad    products of activations, and of activations with gradients
==================== =========================================================

Everything is positive for a proponent: training on i lowered the loss of q.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.kronecker.inverse import Damping
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.gradients.vocabulary import check_tokens
from jaxunlearn.influence.coverage import coverage_of
from jaxunlearn.influence.methods.directions import Parts
from jaxunlearn.influence.methods.table import METHODS, method_name
from jaxunlearn.influence.options import goes_with, resolved
from jaxunlearn.influence.result import InfluenceScores
from jaxunlearn.influence.resume import fingerprint_of, open_state
from jaxunlearn.influence.work import Checkpoint, TrainingRun, Work, in_batches
from jaxunlearn.types import Batch, Params, PerExampleLoss


def scores(
    loss: PerExampleLoss,
    params: Params,
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch] | None,
    *,
    method: str = "ekfac",
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
    damping: float | Damping | None = None,
    curvature: str | None = None,
    inverse: str | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    run: TrainingRun | None = None,
    projection: Projection | None = None,
    rank: int | None = None,
    tolerance: float | None = None,
    max_steps: int | None = None,
    aggregate: str | None = None,
    by_layer: bool = False,
    by_token: bool = False,
    groups: Sequence[Any] | None = None,
    key: jax.Array | None = None,
    progress: Callable[[int, int], None] | None = None,
    state: Path | str | None = None,
    keep_directions: bool = False,
) -> InfluenceScores:
    """Return the influence of every training example on every query.

    Args:
      loss: Per-example loss of the training examples.
      params: The trained parameters.
      train: n examples, a batch or batches of one shape. Rows whose ``index`` is
        negative (or, without index, whose ``weight`` is 0) are padding and left out.
      query: Q examples, likewise; None for ``self_influence``.
      method: See the table above. An option that it does not use is refused
        (``options.USED_BY``), so that None, and what it stands for, differ.
      query_loss: Per-example loss of the queries; None is ``loss``.
      layers: Expression of the parameters that count; None is all.
      batch_size: Examples at a time, where the data come as one batch.
      damping: Added to the curvature: a number, or a rule; None is a tenth of the mean
        eigenvalue (``MEAN_EIGENVALUE``). What was used is in the result.
      curvature: Of the iterative inverses: ``"fisher"`` (empirical; None),
        ``"gauss_newton"`` or ``"hessian"``.
      inverse: Of ``relatif`` and ``self_influence``: ``"ekfac"`` (None) or
        ``"identity"``.
      checkpoints: Of the training run, for ``tracin``, ``source``, ``trak`` and
        ``logra``.
      run: The training run itself, for ``unrolled``.
      projection: For ``trak`` (default: dense, 2,048) and ``logra`` (Kronecker, 16 by
        16 a layer).
      rank: Eigenpairs of ``lanczos`` and ``nystroem``; None is 50.
      tolerance: At which ``cg``, ``ekfac_cg`` and ``lissa`` stop; None is 1e-4.
      max_steps: At which they stop too; None is 100.
      aggregate: ``"sum"`` or ``"mean"``: all queries as one. ``gradient_dot`` is then a
        single forward-mode pass.
      by_layer: Also each layer's part.
      by_token: Also each training token's part.
      groups: A label for each training example, whose scores are also summed by it.
      key: Of the random methods.
      progress: Called with (done, in all), anew for each stage of the work.
      state: A directory in which finished parts are kept: the same call, killed and
        made again, goes on after them and gives the same scores. That of another
        model, data or options is refused; the losses are not compared. It is the
        caller's to delete once the scores are safe. ``ekfac`` keeps none of scores
        that take few passes in memory, which are soon computed again. Not for
        ``trak``, ``logra`` (``build_index`` resumes), ``source``, ``unrolled`` and
        activations.
      keep_directions: Also return the directions whose products with the training
        gradients the scores are, for ``token_contributions`` of chosen examples.

    Returns:
      Scores with coverage, damping, sign and what the solvers noted.

    Raises:
      ValueError: An option is unknown, out of range or does not go with the method;
        there is no example; parameters are not finite; ``state`` is of another run.
        Before anything is computed.
    """
    name = method_name(method)
    options = resolved(
        name,
        {
            "query_loss": query_loss,
            "layers": layers,
            "damping": damping,
            "curvature": curvature,
            "inverse": inverse,
            "checkpoints": tuple(checkpoints),
            "run": run,
            "projection": projection,
            "rank": rank,
            "tolerance": tolerance,
            "max_steps": max_steps,
            "aggregate": aggregate,
            "by_layer": by_layer,
            "by_token": by_token,
            "key": key,
            "state": state,
            "keep_directions": keep_directions,
        },
    )
    if (query is None) != (name == "self_influence"):
        raise ValueError(
            f"query={'None' if query is None else 'given'}: method={method!r} "
            f"{'needs one' if query is None else 'takes none, give None'}"
        )
    broken = tree.non_finite_leaves(params)
    if broken:
        raise ValueError(f"params hold NaN or infinity in {', '.join(broken[:5])}")
    batches, real = in_batches("train", train, batch_size)
    queries, real_queries = in_batches(
        "query", train if query is None else query, batch_size
    )
    check_tokens("train", loss, batches)
    check_tokens("query", query_loss or loss, queries)
    if groups is not None and len(groups) != int(real.sum()):
        raise ValueError(
            f"groups has {len(groups)} labels for {int(real.sum())} training examples"
        )
    work = Work(
        loss=loss,
        query_loss=query_loss or loss,
        params=tree.cast(params, jnp.float32),
        train=batches,
        query=queries,
        real=real,
        real_queries=real_queries,
        progress=progress,
        state=None if state is None else Path(state),
        **{option: options[option] for option in WORK_OPTIONS},
    )
    # Raises on an expression that matches nothing.
    covered = coverage_of(loss, work.params, batches[0], layers)
    if goes_with("rank", name) and work.rank > covered["parameters"]:
        raise ValueError(
            f"rank={work.rank}: there are {covered['parameters']} parameters to choose "
            f"directions of; give a lower one"
        )
    if work.state is not None:
        asked = {"aggregate": aggregate, "by_layer": by_layer, "by_token": by_token}
        open_state(work.state, fingerprint_of(work, method=name, **asked))
    parts = Parts(aggregate, by_layer, by_token, keep_directions)
    found = METHODS[name](work, parts)
    index = [b.get("index", np.full(example_count(b), -1)) for b in batches]
    index = np.concatenate(index)[real].astype(np.int64)
    result = InfluenceScores(
        scores=found.scores,
        method=name,
        coverage=covered | found.covered | {"checkpoints": found.checkpoints},
        curvature=found.curvature,
        damping=found.damping,
        notes=found.notes,
        index=index if (index >= 0).all() else np.arange(len(index)),
        by_layer=found.by_layer,
        by_token=found.by_token,
        directions=found.directions if keep_directions else None,
    )
    if groups is None:
        return result
    labels = np.asarray([str(group) for group in groups])
    sums = {g: result.scores[:, labels == g].sum(axis=1) for g in np.unique(labels)}
    return dataclasses.replace(result, groups={str(k): v for k, v in sums.items()})


WORK_OPTIONS = (
    *("layers", "damping", "curvature", "inverse", "checkpoints", "run"),
    *("projection", "rank", "tolerance", "max_steps", "key"),
)
