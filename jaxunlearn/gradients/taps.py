"""Taps: which layers of a network can be listened to, and the listening itself.

Linen's methods are intercepted while a loss runs, so the network's own code is not
touched. Slots travel to their layer inside the parameter tree: ``nn.scan`` hands each
layer its own, and ``nn.remat`` needs nothing.

Which parameters are tapped is decided by tracing, before anything is computed. A
parameter that is used outside a standard layer (``linen_layers.py``), or several times
by one, is left to ``vmap`` of ``grad``.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxunlearn import tree
from jaxunlearn.gradients.linen_layers import LAYERS, Reading, attend
from jaxunlearn.gradients.microbatches import example_count
from jaxunlearn.models.cross_entropy import OutputHead
from jaxunlearn.types import Batch, Params, PerExampleLoss

TAP = "tap"
"""The reserved name under which a layer finds its slots among its parameters."""


class UntappedWarning(UserWarning):
    """Some parameters of a network take the slow way."""


class Call(NamedTuple):
    """A call of a standard layer while the loss runs."""

    site: str  # "<folder of the layer's parameters>.<method>"
    leaves: dict[str, str]  # the layer's parameters -> leaves of the tree
    depth: int  # how many leading axes scans have sliced off its parameters
    reading: Reading
    carried: Mapping[str, Any]  # what travelled to this call
    head: tuple | None = None  # (hidden, embedding, labels) of a language-model loss


Visit = Callable[[Call, Callable[[], jax.Array]], jax.Array]


class Site(NamedTuple):
    """A layer that can be tapped, with the shapes there."""

    leaves: dict[str, str]
    depth: int
    reading: Reading  # its inputs are shapes
    output: jax.ShapeDtypeStruct
    head: tuple | None  # shapes


class Survey(NamedTuple):
    """Who sees which leaf."""

    sites: dict[str, Site]
    untapped: tuple[str, ...]  # leaves left to vmap of grad


def listen(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    visit: Visit,
    carried: Mapping[str, Mapping[str, Any]],
) -> jax.Array:
    """Return ``loss(params, batch)``, ``visit`` standing around each standard layer.

    Args:
      loss: Per-example loss.
      params: Parameters.
      batch: A batch.
      visit: Called with the call and a function that makes it; returns its output.
      carried: What to bring to each folder of parameters, by method of its layer;
        arrays have the leading axes of stacked parameters.
    """
    size = example_count(batch)
    folders = list(folders_of(params))
    marked = with_marks(params, {name: i for i, name in enumerate(folders)}, carried)
    shapes = {name: jnp.shape(leaf) for name, leaf in tree.named_leaves(params)}
    # An output head is given its matrix as an argument: known again by identity.
    identity = {id(leaf): name for name, leaf in tree.named_leaves(marked)}

    def interceptor(next_fun, args, kwargs, context):
        module, method = context.module, context.method_name
        if not args or jnp.ndim(args[0]) == 0:
            return next_fun(*args, **kwargs)
        if isinstance(module, OutputHead) and method in ("logits", "losses"):
            leaf = identity.get(id(args[1]))
            if leaf is None or args[0].shape[0] != size:
                return next_fun(*args, **kwargs)
            head = args if method == "losses" else None
            folder = leaf.rpartition("/")[0]
            call = Call(
                f"{folder}.{method}",
                {"embedding": leaf},
                0,
                attend(module, args[0]),
                carried.get(folder, {}).get(method, {}),
                head,
            )
            return visit(call, lambda: next_fun(*args, **kwargs))
        read = LAYERS.get((type(module), method))
        if read is None or not module.has_variable("params", TAP):
            return next_fun(*args, **kwargs)
        first, rest = args[0], args[1:]
        if first.shape[0] == 1:
            # Shared by the examples, as positions are: each gets a copy, so that they
            # can be told apart on the way back.
            first = jnp.broadcast_to(first, (size, *first.shape[1:]))
        reading = read(module, first, *rest, **kwargs) if len(first) == size else None
        here = module.get_variable("params", TAP)
        folder = folders[here["mark"].shape[-2] - 1]
        leaves = {
            name: f"{folder}/{name}" if folder else name
            for name in module.variables["params"]
            if name != TAP
        }
        depths = {
            stack_depth(shapes[leaf], jnp.shape(module.variables["params"][name]))
            for name, leaf in leaves.items()
        }
        if reading is None or len(depths) != 1 or None in depths:
            return next_fun(*args, **kwargs)
        site = f"{folder}.{method}"
        call = Call(site, leaves, depths.pop(), reading, here.get(method, {}))
        return visit(call, lambda: next_fun(first, *rest, **kwargs))

    with nn.intercept_methods(interceptor):
        return loss(marked, batch)


def folders_of(params: Params, path: tuple = ()) -> Iterator[str]:
    """Yield the path of every mapping that holds arrays itself."""
    if isinstance(params, Mapping):
        if any(not isinstance(value, Mapping) for value in params.values()):
            yield "/".join(path)
        for name, value in params.items():
            yield from folders_of(value, (*path, name))


def with_marks(params: Params, numbers: dict, carried: Mapping, path: tuple = ()):
    """Return the parameters with what is carried, and each folder's number in a mark.

    The mark is an empty array whose shape tells the number; its leading axes are those
    of a leaf beside it, so that a scan can slice it too.
    """
    if not isinstance(params, Mapping):
        return params
    marked = {
        name: with_marks(value, numbers, carried, (*path, name))
        for name, value in params.items()
    }
    folder = "/".join(path)
    if folder in numbers:
        beside = next(v for v in params.values() if not isinstance(v, Mapping))
        mark = jnp.zeros((*jnp.shape(beside), numbers[folder] + 1, 0), jnp.float32)
        marked[TAP] = {"mark": mark, **carried.get(folder, {})}
    return marked


def stack_depth(whole: tuple[int, ...], part: tuple[int, ...]) -> int | None:
    """Return how many leading axes were sliced off, None where others were."""
    depth = len(whole) - len(part)
    return depth if depth >= 0 and whole[depth:] == part else None


def survey(
    loss: PerExampleLoss, params: Params, batch: Batch, wanted: Iterable[str]
) -> Survey:
    """Return who sees the ``wanted`` leaves, from two traces of the loss.

    Raises:
      ValueError: The loss does not return one number an example.
    """
    size = example_count(batch)
    shape = jax.eval_shape(loss, params, batch).shape
    if shape != (size,):
        raise ValueError(
            f"loss returns shape {shape}: it must return one number an example, "
            f"float32[{size}]; wrap a loss of one example by "
            f"jaxunlearn.gradients.per_example_loss"
        )
    sites: dict[str, Site] = {}
    modules: list[str] = []

    def note(next_fun, args, kwargs, context):
        modules.append(type(context.module).__name__)
        return next_fun(*args, **kwargs)

    def probe(call: Call, forward: Callable) -> jax.Array:
        output = forward()
        arrays, head = shapes_of(call.reading.inputs), shapes_of(call.head)
        site = Site(
            call.leaves,
            call.depth,
            Reading(arrays, call.reading.products),
            jax.ShapeDtypeStruct(output.shape, output.dtype),
            head,
        )
        sites[call.site] = site

        def tapped_here(y):
            return y

        tapped_here.__name__ = f"{TAP}:{call.site}"
        return jax.jit(tapped_here)(output)

    def uncut(call: Call, forward: Callable) -> jax.Array:
        return forward()

    try:
        with nn.intercept_methods(note):
            traced = jax.make_jaxpr(lambda p: listen(loss, p, batch, probe, {}))(params)
    except (TypeError, ValueError, KeyError) as error:
        # The loss handles the tree itself and meets the marks in it.
        if not marks_disturb(loss, params, batch, uncut):
            raise
        warn(tuple(wanted), f"the loss does not take a tree with more in it ({error})")
        return Survey({}, tuple(wanted))
    visits = visits_of(traced.jaxpr)
    # Each visit must lie in as many loops as slice the layer's parameters: else the
    # same slot would be seen several times.
    sites = {
        name: site for name, site in sites.items() if visits.get(name) == [site.depth]
    }
    tapped = {leaf for site in sites.values() for leaf in site.leaves.values()}
    tapped &= set(wanted)
    tapped -= set(seen_elsewhere(loss, params, batch, sites, sorted(tapped)))
    # A head stays a site even if nothing is left there: its gradient is cheaper so.
    sites = {
        name: site._replace(
            leaves={k: leaf for k, leaf in site.leaves.items() if leaf in tapped}
        )
        for name, site in sites.items()
        if tapped and (site.head or tapped & set(site.leaves.values()))
    }
    untapped = tuple(name for name in wanted if name not in tapped)
    if untapped and modules:
        warn(untapped, "they are used outside Linen's standard layers, or repeatedly")
    return Survey(sites, untapped)


def warn(leaves: tuple[str, ...], why: str) -> None:
    """Say that leaves take the slow way."""
    named = ", ".join(leaves[:5]) + (", ..." if len(leaves) > 5 else "")
    warnings.warn(
        f"no taps on {len(leaves)} of the parameters ({named}): {why}. Their gradients "
        f"come from vmap(grad), example by example: right, but slower",
        UntappedWarning,
        stacklevel=2,
    )


def marks_disturb(loss, params, batch, visit) -> bool:
    """Tell whether the loss fails because of the marks alone."""
    jax.eval_shape(loss, params, batch)
    try:
        jax.eval_shape(lambda p: listen(loss, p, batch, visit, {}), params)
    except (TypeError, ValueError, KeyError):
        return True
    return False


def shapes_of(arrays: Any) -> Any:
    """Return the shapes of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), arrays)


