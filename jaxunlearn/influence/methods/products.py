"""Products with the training gradients: plain, over lengths, over checkpoints."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.forward_mode import directional_scores
from jaxunlearn.gradients.gradient_inner_products import (
    leaf_products,
    products_with,
    token_contributions,
)
from jaxunlearn.gradients.per_example import per_example_norms
from jaxunlearn.influence.methods.directions import (
    MethodResult,
    Parts,
    query_gradients,
    whole,
)
from jaxunlearn.influence.resume import swept
from jaxunlearn.influence.work import Checkpoint, Directions, Work
from jaxunlearn.types import Batch


def by_directions(work: Work, given: Directions, parts: Parts) -> MethodResult:
    """Return the products of the directions with all training gradients."""
    directions = dict(tree.named_leaves(given.vectors))

    def sweep(product: Callable, name: str) -> Any:
        def of_batches(batches: list[Batch]) -> Any:
            arguments = (work.loss, work.params, batches, directions)
            return product(*arguments, layers=work.layers)

        found = swept(work, of_batches, name, axis=1)
        return jax.tree.map(lambda x: x[:, work.real], found)

    layers = sweep(leaf_products, "layers") if parts.by_layer else None
    if layers is None:
        scores = sweep(products_with, "products")
    else:
        scores = np.sum(list(layers.values()), axis=0)
    return MethodResult(
        scores,
        given.curvature,
        given.damping,
        given.notes,
        layers,
        sweep(token_contributions, "tokens") if parts.by_token else None,
        directions=directions,
    )


def gradient_dot(work: Work, parts: Parts) -> MethodResult:
    """Plain gradient products."""
    gradients = query_gradients(work, work.params, parts)
    if not parts.aggregate or parts.by_layer or parts.by_token:
        return by_directions(work, Directions(gradients, "none", None), parts)
    direction = jax.tree.map(lambda x: x[0], whole(work.params, gradients))
    found = swept(
        work,
        lambda batches: directional_scores(work.loss, work.params, batches, direction),
        "products",
    )
    directions = dict(tree.named_leaves(gradients))
    return MethodResult(found[None, work.real], directions=directions)


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


def cosine(work: Work, parts: Parts) -> MethodResult:
    """Gradient products over both lengths; 0 where a gradient is 0."""
    gradients = query_gradients(work, work.params, parts)
    found = by_directions(work, Directions(gradients, "none", None), Parts(None, 0, 0))
    lengths = np.asarray(jax.vmap(tree.norm)(gradients))
    both = np.outer(lengths, example_norms(work))
    scores = np.where(both > 0, found.scores / np.where(both > 0, both, 1), 0.0)
    return dataclasses.replace(found, scores=scores)


def tracin(work: Work, parts: Parts) -> MethodResult:
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
    return MethodResult(total, checkpoints=len(points))
