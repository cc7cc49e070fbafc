"""What is tracked of one checkpoint: scores, losses, gradient norms, curvature."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import (
    LayerLoss,
    layer_loss,
    masks,
    selection,
    stacked_folders,
)
from jaxunlearn.gradients.batching import rows_of
from jaxunlearn.gradients.curvature_products import hvp
from jaxunlearn.gradients.mean_products import twice_differentiable
from jaxunlearn.gradients.per_example import (
    SQUARED_NORMS,
    per_example_gradients,
)
from jaxunlearn.gradients.taps.statistics import layer_statistics
from jaxunlearn.influence.coverage import coverage_of
from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.influence.options import used_by
from jaxunlearn.influence.scoring import scores
from jaxunlearn.influence.tracking.files import InfluenceTrack
from jaxunlearn.models.parts import part_of, place_of
from jaxunlearn.provenance import params_hash
from jaxunlearn.types import Batch, Params, PerExampleLoss


@dataclasses.dataclass(frozen=True)
class Tracking:
    """What is tracked, checked."""

    loss: PerExampleLoss
    query_loss: PerExampleLoss
    train: list[Batch]
    query: list[Batch]
    real: np.ndarray  # bool: which rows of all training batches are examples
    real_queries: np.ndarray
    curvature_data: Batch
    methods: tuple[str, ...]
    layers: str | None
    options: dict[str, Any]


def point_of(asked: Tracking, params: Params) -> InfluenceTrack:
    """Return the track of one checkpoint."""
    broken = tree.non_finite_leaves(params)
    if broken:
        raise ValueError(f"params hold NaN or infinity in {', '.join(broken[:5])}")
    point = tree.cast(params, jnp.float32)
    found, solvers = {}, {}
    for name in asked.methods:
        found[name], solvers[name] = scores_of(asked, point, name)
    losses = losses_of(asked.loss, point, asked.train)[asked.real]
    query_losses = losses_of(asked.query_loss, point, asked.query)
    rows = Partial(norm_rows, layer_loss(asked.query_loss, asked.layers), point)
    norms = rows_of(rows, asked.query, batch_size=None)
    groups = sorted(norms, key=place_of)
    index = np.concatenate([batch["index"] for batch in asked.train])[asked.real]
    return InfluenceTrack(
        scores={k: np.asarray(v, np.float32)[None] for k, v in found.items()},
        losses=losses[None],
        query_losses=query_losses[asked.real_queries][None],
        gradient_norms=np.stack(
            [np.asarray(norms[g])[asked.real_queries] for g in groups]
        )[None],
        groups=tuple(groups),
        index=index.astype(np.int64),
        coverage=coverage_of(asked.loss, point, asked.train[0], asked.layers),
        solvers={k: (v,) for k, v in solvers.items()},
        hashes=(params_hash(params),),
    )


def scores_of(asked: Tracking, params: Params, name: str) -> tuple[np.ndarray, dict]:
    """Return a method's scores [Q,N] at a checkpoint, and what its solver said."""
    told: dict[str, Any] = {"curvature": "none", "damping": None, "notes": []}
    if name == "hvp":
        size = len(asked.train[0]["weight"])
        along = Along(layer_loss(asked.loss, asked.layers), size)
        rows = Partial(curvature_rows, along, params, asked.curvature_data)
        with twice_differentiable():
            found = rows_of(rows, asked.train, batch_size=None)
        return np.asarray(found)[None, asked.real], told | {"curvature": "hessian"}
    if name in ("act_act", "act_grad"):
        found = activation_scores(
            asked.loss,
            params,
            asked.train,
            asked.query,
            kind=name,
            query_loss=asked.query_loss,
            layers=asked.layers,
        ).scores
        return np.asarray(found)[asked.real_queries][:, asked.real], told
    result = scores(
        asked.loss,
        params,
        asked.train,
        asked.query,
        method=name,
        query_loss=asked.query_loss,
        layers=asked.layers,
        **used_by(name, asked.options),
    )
    return result.scores, {
        "curvature": result.curvature,
        "damping": result.damping,
        "notes": list(result.notes),
    }


def losses_of(loss: PerExampleLoss, params: Params, batches: list) -> np.ndarray:
    """Return the losses of all rows."""
    rows = Partial(loss_rows, layer_loss(loss, None), params)
    return np.asarray(rows_of(rows, batches, batch_size=None), np.float32)


def loss_rows(target: LayerLoss, params: Params, batch: Batch) -> jax.Array:
    """Return the losses of a batch."""
    return target.loss(params, batch)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Along:
    """What a curvature is of, ``batch_size`` examples at a time."""

    target: LayerLoss
    batch_size: int = dataclasses.field(metadata={"static": True})


def curvature_rows(
    along: Along, params: Params, data: Batch, batch: Batch
) -> jax.Array:
    """Return ``u^T H u`` of each example's unit gradient u, float32[B].

    An example at a time: one gradient in memory.
    """
    loss, layers = along.target.loss, along.target.layers
    mask = selection(loss, params, layers)

    def of_example(example: Batch) -> jax.Array:
        alone = jax.tree.map(lambda x: x[None], example)
        own = jax.grad(lambda p: loss(p, alone)[0])(params)
        if mask is not None:
            own = tree.masked(own, mask)
        length = tree.norm(own)
        # Normalised first: the product with a small gradient would lose its bits.
        unit = tree.scaled(1 / jnp.where(length > 0, length, 1.0), own)
        moved = hvp(
            loss,
            params,
            data,
            unit,
            layers=layers,
            batch_size=along.batch_size,
        )
        return tree.vdot(unit, moved)

    return jax.lax.map(of_example, dict(batch))


def norm_rows(target: LayerLoss, params: Params, batch: Batch) -> dict[str, jax.Array]:
    """Return the norms of a batch's gradients by part of the model, float32[B] each."""
    found, views = layer_statistics(
        target.loss, params, batch, SQUARED_NORMS, layers=target.layers
    )
    kept = masks(target.loss, params, target.layers)
    leaves = dict(tree.named_leaves(params))
    stacked = stacked_folders(target.loss, params)
    layers = {name: tree.layer_names(name, leaves[name], stacked) for name in found}
    by_layer = {k: x.reshape(-1, x.shape[-1]) for k, x in found.items()}
    # A leaf without taps comes whole, however many layers are stacked in it.
    whole = [name for name in found if len(layers[name]) != len(by_layer[name])]
    if whole:
        names = "|".join(re.escape(layer) for name in whole for layer in layers[name])
        own = per_example_gradients(target.loss, params, batch, layers=f"^(?:{names})$")
        for name, x in tree.named_leaves(own):
            squared = x.reshape(*x.shape[:2], -1) ** 2
            by_layer[name] = squared.sum(axis=-1).T
    squares: dict[str, jax.Array] = {}
    for name, values in by_layer.items():
        chosen_layers = np.broadcast_to(np.ravel(kept[name]), len(values))
        for layer, value, one in zip(layers[name], values, chosen_layers, strict=True):
            if one:
                group = part_of(layer)
                squares[group] = squares.get(group, jnp.float32(0)) + value
    return {group: jnp.sqrt(value) for group, value in squares.items()}
