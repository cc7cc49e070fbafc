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
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.forward_mode import directional_scores
from jaxunlearn.gradients.kronecker.fit import fit_ekfac
from jaxunlearn.gradients.kronecker.inverse import Damping, kronecker_inverse_vp
from jaxunlearn.gradients.kronecker.query_scores import ekfac_scores
from jaxunlearn.gradients.per_example import per_example_gradients, per_example_norms
from jaxunlearn.gradients.products import (
    leaf_products,
    products_with,
    token_contributions,
)
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.influence.coverage import coverage_of
from jaxunlearn.influence.methods import inverses
from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.influence.methods.inverses import INVERSES, Inverted
from jaxunlearn.influence.methods.projected import projected_scores
from jaxunlearn.influence.methods.source import (
    Segment,
    kronecker_eigenbasis,
    source_influence,
)
from jaxunlearn.influence.methods.unrolled import unrolled_influence
from jaxunlearn.influence.options import goes_with, resolved
from jaxunlearn.influence.result import InfluenceScores
from jaxunlearn.influence.resume import (
    fingerprint_of,
    kept_directions,
    open_state,
    swept,
)
from jaxunlearn.influence.work import (
    Checkpoint,
    TrainingRun,
    Work,
    in_batches,
    joined,
)
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
        caller's to delete once the scores are safe. Not for ``trak``, ``logra``
        (``build_index`` resumes), ``source``, ``unrolled`` and activations.
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


def method_name(method: str) -> str:
    """Return a method's name in ``METHODS``.

    Raises:
      ValueError: There is no such method.

    >>> method_name("influence_ekfac"), method_name("magic")
    ('ekfac', 'unrolled')
    """
    name = method.removeprefix("influence_")
    name = {"arnoldi": "lanczos", "magic": "unrolled", "identity": "gradient_dot"}.get(
        name, name
    )
    if name not in METHODS:
        raise ValueError(f"method={method!r}: one of {', '.join(METHODS)}")
    return name


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which parts of the scores are asked for."""

    aggregate: str | None
    by_layer: bool
    by_token: bool
    directions: bool = False


@dataclasses.dataclass(frozen=True)
class Found:
    """What a method returns."""

    scores: np.ndarray
    curvature: str = "none"
    damping: Any = None
    notes: tuple[str, ...] = ()
    by_layer: dict[str, np.ndarray] | None = None
    by_token: np.ndarray | None = None
    checkpoints: int = 1
    covered: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What its coverage is in place of that of gradients."""
    directions: dict[str, jax.Array] | None = None


def query_gradients(work: Work, params: Params, parts: Parts) -> Params:
    """Return the queries' gradients, leaves [Q, ...]; of all as one, [1, ...]."""
    gradients = per_example_gradients(
        work.query_loss, params, work.query, layers=work.layers
    )
    gradients = jax.tree.map(lambda x: x[jnp.asarray(work.real_queries)], gradients)
    if parts.aggregate is None:
        return gradients
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[parts.aggregate]
    return jax.tree.map(lambda x: reduce(x, axis=0, keepdims=True), gradients)


def aggregated(scores: np.ndarray, parts: Parts) -> np.ndarray:
    """Return scores of single queries as one row, where that is asked for."""
    if parts.aggregate is None:
        return scores
    reduce = {"sum": np.sum, "mean": np.mean}[parts.aggregate]
    return reduce(scores, axis=0, keepdims=True)


def by_directions(work: Work, inverted: Inverted, parts: Parts) -> Found:
    """Return the products of the directions with all training gradients."""
    directions = dict(tree.named_leaves(inverted.directions))

    def sweep(product: Callable, name: str) -> Any:
        def of_batches(batches: list[Batch]) -> Any:
            given = (work.loss, work.params, batches, directions)
            return product(*given, layers=work.layers)

        found = swept(work, of_batches, name, axis=1)
        return jax.tree.map(lambda x: x[:, work.real], found)

    layers = sweep(leaf_products, "layers") if parts.by_layer else None
    if layers is None:
        scores = sweep(products_with, "products")
    else:
        scores = np.sum(list(layers.values()), axis=0)
    return Found(
        scores,
        inverted.curvature,
        inverted.damping,
        inverted.notes,
        layers,
        sweep(token_contributions, "tokens") if parts.by_token else None,
        directions=directions,
    )


