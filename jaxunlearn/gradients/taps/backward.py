"""One backward pass of a loss that leaves a statistic of every layer's gradients.

Each tapped layer is followed by an identity. Its backward rule is given the layer's
inputs and the gradient of its output, and returns a statistic of them as the "gradient"
of a slot: so a statistic is formed where the pass stands, and the pair is dropped.
(The rule is a ``custom_vjp``; it exists in this pass only, never in the model.)
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients.arguments import masks
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.taps.eligibility import Site, Survey, survey
from jaxunlearn.gradients.taps.listen import Call, listen
from jaxunlearn.gradients.taps.outer_products import (
    OuterProducts,
    Products,
    float32_einsum,
    is_lookup,
)
from jaxunlearn.models.cross_entropy import (
    head_logits,
    losses_of_logits,
    next_token_losses,
)
from jaxunlearn.types import IGNORED_LABEL, Batch, Params, PerExampleLoss

HEAD_BYTES = 2**28
"""Most memory for the logits of an output head at a time."""


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


class HeadProducts(NamedTuple):
    """The outer products of a language model's head, before they are formed.

    ``OuterProducts(cotangent * (softmax(logits) - onehot(label)), hidden)``, V numbers
    a token, are formed for a few examples at a time.
    """

    hidden: jax.Array  # [B,T,D]
    labels: jax.Array  # int32[B,T]
    cotangent: jax.Array  # float32[B,T-1]
    embedding: jax.Array  # [V,D]


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
        :class:`~jaxunlearn.gradients.taps.listen.UntappedWarning`. Give it without
        ``jax.jit``, behind which an output head is not known again.
      params: The point.
      batch: A batch of B examples.
      layers: Expression of the leaves; None is all. Of a stacked leaf all layers come.

    Cost: a forward and a backward pass without weight gradients; memory of all pairs.
    """
    prepared = prepare(loss, params, batch, layers)
    emitted, _ = backward_pass(loss, params, prepared, None, {})
    return Taps(emitted, prepared.views, prepared.survey.untapped)


def statistics(
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
    weight = batch.get("weight", jnp.ones(example_count(batch)))
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
            rows = shape[site.depth] if parameter == "embedding" else rows
            views[leaf] = View(shape[: site.depth], rows, part.right.shape[-1])
    weight = weight.astype(jnp.float32)
    return Prepared(batch, weight, leaves, found, views, places, chosen)


def output_gradient(site: Site) -> jax.ShapeDtypeStruct:
    """Return the shape of what ``products`` wants beside the inputs."""
    if site.head is None:
        return site.output
    hidden, embedding, _ = site.head
    return jax.ShapeDtypeStruct((*hidden.shape[:2], embedding.shape[0]), jnp.float32)


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
            return tap_head(plans[call.site], call, call.head, own(call.site))
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
    return products | untapped_products(loss, params, prepared), found


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
            hidden, labels = site.head[0], site.head[2]
            rest = (labels.shape[0], labels.shape[1] - 1)
            zeros = [jnp.zeros(x) for x in (hidden.shape, labels.shape, rest)]
            return direct, zeros if plan.sends else []
        return direct, pack({k: products[k] for k in plan.sends})[0]

    shapes = jax.eval_shape(
        leave, site.reading.inputs, output_gradient(site), weight, extra
    )
    return jax.tree.map(
        lambda x: jnp.zeros((*plan.stack, *x.shape), jnp.float32), shapes
    )


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


def tap_head(plan: Plan, call: Call, head: tuple, extra: dict) -> jax.Array:
    """Return the losses of a language model's head, as :func:`tap_layer` does.

    The gradient of the logits is V numbers a token: it is formed for a few examples at
    a time, from logits that are kept only where all of them fit in ``HEAD_BYTES``.
    """
    hidden, embedding, labels = head
    group, whole = head_group(hidden, embedding)

    @jax.custom_vjp
    def losses(hidden, embedding, labels, weight, extra, slots):
        return next_token_losses(hidden, embedding, labels)

    def forward(hidden, embedding, labels, weight, extra, slots):
        logits = head_logits(hidden, embedding) if whole else None
        value = (
            next_token_losses(hidden, embedding, labels)
            if logits is None
            else losses_of_logits(logits[:, :-1], labels[:, 1:])
        )
        return value, (hidden, embedding, labels, logits, weight, extra)

    def backward(kept, cotangent):
        hidden, embedding, labels, logits, weight, extra = kept

        def of_group(hidden, labels, cotangent, logits, weight):
            part = head_products(
                HeadProducts(hidden, labels, cotangent, embedding), logits
            )
            direct = plan.leave({"embedding": part}, weight, extra, jnp.int32(0))
            by_hidden = float32_einsum("btv,vd->btd", part.left, embedding)
            return by_hidden.astype(hidden.dtype), direct

        by_hidden, direct = in_groups(
            of_group, (hidden, labels, cotangent, logits, weight), group, plan.summed
        )
        sent = [x.astype(jnp.float32) for x in (hidden, labels, cotangent)]
        slots = (direct, sent if plan.sends else [])
        return by_hidden, None, None, None, None, slots

    losses.defvjp(forward, backward)
    given = call.carried
    # The matrix itself is not differentiated here: its gradient is the statistic.
    return losses(
        hidden,
        jax.lax.stop_gradient(embedding),
        labels,
        given["weight"],
        extra,
        given["slots"],
    )


def head_group(hidden: jax.Array, embedding: jax.Array) -> tuple[int, bool]:
    """Return how many examples' logits to form at a time, and whether that is all."""
    size, length = hidden.shape[:2]
    most = max(1, HEAD_BYTES // (4 * length * embedding.shape[0]))
    group = max(g for g in range(1, size + 1) if size % g == 0 and g <= most)
    return group, group == size


def head_products(head: HeadProducts, logits: jax.Array | None = None) -> OuterProducts:
    """Return the head's outer products: V numbers a token, 0 for the last."""
    if logits is None:
        logits = head_logits(head.hidden, head.embedding)
    labels = jnp.pad(
        head.labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED_LABEL
    )
    cotangent = jnp.pad(head.cotangent, ((0, 0), (0, 1)))
    scale = jnp.where(labels == IGNORED_LABEL, 0.0, cotangent)[..., None]
    true = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels[..., None]
    return OuterProducts(scale * (jax.nn.softmax(logits, axis=-1) - true), head.hidden)


def in_groups(function: Callable, arrays: tuple, group: int, summed: bool) -> tuple:
    """Return ``function(*arrays)``, rows and a statistic, ``group`` examples a time."""
    size = arrays[0].shape[0]
    if group == size:
        return function(*arrays)
    parts = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), arrays)
    join = functools.partial(jax.tree.map, lambda x: x.reshape(size, *x.shape[2:]))
    if not summed:
        return join(jax.lax.map(lambda part: function(*part), parts))
    first = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], parts))[1]

    def add(total, part):
        rows, statistic = function(*part)
        return jax.tree.map(jnp.add, total, statistic), rows

    total, rows = jax.lax.scan(
        add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first), parts
    )
    return join(rows), total


