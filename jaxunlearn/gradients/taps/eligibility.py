"""Which parameters can be tapped, decided by tracing before anything is computed.

A parameter is tapped if all that the loss sees of it are single calls of standard
layers (``layers.py``), which have it as it lies in the tree and work on the
examples in their order. Any other is left to ``vmap`` of ``grad``: slower, and right.
"""

import warnings
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.programs import unreadable
from jaxunlearn.gradients.taps.dataflow import Origin, flow_of
from jaxunlearn.gradients.taps.heads import HeadCall
from jaxunlearn.gradients.taps.layers import Reading
from jaxunlearn.gradients.taps.listening import (
    OBJECTIONS,
    Call,
    UntappedWarning,
    listen,
    traced,
)
from jaxunlearn.gradients.taps.other_ways import seen_elsewhere
from jaxunlearn.types import Batch, Params, PerExampleLoss

MARK = "jaxunlearn_tap:"
"""What a layer's output passes in the program of the loss, followed by its site."""

WHOLE = ""
"""The site of the loss itself."""


class Site(NamedTuple):
    """A layer that can be tapped, with the shapes there."""

    leaves: dict[str, str]  # the layer's parameters -> leaves of the tree
    depth: int  # how many leading axes scans slice off its parameters
    reading: Reading  # its inputs are shapes
    output: jax.ShapeDtypeStruct
    copied: bool
    head: HeadCall | None  # of shapes


class Survey(NamedTuple):
    """Who sees which leaf."""

    sites: dict[str, Site]
    untapped: tuple[str, ...]  # leaves left to vmap of grad


class Sounding(NamedTuple):
    """A layer that a trace came by."""

    call: Call  # of shapes
    output: jax.ShapeDtypeStruct


def survey(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    wanted: Iterable[str],
    partly: Iterable[str] = (),
) -> Survey:
    """Return who sees the ``wanted`` leaves.

    Of ``partly`` wanted leaves only those whose layers a scan takes apart are tapped.

    Raises:
      ValueError: The loss does not return one number an example, or normalises by the
        batch.
      UnreadProgram: This version of JAX records the loss in a form unknown to us.
    """
    size, wanted = example_count(batch), tuple(wanted)
    shape, linen, objection = traced(loss, params, batch)
    if shape != (size,):
        raise ValueError(
            f"loss returns shape {shape}: it must return one number an example, "
            f"float32[{size}]; wrap a loss of one example by "
            f"jaxunlearn.gradients.per_example_loss"
        )
    if objection is not None:
        if linen:
            said = brief(objection)
            warn(wanted, f"the loss does not take marked parameters ({said})")
        return Survey({}, wanted)
    sites, why = sites_of(loss, params, batch)
    tapped = {leaf for site in sites.values() for leaf in site.leaves.values()}
    whole = {k for s in sites.values() if not s.depth for k in s.leaves.values()}
    tapped = (tapped & set(wanted)) - (whole & set(partly))
    tapped -= set(seen_elsewhere(loss, params, batch, sites, sorted(tapped)))
    # A head stays a site even if nothing is left there: its gradient is cheaper so.
    kept = {
        name: site._replace(
            leaves={k: leaf for k, leaf in site.leaves.items() if leaf in tapped}
        )
        for name, site in sites.items()
        if tapped and (site.head or tapped & set(site.leaves.values()))
    }
    untapped = tuple(name for name in wanted if name not in tapped)
    if untapped and (linen or sites):
        warn(untapped, why)
    return Survey(kept, untapped)


