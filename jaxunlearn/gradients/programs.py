"""Recorded programs (jaxprs), and all that is known of JAX's primitives by name.

A program may be looked at; how its primitives and their parameters are called is
promised by nobody and changes. So what shapes tell is taken from shapes, and what has
to be asked for by name and is not there is an error, never a guess.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

CALLS = {
    *("checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"),
    *("jit", "pjit", "remat", "remat2"),
}
"""Primitives whose operands and results are those of the one program inside."""

LOOPS = {"scan", "while"}

SEALED = {
    *("composite", "custom_linear_solve", "linear_call", "reduce", "reduce_window"),
    *("scatter", "scatter-add", "scatter_add", "shard_map"),
}
"""Primitives that do with the programs inside what no layer can be told apart in."""

ENTRYWISE = {
    *("add", "add_any", "convert_element_type", "copy", "div", "erf", "exp"),
    *("integer_pow", "log", "logistic", "max", "min", "mul", "neg", "rsqrt"),
    *("select_n", "sqrt", "square", "stop_gradient", "sub", "tanh"),
}
"""Primitives of one shape, whose entries do not meet."""

TESTED = "0.10.2 to 0.12.0"
"""The versions of JAX that the tests pass on."""


class UnreadProgram(NotImplementedError):
    """This version of JAX records something that we do not know how to read."""


def unreadable(what: str, why: str) -> UnreadProgram:
    """Return the error that something recorded cannot be read."""
    return UnreadProgram(
        f"jax {jax.__version__} records {what} in a form that jaxunlearn does not "
        f"read: {why}. The fault is ours, not your loss's: use a jax that the tests "
        f"pass on ({TESTED}), or a newer jaxunlearn"
    )


def unread(equation: Any, why: str) -> UnreadProgram:
    """Return the error that an equation cannot be read."""
    return unreadable(f"the primitive {equation.primitive.name!r}", why)


def parameter(equation: Any, name: str) -> Any:
    """Return a parameter of an equation.

    Raises:
      UnreadProgram: It has none of that name.
    """
    if name not in equation.params:
        told = ", ".join(sorted(equation.params))
        raise unread(equation, f"it has no parameter {name!r}, but {told or 'none'}")
    return equation.params[name]


def programs_in(equation: Any) -> list[Any]:
    """Return the programs inside an equation; none if it is no call, loop or branch."""
    values = jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda x: hasattr(getattr(x, "jaxpr", x), "eqns"),
    )
    parts = [getattr(value, "jaxpr", value) for value in values]
    parts = [part for part in parts if hasattr(part, "eqns")]
    kind = equation.primitive.name
    one = kind in CALLS or kind == "scan"
    if (one and len(parts) != 1) or (kind == "cond" and not parts):
        raise unread(equation, f"{len(parts)} programs are found inside it")
    return parts


def check_open(equation: Any) -> None:
    """Refuse an equation that keeps programs where they cannot be followed.

    JAX 0.12 keeps those of ``custom_root`` as functions in an object of its own.

    Raises:
      UnreadProgram: It does.
    """
    objects = [x for x in equation.params.values() if hasattr(x, "__dict__")]
    if any(hasattr(x, "eqns") for one in objects for x in vars(one).values()):
        raise unread(equation, "it keeps the programs inside to itself")


def living_equations(jaxpr: Any) -> list[Any]:
    """Return the equations on which the results depend, in their order."""
    alive, living = {id(x) for x in jaxpr.outvars}, []
    for equation in reversed(jaxpr.eqns):
        if alive & {id(x) for x in equation.outvars}:
            alive |= {id(x) for x in equation.invars}
            living.append(equation)
    return living[::-1]


def shapes_of(variables: Any) -> list[tuple[int, ...]]:
    """Return the shapes of variables of a program."""
    return [tuple(x.aval.shape) for x in variables]


def check_operands(equation: Any, given: Any, part: Any) -> None:
    """Refuse a program inside that does not take the equation's operands as they are.

    Raises:
      UnreadProgram: It does not.
    """
    outer, inner = shapes_of(given), shapes_of(part.invars)
    if outer != inner:
        raise unread(
            equation, f"operands of shapes {outer} go into a program that takes {inner}"
        )


def scan_counts(equation: Any, body: Any) -> tuple[int, int]:
    """Return how many operands of a scan are constants, and how many are carried on.

    The others are sliced along their first axis. Told by shapes: what is sliced has an
    axis less inside, as has a result that is stacked, and the other results are the
    carried ones.

    Raises:
      UnreadProgram: Operands or results do not lie as those of a scan.

    >>> def body(carry, x):
    ...     return carry + x, x
    >>> scan = lambda c, xs: jax.lax.scan(body, c, xs)
    >>> (found,) = jax.make_jaxpr(scan)(jnp.zeros(()), jnp.zeros(3)).jaxpr.eqns
    >>> scan_counts(found, *programs_in(found))
    (0, 1)
    """
    check_scan_order()
    return counted(equation, body)


def counted(equation: Any, body: Any) -> tuple[int, int]:
    """Return ``scan_counts`` of a scan whose operands lie in the usual order."""

    def whole(outer: Any, inner: Any) -> int:
        pairs = list(zip(shapes_of(outer), shapes_of(inner), strict=False))
        alike = [a == b for a, b in pairs]
        sliced = [a[1:] == b and len(a) == len(b) + 1 for a, b in pairs]
        count = sum(alike)
        lengths = {a[0] for a, _ in pairs[count:] if a}
        if (
            len(outer) != len(inner)
            or not all(alike[:count])
            or not all(sliced[count:])
            or len(lengths) > 1
        ):
            raise unread(
                equation,
                f"shapes {shapes_of(outer)} outside are {shapes_of(inner)} inside",
            )
        return count

    stay = whole(equation.invars, body.invars)
    carried = whole(equation.outvars, body.outvars)
    constants = stay - carried
    before, after = body.invars[max(constants, 0) : stay], body.outvars[:carried]
    if constants < 0 or shapes_of(before) != shapes_of(after):
        raise unread(
            equation,
            f"{carried} results are carried on, of {stay} operands that stay whole",
        )
    return constants, carried


@functools.cache
def check_scan_order() -> None:
    """Check, on a scan whose shapes tell its operands apart, in which order they lie.

    Raises:
      UnreadProgram: Not constants, then what is carried, then what is sliced.
    """

    def scanned(carry, xs, constant):
        def body(carry, x):
            return carry + jnp.sum(constant) + jnp.sum(x), jnp.sum(x)

        return jax.lax.scan(body, carry, xs)

    given = [jax.ShapeDtypeStruct(x, jnp.float32) for x in [(2,), (5, 3), (4,)]]
    program = jax.make_jaxpr(scanned)(*given).jaxpr
    scans = [e for e in program.eqns if (5, 3) in shapes_of(e.invars)]
    for equation in scans:
        found = equation.primitive.name, shapes_of(equation.invars)
        if found != ("scan", [(4,), (2,), (5, 3)]):
            raise unread(equation, f"operands of a test lie as {found[1]}")
        if [counted(equation, part) for part in programs_in(equation)] != [(1, 1)]:
            raise unread(equation, "the operands of a test are not told apart")
    if len(scans) != 1:
        raise unread(program.eqns[-1], "a test records no single scan")