def gradient_dot(work: Work, parts: Parts) -> Found:
    """Plain gradient products."""
    gradients = query_gradients(work, work.params, parts)
    if not parts.aggregate or parts.by_layer or parts.by_token:
        return by_directions(work, Inverted(gradients, "none", None), parts)
    direction = jax.tree.map(lambda x: x[0], inverses.whole(work, gradients))
    found = swept(
        work,
        lambda batches: directional_scores(work.loss, work.params, batches, direction),
        "products",
    )
    directions = dict(tree.named_leaves(gradients))
    return Found(found[None, work.real], directions=directions)


def by_inverse(name: str) -> Callable[[Work, Parts], Found]:
    """Return influence functions with one of the inverses."""

    def score(work: Work, parts: Parts) -> Found:
        def invert() -> Inverted:
            gradients = query_gradients(work, work.params, parts)
            return INVERSES[name](work, gradients)

        return by_directions(work, kept_directions(work, invert), parts)

    return score


def ekfac(work: Work, parts: Parts) -> Found:
    """EK-FAC; in one pass over the data where only the scores are asked for."""
    whole = parts == Parts(None, False, False)
    if not whole or work.state is not None:
        return by_inverse("ekfac")(work, parts)
    found = ekfac_scores(
        work.loss,
        work.params,
        work.train,
        work.query,
        query_loss=work.query_loss,
        layers=work.layers,
        damping=inverses.MEAN_EIGENVALUE if work.damping is None else work.damping,
        progress=work.progress,
    )
    kept = found.scores[np.ix_(work.real_queries, work.real)]
    return Found(kept, "fisher, ekfac", found.damping)


def example_norms(work: Work) -> np.ndarray:
    """Return the norm of each training example's gradient, float32[n]."""
    norms = swept(
        work,
        lambda batches: per_example_norms(
            work.loss, work.params, batches, layers=work.layers
        ),
        "norms",
    )
    return norms[work.real]


def cosine(work: Work, parts: Parts) -> Found:
    """Gradient products over both lengths; 0 where a gradient is 0."""
    gradients = query_gradients(work, work.params, parts)
    found = by_directions(work, Inverted(gradients, "none", None), Parts(None, 0, 0))
    lengths = np.asarray(jax.vmap(tree.norm)(gradients))
    both = np.outer(lengths, example_norms(work))
    scores = np.where(both > 0, found.scores / np.where(both > 0, both, 1), 0.0)
    return dataclasses.replace(found, scores=scores)


def tracin(work: Work, parts: Parts) -> Found:
    """TracIn: gradient products at checkpoints, weighed by their learning rates."""
    points = work.checkpoints or (Checkpoint(work.params),)
    total: Any = 0.0
    for done, point in enumerate(points):
        params = tree.cast(point.params, jnp.float32)
        gradients = query_gradients(work, params, parts)

        def of_batches(
            batches: list[Batch], params: Any = params, gradients: Any = gradients
        ) -> jax.Array:
            return products_with(
                work.loss, params, batches, gradients, layers=work.layers
            )

        found = swept(work, of_batches, f"checkpoint{done}", axis=1)
        total = total + point.learning_rate * found[:, work.real]
        if work.progress is not None:
            work.progress(done + 1, len(points))
    return Found(total, checkpoints=len(points))


def moved_norms(work: Work) -> tuple[np.ndarray, np.ndarray, Any, str, Any]:
    """Return ``|A^-1 g_i|`` and ``g_i . A^-1 g_i`` of every training example."""
    if work.inverse == "identity":
        norms = example_norms(work)
        return norms, norms**2, None, "none", None
    factors = inverses.kronecker_factors(work, fit_ekfac)
    rule = inverses.MEAN_EIGENVALUE if work.damping is None else work.damping

    def of_batch(params: Params, factors: Any, batch: Batch) -> tuple:
        own = per_example_gradients(work.loss, params, batch, layers=work.layers)
        own = inverses.whole(work, own)
        moved = kronecker_inverse_vp(factors, own, damping=rule)
        return jax.vmap(tree.norm)(moved), jax.vmap(tree.vdot)(own, moved)

    compiled = jax.jit(of_batch)

    def of_batches(batches: list[Batch]) -> dict[str, np.ndarray]:
        parts = [jax.device_get(compiled(work.params, factors, b)) for b in batches]
        norms, selves = (np.concatenate(x) for x in zip(*parts, strict=True))
        return {"norms": norms, "selves": selves}

    found = swept(work, of_batches, "moved")
    norms, selves = found["norms"][work.real], found["selves"][work.real]
    damping = inverses.told_damping(factors, rule)
    return norms, selves, factors, "fisher, ekfac", damping