def received(plan: Plan, site: Site, sent: list, prepared: Prepared) -> dict:
    """Return the products that a site handed out."""
    if site.head is not None:
        hidden, labels, cotangent = sent
        embedding = prepared.leaves[site.leaves["embedding"]]
        head = HeadProducts(hidden, labels.astype(jnp.int32), cotangent, embedding)
        return {"embedding": head}
    return {
        name: OuterProducts(
            None
            if left is None
            else sent[left].astype(jnp.int32 if lookup else jnp.float32),
            sent[right],
        )
        for name, (left, right, lookup) in plan.recipe.items()
    }


def untapped_products(
    loss: PerExampleLoss, params: Params, prepared: Prepared
) -> dict[str, Products]:
    """Return the gradients of the leaves without taps, as products of one token."""
    names = prepared.survey.untapped
    if not names:
        return {}
    structure = jax.tree.structure(params)

    def of_example(example: Batch) -> dict[str, jax.Array]:
        alone = jax.tree.map(lambda x: x[None], example)

        def own_loss(chosen: dict) -> jax.Array:
            leaves = prepared.leaves | chosen
            whole = jax.tree.unflatten(structure, list(leaves.values()))
            return loss(whole, alone)[0]

        return jax.grad(own_loss)({name: prepared.leaves[name] for name in names})

    gradients = jax.vmap(of_example)(prepared.batch)
    # The layers of a stack that are not selected lie in the same leaf.
    gradients = {k: jnp.where(prepared.masks[k], g, 0.0) for k, g in gradients.items()}
    return {
        name: (
            OuterProducts(None, gradients[name].reshape(len(prepared.weight), 1, -1)),
        )
        for name in names
    }


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
        formed = tuple(
            head_products(part._replace(embedding=embedding))
            if isinstance(part, HeadProducts)
            else part
            for part in products
        )
        return jnp.zeros(weight.shape), statistic.of(formed, weight, rows, extra)

    # The matrix is the same for all examples, so it does not travel with them.
    embedding = heads[0].embedding
    group, _ = head_group(heads[0].hidden, embedding)
    bare = tuple(
        part._replace(embedding=None) if isinstance(part, HeadProducts) else part
        for part in products
    )
    return in_groups(of_group, (weight, bare), group, statistic.summed)[1]