def brief(error: Exception) -> str:
    """Return the first line of what an error says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def warn(leaves: tuple[str, ...], why: str) -> None:
    """Say that leaves take the slow way."""
    named = ", ".join(leaves[:5]) + (", ..." if len(leaves) > 5 else "")
    warnings.warn(
        f"no taps on {len(leaves)} of the parameters ({named}): {why}. Their gradients "
        f"come from vmap(grad), example by example: right, but slower",
        UntappedWarning,
        stacklevel=2,
    )


def sites_of(
    loss: PerExampleLoss, params: Params, batch: Batch
) -> tuple[dict[str, Site], str]:
    """Return the layers that are called once, as they are, on the examples in order;
    and why there are not more of them."""
    names = [name for name, _ in tree.named_leaves(params)]
    refused: set[str] = set()
    while True:
        asked: set[str] = set()
        try:
            soundings, jaxpr = sound(loss, params, batch, refused, asked)
        except OBJECTIONS:
            if asked <= refused:
                raise
            # Copies stand where the loss expects one for all.
            refused |= asked
            continue
        copies = {name for name, found in soundings.items() if found.call.copied}
        flow = flow_of(jaxpr, len(names), MARK, copies)
        if len(flow.visits.get(WHOLE, [])) != 1:
            raise unreadable("a jitted function", "its name, our mark, is not found")
        if not copies & flow.spoiled:
            break
        # Without these copies the rest runs otherwise: look again.
        refused |= flow.spoiled
    # The axis of the examples is the one that grows with the batch.
    doubled = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2 * x.shape[0], *x.shape[1:]), x.dtype), batch
    )
    try:
        grown, _ = sound(loss, params, doubled, refused, set())
    except OBJECTIONS as error:
        return {}, f"the loss does not take twice as many examples ({brief(error)})"
    sites = {}
    for name, (call, output) in soundings.items():
        visits = flow.visits.get(name, [])
        if len(visits) != 1 or name not in grown:
            continue
        (visit,) = visits
        given = (output, *jax.tree.leaves(call.parameters))
        leaves = sorted(call.parameters)
        plain = (
            set(leaves) <= set(names)
            and visit.shapes == tuple(x.shape for x in given)
            and visit.origins
            == tuple(Origin(names.index(leaf), visit.loops) for leaf in leaves)
            and grown[name].output.shape == (2 * output.shape[0], *output.shape[1:])
        )
        if plain:
            sites[name] = site_of(call, output, visit.loops)
    return sites, (
        "they are used outside Linen's standard layers, or repeatedly, or changed on "
        "their way there, or not on the examples in their order"
    )


def sound(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    refused: Container[str],
    asked: set[str],
) -> tuple[dict[str, Sounding], Any]:
    """Return the layers on the way of the loss, and its program.

    Of an input that the examples share each gets a copy, except at the ``refused``
    sites; all sites with such an input are added to ``asked``.
    """
    soundings: dict[str, Sounding] = {}
    unlike: set[str] = set()

    def probe(call: Call, forward: Callable) -> jax.Array:
        output = forward()
        shapes = shapes_of((call.parameters, call.reading.inputs, call.head, output))
        parameters, inputs, head, out = shapes
        before = soundings.get(call.site)
        soundings[call.site] = Sounding(
            call._replace(
                parameters=parameters,
                reading=Reading(inputs, call.reading.products),
                carried={},
                head=head,
            ),
            out,
        )
        if before and (before.call.reading.inputs, before.output) != (inputs, out):
            unlike.add(call.site)

        return marked(call.site, output, call.parameters)

    def copied(site: str) -> bool:
        asked.add(site)
        return site not in refused

    def listened(params, batch):
        losses = listen(loss, params, batch, probe, copied=copied)
        return marked(WHOLE, losses, {})

    jaxpr = jax.make_jaxpr(listened)(params, batch).jaxpr
    return {k: v for k, v in soundings.items() if k not in unlike}, jaxpr


def marked(site: str, output: jax.Array, parameters: dict) -> jax.Array:
    """Return ``output``, having passed a mark beside the parameters."""

    def mark(output, _):
        return output

    mark.__name__ = f"{MARK}{site}"
    return jax.jit(mark)(output, parameters)


def site_of(call: Call, output: jax.ShapeDtypeStruct, depth: int) -> Site:
    """Return the site of a call; parameters that do not act there are not its own."""
    leaves = {leaf.rpartition("/")[2]: leaf for leaf in call.parameters}
    if call.head is None:
        acting = jax.eval_shape(call.reading.products, call.reading.inputs, output)
        leaves = {name: leaf for name, leaf in leaves.items() if name in acting}
    return Site(leaves, depth, call.reading, output, call.copied, call.head)


def shapes_of(arrays: Any) -> Any:
    """Return the shapes of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), arrays)
