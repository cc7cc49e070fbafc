"""Where parameters and examples go in a traced loss, read off its jaxpr.

Equal shapes prove nothing: a kernel may have been masked on its way to its layer, and
the time axis may be as long as the batch. The program that a trace records tells.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from jaxunlearn.gradients.programs import (
    CALLS,
    ENTRYWISE,
    LOOPS,
    SEALED,
    check_operands,
    living_equations,
    programs_in,
    scan_counts,
    unread,
)


class Origin(NamedTuple):
    """An argument of the program, untouched but for the scans that sliced it."""

    argument: int
    slices: int


class Visit(NamedTuple):
    """A call of a marked function."""

    loops: int  # it lies in
    shapes: tuple[tuple[int, ...], ...]  # of its operands
    origins: tuple[Origin | None, ...]


class Value(NamedTuple):
    """What is known of a variable."""

    origin: Origin | None = None
    of_batch: bool = False  # depends on the batch
    copies: frozenset[str] = frozenset()
    """The marks whose output it holds once for each example, all alike."""


class Flow(NamedTuple):
    """What was found.

    Attributes:
      visits: Mark -> its visits.
      spoiled: Marks of copies that depend on the batch, or that meet anything before
        they are added, entry by entry, to what each example has of its own.
    """

    visits: dict[str, list[Visit]]
    spoiled: set[str]


def flow_of(jaxpr: Any, parameters: int, prefix: str, copied: Collection[str]) -> Flow:
    """Follow the arguments through a program.

    Args:
      jaxpr: The program. Dead code does not count: ``nn.scan`` traces its body once
        more than it runs it.
      parameters: How many of its arguments, the first ones, are parameters; the others
        are the batch.
      prefix: Marked functions are called ``prefix + mark`` and return their first
        operand.
      copied: Marks whose operand holds a copy for each example.

    Raises:
      UnreadProgram: This version of JAX records it in a form unknown to us.
    """
    flow = Flow({}, set())
    arguments = [
        Value(Origin(i, 0), i >= parameters) for i, _ in enumerate(jaxpr.invars)
    ]
    for result in follow(jaxpr, arguments, 0, flow, prefix, copied):
        flow.spoiled.update(result.copies)
    return flow


def follow(
    jaxpr: Any, values: list[Value], loops: int, flow: Flow, prefix: str, copied: Any
) -> list[Value]:
    """Return what is known of the results of a program that lies in ``loops`` loops."""
    known = dict(zip(map(id, jaxpr.invars), values, strict=True))

    def value_of(variable: Any) -> Value:
        return known.get(id(variable), Value())

    def blurred(values: list[Value]) -> Value:
        for value in values:
            flow.spoiled.update(value.copies)
        return Value(of_batch=any(value.of_batch for value in values))

    def results_of(equation: Any) -> list[Value]:
        given = [value_of(x) for x in equation.invars]
        name, kind = str(equation.params.get("name", "")), equation.primitive.name
        if name.startswith(prefix):
            mark = name.removeprefix(prefix)
            shapes = tuple(tuple(x.aval.shape) for x in equation.invars)
            origins = tuple(value.origin for value in given[1:])
            flow.visits.setdefault(mark, []).append(Visit(loops, shapes, origins))
            if mark not in copied:
                return [given[0]._replace(origin=None)]
            if given[0].of_batch or given[0].copies:
                flow.spoiled.update({mark}, given[0].copies)
            return [Value(copies=frozenset({mark}))]
        parts = programs_in(equation)
        if not parts:
            return [entrywise(equation, given) or blurred(given)]
        if kind in CALLS:
            check_operands(equation, equation.invars, parts[0])
            return follow(parts[0], given, loops, flow, prefix, copied)
        blur, visits = blurred(given), visit_count(flow)
        inside = loops + (kind in LOOPS)
        for part in parts:
            results = follow(
                part, enter(equation, part, given, blur), inside, flow, prefix, copied
            )
            blurred(results)
        known = kind in LOOPS or kind in SEALED or kind == "cond"
        if not known and visit_count(flow) > visits:
            raise unread(equation, "a layer of the network is called inside it")
        return [blur]

    for equation in living_equations(jaxpr):
        results = results_of(equation)
        if len(results) == 1:
            results *= len(equation.outvars)
        known.update(zip(map(id, equation.outvars), results, strict=True))
    return [value_of(x) for x in jaxpr.outvars]


def enter(equation: Any, part: Any, given: list[Value], blur: Value) -> list[Value]:
    """Return what a loop or a branch knows of its own arguments."""
    kind = equation.primitive.name
    if kind == "cond":
        check_operands(equation, equation.invars[1:], part)
        return given[1:]
    if kind != "scan":
        return [blur] * len(part.invars)
    constants, carried = scan_counts(equation, part)
    slices = [
        value._replace(origin=value.origin._replace(slices=value.origin.slices + 1))
        if value.origin
        else value
        for value in given[constants + carried :]
    ]
    return given[:constants] + [blur] * carried + slices


def visit_count(flow: Flow) -> int:
    """Return how many visits were found so far."""
    return sum(map(len, flow.visits.values()))


def entrywise(equation: Any, given: list[Value]) -> Value | None:
    """Return what is known of copies after an equation, None if they met."""
    copies = frozenset().union(*(value.copies for value in given))
    of_batch = any(value.of_batch for value in given)
    if not copies:
        return Value(of_batch=of_batch)
    shape = equation.outvars[0].aval.shape
    apart = equation.primitive.name in ENTRYWISE and all(
        x.aval.shape == shape or not (value.of_batch or value.copies)
        for x, value in zip(equation.invars, given, strict=True)
    )
    if not apart:
        return None
    # Beside an example's own entries a copy is one like any other.
    return Value(of_batch=True) if of_batch else Value(copies=copies)