def visits_of(jaxpr: Any, loops: int = 0) -> dict[str, list[int]]:
    """Return each site's visits, each as the number of loops it lies in.

    Dead code does not count: ``nn.scan`` traces its body once more than it runs it.
    """
    found: dict[str, list[int]] = {}
    alive = {id(x) for x in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if not alive & {id(x) for x in equation.outvars}:
            continue
        alive |= {id(x) for x in equation.invars}
        name = str(equation.params.get("name", ""))
        if name.startswith(f"{TAP}:"):
            found.setdefault(name.removeprefix(f"{TAP}:"), []).append(loops)
            continue
        inside = loops + (equation.primitive.name in ("scan", "while"))
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                for site, depths in visits_of(inner, inside).items():
                    found.setdefault(site, []).extend(depths)
    return found


def seen_elsewhere(
    loss: PerExampleLoss, params: Params, batch: Batch, sites: dict, leaves: list[str]
) -> list[str]:
    """Return those ``leaves`` that reach the loss other than through the ``sites``.

    Every site's output is cut from its parameters; the loss's tangent with respect to
    a leaf is then symbolically zero unless the leaf is used elsewhere.
    """

    def cut(call: Call, forward: Callable) -> jax.Array:
        output = forward()
        if call.site not in sites:
            return output
        # Still a function of its inputs, through which other parameters may act.
        inputs = [
            jnp.sum(x)
            for x in jax.tree.leaves(call.reading.inputs)
            if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        kept = sum(inputs, start=jnp.float32(0)).astype(output.dtype)
        return jax.lax.stop_gradient(output) + jnp.zeros_like(output) * kept

    def reaches(names: list[str]) -> bool:
        answer: list[bool] = []

        @jax.custom_jvp
        def notice(x):
            return x

        def rule(primals, tangents):
            answer.append(not isinstance(tangents[0], SymbolicZero))
            return primals[0], jnp.zeros_like(primals[0])

        notice.defjvp(rule, symbolic_zeros=True)
        everything = dict(tree.named_leaves(params))

        def of_leaves(chosen: dict) -> jax.Array:
            flat = everything | chosen
            structure = jax.tree.structure(params)
            whole = jax.tree.unflatten(structure, [flat[n] for n in everything])
            return notice(listen(loss, whole, batch, cut, {}))

        chosen = {name: everything[name] for name in names}
        jax.eval_shape(lambda c: jax.jvp(of_leaves, (c,), (c,)), chosen)
        return any(answer)

    if not leaves or not reaches(leaves):
        return []
    if len(leaves) == 1:
        return leaves
    half = len(leaves) // 2
    return [
        name
        for part in (leaves[:half], leaves[half:])
        for name in seen_elsewhere(loss, params, batch, sites, part)
    ]
