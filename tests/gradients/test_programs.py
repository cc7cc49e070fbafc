"""What is read off recorded programs: facts by shapes, and refusals, never a guess."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.gradients import layer_taps, programs
from jaxunlearn.gradients.flops import matrix_flops
from jaxunlearn.gradients.programs import (
    UnreadProgram,
    check_operands,
    living_equations,
    parameter,
    programs_in,
    scan_counts,
)
from jaxunlearn.gradients.taps import dataflow
from jaxunlearn.gradients.taps import eligibility as survey

SIZE, WIDTH = 3, 4


def only(function, *arguments):
    """The one equation of a function that has programs inside."""
    living = living_equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    (found,) = (equation for equation in living if programs_in(equation))
    return found


@pytest.mark.parametrize("carried", [1, 3])
@pytest.mark.parametrize("constants", [0, 2])
@pytest.mark.parametrize("sliced", [0, 2])
@pytest.mark.parametrize("stacked", [0, 1])
def test_operands_of_a_scan_are_told_apart(constants, carried, sliced, stacked):
    """All of one shape, so that nothing but the order and the slicing tells."""

    def function(constants, carry, xs):
        def body(carry, xs):
            total = sum([*constants, *carry, *xs])
            return [total * x for x in carry], [total] * stacked

        return jax.lax.scan(body, carry, xs, length=SIZE)

    given = (
        [jnp.ones((SIZE, WIDTH))] * constants,
        [jnp.ones((SIZE, WIDTH))] * carried,
        [jnp.ones((SIZE, SIZE, WIDTH))] * sliced,
    )
    equation = only(function, *given)
    assert scan_counts(equation, *programs_in(equation)) == (constants, carried)


def fake(name="scan", outer=(), inner=(), out=(), inner_out=(), **params):
    """An equation as another version of JAX might record it."""

    def variables(shapes):
        return [SimpleNamespace(aval=SimpleNamespace(shape=s)) for s in shapes]

    body = SimpleNamespace(
        eqns=[], invars=variables(inner), outvars=variables(inner_out)
    )
    return SimpleNamespace(
        primitive=SimpleNamespace(name=name),
        params={"body": body, **params},
        invars=variables(outer),
        outvars=variables(out),
    ), body


@pytest.mark.parametrize(
    "shapes",
    [
        # Sliced before carried; an operand more; two lengths; of another rank.
        {"outer": [(5, 2), (2,)], "inner": [(2,), (2,)], "out": [(2,)]},
        {"outer": [(2,), (2,), (5, 2)], "inner": [(2,), (2,)], "out": [(2,)]},
        {"outer": [(2,), (5, 2), (6, 2)], "inner": [(2,)] * 3, "out": [(2,)]},
        {"outer": [(2,), (5, 6, 2)], "inner": [(2,), (2,)], "out": [(2,)]},
        # More is carried out than in; another shape is carried out than in.
        {"outer": [(2,)], "inner": [(2,)], "out": [(2,), (2,)]},
        {"outer": [(3,)], "inner": [(3,)], "out": [(2,)]},
    ],
)
def test_a_scan_of_another_form_is_refused(shapes):
    equation, body = fake(inner_out=shapes["out"], **shapes)
    with pytest.raises(
        UnreadProgram, match=f"jax {jax.__version__}.*'scan'.*shapes|car"
    ):
        scan_counts(equation, body)


def test_a_call_that_changes_its_operands_is_refused():
    equation, body = fake("jit", outer=[(2,)], inner=[(2,), (3,)])
    with pytest.raises(UnreadProgram, match="'jit'.* a program that takes"):
        check_operands(equation, equation.invars, body)
    bare = SimpleNamespace(primitive=SimpleNamespace(name="scan"), params={})
    with pytest.raises(UnreadProgram, match="'scan'.*0 programs are found inside"):
        programs_in(bare)


def test_a_parameter_of_another_name_is_refused():
    equation, _ = fake(steps=7)
    assert parameter(equation, "steps") == 7
    with pytest.raises(UnreadProgram, match="'length', but body, steps.*0.10.2 to"):
        parameter(equation, "length")
    program = SimpleNamespace(eqns=[equation], outvars=equation.outvars)
    equation.outvars.append(SimpleNamespace())
    program.outvars = equation.outvars
    with pytest.raises(UnreadProgram, match="no parameter 'length'"):
        matrix_flops(program)


def test_products_in_a_program_that_is_kept_hidden_are_not_counted_as_none():
    def root(x, w):
        def solve(f, y):
            return y - f(y) @ w

        return jax.lax.custom_root(lambda y: y @ w - x, x, solve, lambda g, y: y)

    recorded = jax.make_jaxpr(root)(jnp.ones((2, 2)), jnp.ones((2, 2)))
    if any(programs_in(equation) for equation in recorded.jaxpr.eqns):
        assert matrix_flops(recorded) >= 2 * 2**3
    else:
        with pytest.raises(UnreadProgram, match="to itself"):
            matrix_flops(recorded)
    equation, body = fake("new")
    equation.params = {"solver": SimpleNamespace(program=body)}
    program = SimpleNamespace(eqns=[equation], outvars=[object()])
    equation.outvars = program.outvars
    with pytest.raises(UnreadProgram, match="'new'.*to itself"):
        matrix_flops(program)


class Network(nn.Module):
    """One layer by itself, one within every kind of program that is followed."""

    @nn.compact
    def __call__(self, x):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(nn.Dense(WIDTH)(x)), None

        x = nn.Dense(WIDTH, name="plain")(x)
        x, _ = nn.remat(Block)(name="kept")(x, None)
        x, _ = nn.jit(Block)(name="jitted")(x, None)
        stack = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        return stack(name="h")(x, None)[0]


@pytest.fixture(scope="module")
def network():
    x = np.random.default_rng(0).normal(size=(SIZE, WIDTH)).astype(np.float32)
    params = jax.jit(Network().init)(jax.random.key(0), x)["params"]

    def loss(params, batch):
        return jnp.sum(Network().apply({"params": params}, batch["x"]) ** 2, axis=1)

    return loss, params, {"x": x}


def tapped(loss, params, batch):
    """The names of what is tapped."""
    found = {}

    def trace(params, batch):
        taps = layer_taps(loss, params, batch)
        found.update(dict.fromkeys(set(taps.products) - set(taps.untapped)))

    jax.eval_shape(trace, params, batch)
    return set(found)


def test_layers_within_programs_are_tapped(network):
    names = ("plain", "kept/Dense_0", "jitted/Dense_0", "h/Dense_0")
    assert tapped(*network) == {f"{n}/{k}" for n in names for k in ("kernel", "bias")}


@pytest.mark.parametrize(
    ("table", "kind"), [("CALLS", "remat2"), ("CALLS", "jit"), ("LOOPS", "scan")]
)
def test_a_layer_within_an_unknown_primitive_is_an_error_of_ours(
    network, monkeypatch, table, kind
):
    """As if JAX had given the primitive another name."""
    monkeypatch.setattr(dataflow, table, getattr(dataflow, table) - {kind})
    with pytest.raises(UnreadProgram, match=f"jax {jax.__version__} records.*'{kind}'"):
        tapped(*network)


def test_marks_that_are_not_found_are_an_error_of_ours(network, monkeypatch):
    monkeypatch.setattr(survey, "marked", lambda site, output, parameters: output)
    with pytest.raises(UnreadProgram, match="our mark, is not found"):
        tapped(*network)


def test_another_order_of_a_scans_operands_is_an_error_of_ours(network, monkeypatch):
    scan = jax.lax.scan

    def turned(body, carry, xs, **options):
        """Constants handed on as if they were carried."""
        (total, _), found = scan(
            lambda c, x: ((body(c[0], x)[0], c[1]), body(c[0], x)[1]),
            (carry, jnp.zeros(9)),
            xs,
            **options,
        )
        return total, found

    programs.check_scan_order.cache_clear()
    monkeypatch.setattr(jax.lax, "scan", turned)
    try:
        with pytest.raises(UnreadProgram, match="operands of a test lie as"):
            programs.check_scan_order()
    finally:
        programs.check_scan_order.cache_clear()


# Nothing is swallowed: what is not about marks or copies comes through.


class Broken(Exception):
    pass


def test_errors_while_layers_are_listened_to_come_through(network, monkeypatch):
    loss, params, batch = network

    def marked(site, output, parameters):
        raise Broken("ours")

    monkeypatch.setattr(survey, "marked", marked)
    with pytest.raises(Broken, match="ours"):
        tapped(loss, params, batch)


def test_a_loss_that_objects_to_marks_or_sizes_says_so(network, compared):
    loss, params, batch = network
    mask = jax.tree.map(lambda x: 2 * jnp.ones_like(x), params)

    def masked(params, batch):
        return loss(jax.tree.map(jnp.multiply, params, mask), batch)

    def three_at_most(params, batch):
        if len(batch["x"]) > SIZE:
            raise ValueError("three at most")
        return loss(params, batch)

    names = tapped(loss, params, batch)
    with pytest.warns(survey.UntappedWarning, match="does not take marked parameters"):
        assert tapped(masked, params, batch) == set()
    with pytest.warns(survey.UntappedWarning, match=r"twice as many .*three at most"):
        assert tapped(three_at_most, params, batch) == set()
    assert compared(masked, params, batch) == names
    assert compared(three_at_most, params, batch) == names

    def failing(params, batch):
        raise Broken("the loss's own")

    with pytest.raises(Broken, match="own"):
        tapped(failing, params, batch)


def test_a_loss_within_a_sealed_program_takes_the_slow_way(network, compared):
    loss, params, batch = network
    mesh = jax.make_mesh((1,), ("all",))
    rules = jax.sharding.PartitionSpec()
    sharded = jax.shard_map(loss, mesh=mesh, in_specs=rules, out_specs=rules)
    assert compared(sharded, params, batch) == tapped(loss, params, batch)


def test_a_layer_that_is_called_once_more_in_a_hidden_program(network, compared):
    """The root of ``y - f(y)``, a layer of whose f is called outside it too."""

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return 0.1 * nn.tanh(nn.Dense(WIDTH, name="dense")(x))

    x = np.random.default_rng(1).normal(size=(SIZE, WIDTH)).astype(np.float32)
    params = jax.jit(Layer().init)(jax.random.key(0), x)["params"]

    def loss(params, batch):
        def residual(y):
            return y - Layer().apply({"params": params}, y) - batch["x"]

        def solve(f, y):
            for _ in range(20):
                y = y - f(y)
            return y

        def linear(g, y):
            return solve(lambda x: g(x) - y, y)

        root = jax.lax.custom_root(residual, batch["x"], solve, linear)
        return jnp.sum(Layer().apply({"params": params}, root) ** 2, axis=1)

    assert compared(loss, params, {"x": x}, passes=True) == {
        "dense/kernel",
        "dense/bias",
    }
