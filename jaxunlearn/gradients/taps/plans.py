"""What happens at each layer on the way back, decided before anything is computed."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import masks
from jaxunlearn.gradients.batching import example_weights
from jaxunlearn.gradients.taps.eligibility import Site, Survey, survey
from jaxunlearn.gradients.taps.heads import HeadProducts
from jaxunlearn.gradients.taps.outer_products import (
    OuterProducts,
    Products,
    is_lookup,
)
from jaxunlearn.types import Batch, Params, PerExampleLoss


class View(NamedTuple):
    """How a leaf is a stack of matrices [L,R]."""

    stack: tuple[int, ...]  # its leading axes, sliced by scans
    rows: int  # L
    columns: int  # R


class Statistic(NamedTuple):
    """What to leave of a matrix's per-example gradients.

    Attributes:
      of: ``(products, weight float32[B], rows, extra) -> arrays``.
      linear: A parameter's statistic is the sum over the places where it is used.
      summed: The arrays are sums over the examples; else their leading axis is B.
      lead: How many axes of ``extra`` stand before those of the stack.
    """

    of: Callable[[Products, jax.Array, int, Any], Any]
    linear: bool
    summed: bool
    lead: int = 0


def layer_numbers(stack: tuple[int, ...]) -> jax.Array:
    """Return the number of each layer of a stack, int32[*stack]."""
    return jnp.arange(math.prod(stack), dtype=jnp.int32).reshape(stack)


def of_layer(extra: Any, layer: jax.Array, *, stack: tuple[int, ...], lead: int) -> Any:
    """Return one layer's part of ``extra``, whose stack stands after ``lead`` axes."""

    def part(x: jax.Array) -> jax.Array:
        end = lead + len(stack)
        flat = x.reshape(*x.shape[:lead], math.prod(stack), *x.shape[end:])
        return jax.lax.dynamic_index_in_dim(flat, layer, axis=lead, keepdims=False)

    return jax.tree.map(part, extra) if stack else extra


class Prepared(NamedTuple):
    """What is known of a loss at a point before anything is computed."""

    batch: Batch
    weight: jax.Array  # float32[B]
    leaves: dict[str, jax.Array]
    survey: Survey
    views: dict[str, View]
    places: dict[str, int]  # leaf -> at how many sites it is used
    masks: dict[str, Any]  # leaf -> which of it is selected


def prepare(
    loss: PerExampleLoss, params: Params, batch: Batch, layers: str | None
) -> Prepared:
    """Survey the loss."""
    batch = jax.tree.map(jnp.asarray, dict(batch))
    weight = example_weights(batch)
    leaves = dict(tree.named_leaves(params))
    chosen = masks(loss, params, layers)
    wanted = [name for name in leaves if chosen[name].any()]
    partly = [name for name in wanted if not chosen[name].all()]
    found = survey(loss, params, batch, wanted, partly)
    views = {
        name: View((), 1, math.prod(jnp.shape(leaves[name]))) for name in found.untapped
    }
    places: dict[str, int] = {}
    for site in found.sites.values():
        shapes = jax.eval_shape(
            site.reading.products, site.reading.inputs, output_gradient(site)
        )
        for parameter, leaf in site.leaves.items():
            places[leaf] = places.get(leaf, 0) + 1
            shape, part = jnp.shape(leaves[leaf]), shapes[parameter]
            # An embedding is [V,D] whether it is looked up or multiplied by.
            rows = 1 if part.left is None else part.left.shape[-1]
            if is_lookup(part):
                rows = shape[site.depth]
            views[leaf] = View(shape[: site.depth], rows, part.right.shape[-1])
    weight = weight.astype(jnp.float32)
    return Prepared(batch, weight, leaves, found, views, places, chosen)