def relatif(work: Work, parts: Parts) -> Found:
    """Theta-RelatIF (Barshan et al., 2020): influence over the parameters' change."""
    norms, _, factors, curvature, damping = moved_norms(work)
    gradients = query_gradients(work, work.params, parts)
    if factors is not None:
        rule = inverses.MEAN_EIGENVALUE if work.damping is None else work.damping
        gradients = kronecker_inverse_vp(
            factors, inverses.whole(work, gradients), damping=rule
        )
    found = by_directions(work, Inverted(gradients, curvature, damping), parts)
    safe = np.where(norms > 0, norms, 1.0)
    return dataclasses.replace(found, scores=found.scores / safe)


def self_influence(work: Work, parts: Parts) -> Found:
    """Each example's influence on itself, [1,n]."""
    _, selves, _, curvature, damping = moved_norms(work)
    return Found(selves[None], curvature, damping)


def source(work: Work, parts: Parts) -> Found:
    """SOURCE, a segment a checkpoint, with EK-FAC."""
    if not work.checkpoints:
        raise ValueError("checkpoints is empty: source needs those of the training run")
    segments = []
    for done, point in enumerate(work.checkpoints):
        params = tree.cast(point.params, jnp.float32)
        factors = fit_ekfac(work.loss, params, work.train, layers=work.layers)
        basis = kronecker_eigenbasis(factors, params)
        segments.append(Segment([params], basis, point.learning_rate, point.steps))
        if work.progress is not None:
            work.progress(done + 1, len(work.checkpoints))
    last = segments[-1].checkpoints[0]
    gradients = inverses.whole(work, query_gradients(work, last, parts))
    places = np.cumsum(work.real) - 1
    places = np.where(work.real, places, -1).astype(np.int32)
    sizes = [example_count(batch) for batch in work.train]
    train = [
        {**batch, "index": part}
        for batch, part in zip(
            work.train, np.split(places, np.cumsum(sizes)[:-1]), strict=True
        )
    ]
    count = int(work.real.sum())
    found = source_influence(work.loss, segments, train, gradients, examples=count)
    return Found(found, "fisher, ekfac", None, checkpoints=len(segments))


def unrolled(work: Work, parts: Parts) -> Found:
    """The exact derivative through the training run."""
    if work.run is None:
        raise ValueError(
            "run=None: unrolled goes through the training run again; give "
            "TrainingRun(step, state, batches), with a step of make_weighted_step"
        )
    query = jax.tree.map(lambda x: x[work.real_queries], dict(joined(work.query)))

    def losses(state: Any) -> jax.Array:
        found = work.query_loss(state.params, query)
        if parts.aggregate is None:
            return found
        return {"sum": jnp.sum, "mean": jnp.mean}[parts.aggregate](found)[None]

    count = int(work.real.sum())
    found = unrolled_influence(
        work.run.step,
        work.run.state,
        work.run.batches,
        losses,
        examples=count,
        progress=work.progress,
    )
    return Found(
        found.scores,
        "the run's own",
        checkpoints=len(work.run.batches),
        covered={"tapped": 0},
    )


def by_projection(kind: str) -> Callable[[Work, Parts], Found]:
    """Return TRAK or LoGra."""

    def score(work: Work, parts: Parts) -> Found:
        found, damping, runs = projected_scores(work, kind)
        return Found(
            aggregated(found, parts), "projected fisher", damping, checkpoints=runs
        )

    return score


def by_activations(kind: str) -> Callable[[Work, Parts], Found]:
    """Return ``act_act`` or ``act_grad``."""

    def score(work: Work, parts: Parts) -> Found:
        query = jax.tree.map(lambda x: x[work.real_queries], dict(joined(work.query)))
        found, layers = activation_scores(
            work.loss, work.params, work.train, query, kind=kind, layers=work.layers
        )
        found = np.asarray(found)[:, work.real]
        seen = f"^(?:{'|'.join(map(re.escape, layers))})$"
        mask = tree.select(work.params, seen, stacked=work.stacked)
        count = tree.selected_size(work.params, mask)
        covered = {"parameters": None, "tapped": count}
        return Found(aggregated(found, parts), covered=covered)

    return score


METHODS: dict[str, Callable[[Work, Parts], Found]] = {
    "gradient_dot": gradient_dot,
    "cosine": cosine,
    "tracin": tracin,
    **{name: by_inverse(name) for name in INVERSES if name != "identity"},
    "ekfac": ekfac,
    "relatif": relatif,
    "self_influence": self_influence,
    "trak": by_projection("trak"),
    "logra": by_projection("logra"),
    "source": source,
    "unrolled": unrolled,
    "act_act": by_activations("act_act"),
    "act_grad": by_activations("act_grad"),
}
"""The named table of methods."""
