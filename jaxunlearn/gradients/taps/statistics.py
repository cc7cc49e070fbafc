"""One backward pass of a loss that leaves a statistic of every layer's gradients.

Each tapped layer is followed by an identity. Its backward rule is given the layer's
inputs and the gradient of its output, and returns a statistic of them as the "gradient"
of a slot: so a statistic is formed where the pass stands, and the pair is dropped.
(The rule is a ``custom_vjp``; it exists in this pass only, never in the model.)
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.gradients.taps.fallback import untapped_products
from jaxunlearn.gradients.taps.heads import (
    HeadProducts,
    Leave,
    form_products,
    head_group,
    in_groups,
    tap_head,
    without_matrix,
)
from jaxunlearn.gradients.taps.listening import Call, listen
from jaxunlearn.gradients.taps.outer_products import OuterProducts
from jaxunlearn.gradients.taps.plans import (
    Plan,
    Prepared,
    Statistic,
    View,
    empty_slots,
    layer_numbers,
    of_layer,
    pack,
    plan,
    prepare,
    received,
)
from jaxunlearn.types import Batch, Params, PerExampleLoss


class Taps(NamedTuple):
    """The outer products of every selected leaf.

    Attributes:
      products: Leaf name -> the places where it is used. Arrays of stacked leaves have
        the leading axes of the stack. A bias shares ``right`` with its kernel.
      views: Leaf name -> its shape as matrices.
      untapped: Leaves whose products are just their gradients, from vmap(grad).
    """

    products: dict[str, tuple[OuterProducts | HeadProducts, ...]]
    views: dict[str, View]
    untapped: tuple[str, ...]


def layer_taps(
    loss: PerExampleLoss, params: Params, batch: Batch, *, layers: str | None = None
) -> Taps:
    """Return what every parameter sees: inputs and output gradients, in one pass.

    ``G_b = sum_t left_bt right_bt^T`` is the gradient of example b's own loss, its
    weight left out.

    Args:
      loss: Per-example loss. Layers of Linen's standard kinds inside it are tapped
        where they are called once, with the examples in their order on the leading
        axis; other leaves get their gradients by ``vmap(grad)``, and an
        :class:`~jaxunlearn.gradients.taps.listening.UntappedWarning`. Give it without
        ``jax.jit``, behind which an output head is not known again.
      params: The point.
      batch: A batch of B examples.
      layers: Expression of the leaves; None is all. Of a stacked leaf all layers come.

    Cost: a forward and a backward pass without weight gradients; memory of all pairs.
    """
    prepared = prepare(loss, params, batch, layers)
    emitted, _ = backward_pass(loss, params, prepared, None, {})
    return Taps(emitted, prepared.views, prepared.survey.untapped)


def layer_statistics(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    statistic: Statistic,
    *,
    extra: Callable[[dict[str, View]], Mapping[str, Any]] | None = None,
    layers: str | None = None,
) -> tuple[dict[str, Any], dict[str, View]]:
    """Return a statistic of the per-example gradients of every selected leaf.

    Args:
      loss: Per-example loss; see :func:`layer_taps`.
      params: The point.
      batch: A batch of B examples; ``weight`` (default 1) is handed to the statistic.
      statistic: What to leave.
      extra: From the leaves' views to what the statistic is given of each: arrays that
        have the axes of its stack, after ``statistic.lead`` others.
      layers: Expression of the leaves; None is all. Of a stacked leaf all layers come.

    Returns:
      Leaf name -> the statistic, with the leading axes of its stack; and the views.
    """
    prepared = prepare(loss, params, batch, layers)
    given = extra(prepared.views) if extra else {}
    emitted, found = backward_pass(loss, params, prepared, statistic, given)
    for name, products in emitted.items():
        view = prepared.views[name]
        function = functools.partial(of_products, statistic, view.rows, prepared.weight)
        own = functools.partial(
            of_layer, given.get(name), stack=view.stack, lead=statistic.lead
        )

        def one_layer(layer, function=function, own=own):
            products, number = layer
            return function(products, own(number))

        for _ in view.stack:
            one_layer = functools.partial(jax.lax.map, one_layer)
        found[name] = one_layer((products, layer_numbers(view.stack)))
    return found, prepared.views


def backward_pass(
    loss: PerExampleLoss,
    params: Params,
    prepared: Prepared,
    statistic: Statistic | None,
    extra: Mapping[str, Any],
) -> tuple[dict[str, tuple], dict[str, Any]]:
    """Return (products, statistics): every leaf has one of both.

    Products come of the leaves whose statistic wants all their places together, and of
    all leaves where there is no statistic.
    """
    sites, size = prepared.survey.sites, len(prepared.weight)
    plans = {name: plan(site, prepared, statistic) for name, site in sites.items()}

    def visit(call: Call, forward: Callable[[], jax.Array]) -> jax.Array:
        if call.site not in plans:
            return forward()
        if call.head is not None:
            leave = leave_of_head(plans[call.site], sites[call.site].leaves)
            return tap_head(call.head, leave, call.carried, own(call.site))
        return tap_layer(plans[call.site], call, own(call.site), forward())

    def own(name: str) -> dict:
        return {k: extra.get(leaf) for k, leaf in sites[name].leaves.items()}

    def carried(name: str, slots: Any) -> dict:
        stack = plans[name].stack
        weight = jnp.broadcast_to(prepared.weight, (*stack, size))
        return {"slots": slots, "weight": weight, "layer": layer_numbers(stack)}

    def total(slots: dict) -> jax.Array:
        folders: dict[str, dict] = {}
        for name in sites:
            folder, _, method = name.rpartition(".")
            folders.setdefault(folder, {})[method] = carried(name, slots[name])
        losses = listen(
            loss,
            params,
            prepared.batch,
            visit,
            among=sites,
            copied=lambda site: sites[site].copied,
            carried=folders,
        )
        return jnp.sum(losses)

    slots = {
        name: empty_slots(plans[name], site, prepared.weight, own(name))
        for name, site in sites.items()
    }
    left = jax.grad(total)(slots) if slots else {}
    products: dict[str, tuple] = {}
    found: dict[str, Any] = {}
    for name, site in sites.items():
        direct, sent = left[name]
        for parameter, value in direct.items():
            leaf = site.leaves[parameter]
            before = found.get(leaf)
            found[leaf] = (
                value if before is None else jax.tree.map(jnp.add, before, value)
            )
        if plans[name].sends:
            for parameter, part in received(plans[name], site, sent, prepared).items():
                leaf = site.leaves[parameter]
                products[leaf] = (*products.get(leaf, ()), part)
    left_over = {name: prepared.masks[name] for name in prepared.survey.untapped}
    slow = untapped_products(loss, params, prepared.batch, prepared.leaves, left_over)
    return products | slow, found


def leave_of_head(plan: Plan, leaves: Mapping[str, str]) -> Leave:
    """Return what a tap at a head leaves by its plan; nothing if no leaf is wanted."""

    def statistic(part: OuterProducts, weight: jax.Array, extra: Mapping) -> dict:
        products = dict.fromkeys(leaves, part)
        return plan.leave(products, weight, extra, jnp.int32(0))

    return Leave(statistic, plan.summed, bool(plan.sends))


def tap_layer(plan: Plan, call: Call, extra: dict, output: jax.Array) -> jax.Array:
    """Return ``output``; on the way back, leave the site's statistic in its slots."""

    @jax.custom_vjp
    def identity(output, inputs, weight, extra, layer, slots):
        return output

    def forward(output, inputs, weight, extra, layer, slots):
        return output, (inputs, weight, extra, layer)

    def backward(kept, delta):
        inputs, weight, extra, layer = kept
        products = call.reading.products(inputs, delta)
        direct = plan.leave(products, weight, extra, layer)
        sent = pack({k: products[k] for k in plan.sends})[0]
        return delta, None, None, None, None, (direct, sent)

    identity.defvjp(forward, backward)
    inputs, given = jax.lax.stop_gradient(call.reading.inputs), call.carried
    return identity(
        output, inputs, given["weight"], extra, given["layer"], given["slots"]
    )


def of_products(
    statistic: Statistic,
    rows: int,
    weight: jax.Array,
    products: tuple[OuterProducts | HeadProducts, ...],
    extra: Any,
) -> Any:
    """Return the statistic of one matrix from the products of all its places."""
    heads = [part for part in products if isinstance(part, HeadProducts)]
    if not heads:
        return statistic.of(products, weight, rows, extra)

    def of_group(weight, products):
        formed = tuple(form_products(part, matrix) for part in products)
        return jnp.zeros(weight.shape), statistic.of(formed, weight, rows, extra)

    # The matrix is the same for all examples, so it does not travel with them.
    matrix = heads[0].matrix
    group, _ = head_group(heads[0].inputs, matrix)
    bare = tuple(without_matrix(part) for part in products)
    return in_groups(of_group, (weight, bare), group, statistic.summed)[1]