def output_gradient(site: Site) -> jax.ShapeDtypeStruct:
    """Return the shape of what ``products`` wants beside the inputs."""
    if site.head is None:
        return site.output
    shape = (*site.head.inputs.shape[:2], site.head.matrix.shape[0])
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class Plan(NamedTuple):
    """What happens at a site."""

    stack: tuple[int, ...]
    leave: Callable  # (products, weight, extra, layer) -> {parameter: statistic}
    sends: tuple[str, ...]  # parameters whose products are handed out instead
    recipe: dict[str, tuple]  # how they lie in the arrays sent; see pack
    summed: bool


def plan(site: Site, prepared: Prepared, statistic: Statistic | None) -> Plan:
    """Decide what happens at a site."""
    direct = [
        parameter
        for parameter, leaf in site.leaves.items()
        if statistic is not None and (statistic.linear or prepared.places[leaf] == 1)
    ]
    left = statistic or Statistic(lambda *_: {}, linear=True, summed=False)

    def leave(
        products: Mapping, weight: jax.Array, extra: Mapping, layer: jax.Array
    ) -> dict:
        return {
            parameter: left.of(
                (products[parameter],),
                weight,
                prepared.views[site.leaves[parameter]].rows,
                # Taken here, so that one layer's part exists at a time.
                of_layer(extra[parameter], layer, stack=stack, lead=left.lead),
            )
            for parameter in direct
        }

    sends = tuple(k for k in site.leaves if k not in direct)
    stacks = {prepared.views[leaf].stack for leaf in site.leaves.values()}
    stack = stacks.pop() if stacks else ()
    recipe: dict[str, tuple] = {}

    def trace(inputs, delta):
        products = site.reading.products(inputs, delta)
        arrays, order = pack({k: products[k] for k in sends})
        recipe.update(order)
        return arrays

    if sends and site.head is None:
        jax.eval_shape(trace, site.reading.inputs, site.output)
    return Plan(stack, leave, sends, recipe, statistic is not None and statistic.summed)


def pack(products: Mapping[str, OuterProducts]) -> tuple[list, dict[str, tuple]]:
    """Return the arrays of products, each once and as floats, and where each lies.

    Row numbers below 2**24 are exact in float32.
    """
    arrays: list[jax.Array] = []
    places: dict[int, int] = {}

    def place(x):
        if x is None:
            return None
        if id(x) not in places:
            places[id(x)] = len(arrays)
            arrays.append(x)
        return places[id(x)]

    order = {
        name: (place(part.left), place(part.right), is_lookup(part))
        for name, part in products.items()
    }
    return [x.astype(jnp.float32) for x in arrays], order


def empty_slots(
    plan: Plan, site: Site, weight: jax.Array, extra: dict
) -> tuple[dict, Any]:
    """Return zeros in the shape of what the site will leave, for all its layers."""

    def leave(inputs, delta, weight, extra):
        products = site.reading.products(inputs, delta)
        direct = plan.leave(products, weight, extra, jnp.int32(0))
        if site.head is not None:
            sent = (site.head.inputs, site.head.targets, site.output)
            zeros = [jnp.zeros(x.shape) for x in sent]
            return direct, zeros if plan.sends else []
        return direct, pack({k: products[k] for k in plan.sends})[0]

    shapes = jax.eval_shape(
        leave, site.reading.inputs, output_gradient(site), weight, extra
    )
    return jax.tree.map(
        lambda x: jnp.zeros((*plan.stack, *x.shape), jnp.float32), shapes
    )


def received(plan: Plan, site: Site, sent: list, prepared: Prepared) -> dict:
    """Return the products that a site handed out."""
    if site.head is not None:
        inputs, targets, cotangent = sent
        ((parameter, leaf),) = site.leaves.items()
        targets = targets.astype(site.head.targets.dtype)
        matrix = prepared.leaves[leaf]
        return {
            parameter: HeadProducts(inputs, targets, cotangent, matrix, site.head.loss)
        }
    return {
        name: OuterProducts(
            None
            if left is None
            else sent[left].astype(jnp.int32 if lookup else jnp.float32),
            sent[right],
        )
        for name, (left, right, lookup) in plan.recipe.items()
    }
