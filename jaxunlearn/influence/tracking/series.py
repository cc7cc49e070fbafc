"""Influence through training: each example's score on each query, epoch by epoch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxunlearn.influence.resume import batches_hash, open_state
from jaxunlearn.influence.tracking.files import (
    InfluenceTrack,
    joined_tracks,
    load_track,
    save_track,
)
from jaxunlearn.influence.tracking.point import Tracking, point_of
from jaxunlearn.influence.tracking.request import checked_tracking
from jaxunlearn.provenance import params_hash
from jaxunlearn.types import Batch, Params, PerExampleLoss


def track(
    loss: PerExampleLoss,
    checkpoints: Iterable[Params],
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch],
    *,
    methods: Sequence[str] = ("gradient_dot",),
    query_loss: PerExampleLoss | None = None,
    layers: str | None = None,
    batch_size: int | None = None,
    curvature_data: Batch | None = None,
    options: Mapping[str, Any] | None = None,
    state: Path | str | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
) -> InfluenceTrack:
    """Return the scores of all training examples on all queries at every checkpoint.

    The methods are those of :func:`jaxunlearn.influence.scores` that look at one set of
    parameters (``TRACKED``), at each checkpoint as that function gives them, and::

        hvp   S(i) = g_i^T H g_i / |g_i|^2

    the curvature of the mean training loss along example i's own gradient: how much
    faster than its first order says the loss changes when one goes along it. It asks
    no query, so it has one row; 0 where the gradient is 0. TracIn is the sum over the
    checkpoints of ``rate * scores["gradient_dot"]``.

    Args:
      loss: Per-example loss of the training examples.
      checkpoints: Parameters in the order of training, usually those before the first
        step and after every epoch. A generator has one of them in memory at a time.
      train: N examples, a batch or batches of one shape.
      query: Q examples, likewise: the examples to forget, say.
      methods: Names in ``TRACKED``.
      query_loss: Per-example loss of the queries; None is ``loss``.
      layers: Expression of the parameters that count; None is all. Of ``act_act`` and
        ``act_grad``, the weight matrices.
      batch_size: Examples at a time, where the data come as one batch; the result does
        not depend on it.
      curvature_data: The examples whose mean loss H is of; None is ``train``. A few
        dozen are usually enough.
      options: Further keyword options of ``scores``: damping, curvature, rank,
        tolerance, max_steps, key; each method is given those that it uses.
      state: A directory in which each finished checkpoint is kept: the same call,
        killed and made again, goes on after them. That of other data, options or
        checkpoints is refused; the losses, being functions, are not compared.
      on_checkpoint: Called with the number of checkpoints done, after each.

    Returns:
      The series, with losses, gradient norms by layer, coverage and signs.

    Raises:
      ValueError: There is no checkpoint, example or method; an option is unknown;
        parameters are not finite or not shaped like those before; ``state`` is of
        another run.

    Cost: that of ``scores``, a checkpoint and method; for ``hvp``, N Hessian-vector
    products of ``curvature_data``, each about 2.5 gradients an example of it. Compiled
    once for all checkpoints, except the inverses that solve or decompose (cg, ekfac_cg,
    lissa, lanczos, nystroem, woodbury, datainf) and relatif, which compile at each.

    Source: Pruthi et al., Estimating training data influence by tracing gradient
    descent, 2020, for the products along training; the curvature is a reconstruction
    of the "Hessian-vector product" that Zagardo (2024) names without its equation.

    >>> import jax.numpy as jnp
    >>> loss = lambda params, batch: params**2 * batch["x"]
    >>> data = {"x": jnp.array([1.0, 3.0])}
    >>> found = track(loss, [jnp.float32(0.5), jnp.float32(1.0)], data,
    ...               {"x": jnp.array([1.0])}, methods=("gradient_dot", "hvp"))
    >>> found.scores["gradient_dot"].tolist(), found.scores["hvp"].tolist()
    ([[[1.0, 3.0]], [[4.0, 12.0]]], [[[4.0, 4.0]], [[4.0, 4.0]]])
    """
    if isinstance(checkpoints, Mapping):
        raise ValueError(
            "checkpoints is one tree of parameters: give a sequence of them, [params]"
        )
    asked = checked_tracking(
        loss,
        train,
        query,
        methods=methods,
        query_loss=query_loss,
        layers=layers,
        batch_size=batch_size,
        curvature_data=curvature_data,
        options=options,
    )
    directory = opened(state, asked)
    found: list[InfluenceTrack] = []
    for number, params in enumerate(checkpoints):
        path = None if directory is None else point_path(directory, number)
        if path is not None and path.is_file():
            point = load_track(path)
            if point.hashes != (params_hash(params),):
                raise ValueError(
                    f"state={directory} holds other parameters as checkpoint "
                    f"{number}: delete that folder, or track into another place"
                )
        else:
            point = point_of(asked, params)
            if path is not None:
                save_track(path, point)
        found.append(point)
        if on_checkpoint is not None:
            on_checkpoint(len(found))
    return joined_tracks(found)


def tracked_during(
    loss: PerExampleLoss,
    train: Batch | Iterable[Batch],
    query: Batch | Iterable[Batch],
    *,
    state: Path | str | None = None,
    **given: Any,
) -> "Tracker":
    """Return what to hand to ``training.train`` as ``evaluate=``.

    Args:
      loss: As in :func:`track`, like all other arguments.
      train: The training examples.
      query: The queries.
      state: A directory that keeps each evaluation. Of a run that is taken up again,
        evaluations that it repeats are read from there, known by their parameters.
      **given: methods, query_loss, layers, batch_size, curvature_data, options.

    Returns:
      A function of parameters whose ``track()`` gives the series of all its calls.

    Raises:
      ValueError: As :func:`track`, at once.
    """
    asked = checked_tracking(loss, train, query, **given)
    return Tracker(asked, opened(state, asked))


class Tracker:
    """An evaluation that tracks: call it with parameters; ``track()`` is the series."""

    def __init__(self, asked: Tracking, directory: Path | None):
        """Start with what the directory holds."""
        self.asked, self.directory = asked, directory
        self.points: list[InfluenceTrack] = []
        if directory is not None:
            self.points = [load_track(p) for p in sorted(directory.glob(POINTS))]
        self.before = {point.hashes[0]: point for point in self.points}

    def __call__(self, params: Params) -> dict[str, float]:
        """Return the means of losses and scores, by names for a table."""
        point = None
        if self.before:
            point = self.before.pop(params_hash(params), None)
        if point is None:
            point = point_of(self.asked, params)
            if self.directory is not None:
                save_track(point_path(self.directory, len(self.points)), point)
            self.points.append(point)
        means = {f"influence/{k}": float(v.mean()) for k, v in point.scores.items()}
        return means | {
            "influence/train_loss": float(point.losses.mean()),
            "influence/query_loss": float(point.query_losses.mean()),
        }

    def track(self) -> InfluenceTrack:
        """Return the series so far.

        Raises:
          ValueError: There was no call.
        """
        return joined_tracks(self.points)


POINTS = "checkpoint-*.npz"


def point_path(directory: Path, number: int) -> Path:
    """Return where a checkpoint's track is kept."""
    return directory / POINTS.replace("*", f"{number:06d}")


def opened(state: Path | str | None, asked: Tracking) -> Path | None:
    """Return the directory of finished checkpoints, made or found to be of this run."""
    if state is None:
        return None
    directory, options = Path(state), dict(asked.options)
    if options.get("key") is not None:
        options["key"] = jax.random.key_data(options["key"]).tolist()
    fingerprint = {
        "train": batches_hash(asked.train),
        "query": batches_hash(asked.query),
        "curvature_data": batches_hash([asked.curvature_data]),
        "methods": list(asked.methods),
        "layers": asked.layers,
        "options": options,
    }
    open_state(directory, fingerprint)
    return directory
