"""Taps: a network's layers are listened to while a loss runs.

Linen's methods are intercepted, so the network's own code is not touched. What a layer
needs to leave something behind travels to it inside the parameter tree: ``nn.scan``
hands each layer its own, and ``nn.remat`` needs nothing. Which layers can be listened
to is the matter of ``eligibility.py``.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import FlaxError

from jaxunlearn import tree
from jaxunlearn.gradients.batching import example_count
from jaxunlearn.gradients.taps.heads import HEADS, HeadCall
from jaxunlearn.gradients.taps.layers import LAYERS, Reading, normalisation
from jaxunlearn.types import Batch, Params, PerExampleLoss

TAP = "jaxunlearn_tap"
"""The reserved name under which a layer finds its slots among its parameters."""


class UntappedWarning(UserWarning):
    """Some parameters of a network take the slow way."""


@contextlib.contextmanager
def without_warning() -> Iterator[None]:
    """Say nothing of slow ways, where none is taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntappedWarning)
        yield


OBJECTIONS = (
    *(TypeError, ValueError, LookupError, AttributeError, AssertionError),
    FlaxError,
)
"""What code raises that is handed an argument of another form than it expects."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Mark:
    """Tells a layer, among its parameters, where in the tree they lie."""

    folder: str
    run: object
    """Which run of the loss it is: parameters so marked are of a type of their own, so
    that jit takes no earlier trace of the network for this one."""


class Call(NamedTuple):
    """A call of a standard layer while the loss runs."""

    site: str  # "<folder of the layer's parameters>.<method>"
    parameters: dict[str, jax.Array]  # leaves of the tree -> what the layer has of them
    reading: Reading
    copied: bool  # its input, shared by the examples, was copied for each
    carried: Mapping[str, Any]  # what travelled to this call
    head: HeadCall | None = None  # of a head that returns losses


Visit = Callable[[Call, Callable[[], jax.Array]], jax.Array]


def listen(
    loss: PerExampleLoss,
    params: Params,
    batch: Batch,
    visit: Visit,
    *,
    among: Container[str] | None = None,
    copied: Callable[[str], bool] = lambda site: False,
    carried: Mapping[str, Mapping[str, Any]] | None = None,
) -> jax.Array:
    """Return ``loss(params, batch)``, ``visit`` standing around each standard layer.

    Args:
      loss: Per-example loss.
      params: Parameters.
      batch: A batch.
      visit: Called with the call and a function that makes it; returns its output.
      among: The sites to visit; None is all.
      copied: Tells of a site whether an input that the examples share, as positions
        are, is to be copied for each, so that they can be told apart on the way back.
      carried: What to bring to each folder of parameters, by method of its layer;
        arrays have the leading axes of stacked parameters.
    """
    size, carried = example_count(batch), carried or {}
    marked = with_marks(params, object(), carried)
    # A head is given its matrix as an argument: known again by identity.
    identity = {id(leaf): name for name, leaf in tree.named_leaves(marked)}

    def interceptor(next_fun, args, kwargs, context):
        module, method = context.module, context.method_name
        refuse_own_statistics(module, method, args, kwargs)
        head = HEADS.get((type(module), method))
        read = LAYERS.get((type(module), method))
        if not (head or read) or not args or jnp.ndim(args[0]) == 0:
            return next_fun(*args, **kwargs)
        first, rest = args[0], args[1:]
        if head and rest:
            leaf = identity.get(id(rest[0]))
            folder = "" if leaf is None else leaf.rpartition("/")[0]
            site = f"{folder}.{method}"
            if leaf is None or len(first) != size or not wanted(site):
                return next_fun(*args, **kwargs)
            here = carried.get(folder, {}).get(method, {})
            reading = named(head.reading(module, first), leaf.rpartition("/")[2])
            whole = HeadCall(*args, head.loss) if head.loss else None
            call = Call(site, {leaf: rest[0]}, reading, False, here, whole)
            return visit(call, lambda: next_fun(*args, **kwargs))
        if read is None or not module.has_variable("params", TAP):
            return next_fun(*args, **kwargs)
        own = module.variables["params"]
        folder = own[TAP]["mark"].folder
        site = f"{folder}.{method}"
        if not wanted(site):
            return next_fun(*args, **kwargs)
        copy = len(first) == 1 != size and copied(site)
        if copy:
            first = jnp.broadcast_to(first, (size, *first.shape[1:]))
        further = bool(rest or kwargs) and read is not normalisation
        if len(first) != size or further:
            return next_fun(*args, **kwargs)
        reading = read(module, first, *rest, **kwargs)
        if reading is None:
            return next_fun(*args, **kwargs)
        parameters = {joined(folder, k): x for k, x in own.items() if k != TAP}
        here = own[TAP].get(method, {})
        call = Call(site, parameters, reading, copy, here)
        return visit(call, lambda: next_fun(first, *rest, **kwargs))

    def wanted(site: str) -> bool:
        return among is None or site in among

    with nn.intercept_methods(interceptor):
        return loss(marked, batch)


def named(reading: Reading, parameter: str) -> Reading:
    """Return a reading of one parameter under the name that it has in the tree."""

    def products(inputs: Any, delta: jax.Array) -> dict:
        (only,) = reading.products(inputs, delta).values()
        return {parameter: only}

    return Reading(reading.inputs, products)


def joined(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder}/{name}" if folder else name


def with_marks(params: Params, run: object, carried: Mapping, folder: str = ""):
    """Return the parameters with a mark, and what is carried, beside every array."""
    if not isinstance(params, Mapping):
        return params
    marked = {
        name: with_marks(value, run, carried, joined(folder, str(name)))
        for name, value in params.items()
    }
    if any(not isinstance(value, Mapping) for value in params.values()):
        marked[TAP] = {"mark": Mark(folder, run), **carried.get(folder, {})}
    return type(params)(marked)


def refuse_own_statistics(
    module: nn.Module, method: str, args: tuple, kwargs: Mapping[str, Any]
) -> None:
    """Refuse a normalisation over the examples of the batch."""
    if not isinstance(module, nn.BatchNorm) or method != "__call__":
        return
    given = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
    if not (module.use_running_average if given is None else given):
        raise ValueError(
            f"{'/'.join(module.path)}: batch normalisation by the batch's own "
            f"statistics makes an example's loss depend on the others, so it has "
            f"no gradient of its own: call the model with use_running_average=True"
        )


class Traced(NamedTuple):
    """What a trace of a loss tells."""

    shape: tuple[int, ...]  # of the losses
    linen: bool  # a Linen network was seen at work
    objection: Exception | None  # what the loss raises on marked parameters


def traced(loss: PerExampleLoss, params: Params, batch: Batch) -> Traced:
    """Trace a loss with marks among its parameters, and without if it objects to them.

    Nothing of ours runs but what notes the modules, so an objection is the loss's own:
    it compares the parameters with a tree without marks, say.
    """
    modules: list[nn.Module] = []

    def note(next_fun, args, kwargs, context):
        modules.append(context.module)
        refuse_own_statistics(context.module, context.method_name, args, kwargs)
        return next_fun(*args, **kwargs)

    def shape_of(mark: Callable[[Params], Params]) -> tuple[int, ...]:
        with nn.intercept_methods(note):
            # A new function, for the trace of one that is remembered meets no module.
            found = jax.eval_shape(lambda p, b: loss(mark(p), b), params, batch)
        return tuple(found.shape)

    try:
        shape, objection = shape_of(lambda p: with_marks(p, object(), {})), None
    except OBJECTIONS as error:
        shape, objection = shape_of(lambda p: p), error
    return Traced(shape, bool(modules), objection)
