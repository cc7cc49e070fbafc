import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients import per_example_gradients, products_with
from jaxunlearn.influence.methods.table import METHODS
from jaxunlearn.influence.planner.methods import STAGES
from jaxunlearn.influence.planner.planning import plan
from jaxunlearn.influence.scoring import scores

WIDTH = 32


def quadratic(params, batch):
    return (jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]) ** 2


SHAPES = {
    "w": jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32),
    "v": jax.ShapeDtypeStruct((WIDTH,), jnp.float32),
}
ROW = {"x": jnp.ones((1, WIDTH)), "y": jnp.ones(1)}
GRADIENT_BYTES = 4 * (WIDTH * WIDTH + WIDTH)
planned = functools.partial(plan, quadratic, SHAPES, ROW, queries=8, examples=100)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def batch_shapes(size):
    return {"x": shape(size, WIDTH), "y": shape(size), "weight": shape(size)}


def compiled_bytes(function, *shapes):
    memory = jax.jit(function).lower(*shapes).compile().memory_analysis()
    return (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )


@pytest.fixture(scope="module")
def functions():
    """What the stages of gradient products compile, from a batch size."""
    directions = jax.tree.map(lambda x: shape(8, *x.shape), SHAPES)

    def gradients(size):
        function = functools.partial(per_example_gradients, quadratic)
        return compiled_bytes(function, SHAPES, batch_shapes(size))

    def sweep(size):
        function = functools.partial(products_with, quadratic)
        return compiled_bytes(function, SHAPES, batch_shapes(size), directions)

    return {"query gradients": gradients, "train sweep": sweep}


@pytest.mark.parametrize("limit", [60_000, 10**6])
def test_a_stage_needs_what_its_program_does_and_twice_the_batch_is_too_much(
    functions, limit
):
    found = planned(limit_bytes=limit)
    assert [stage.name for stage in found.stages] == list(functions)
    assert found.peak_bytes <= limit
    for stage in found.stages:
        compute = functions[stage.name]
        parts = stage.argument_bytes, stage.output_bytes, stage.temporary_bytes
        assert parts == compute(stage.batch_size)
        assert stage.total_bytes == sum(parts)
        most = {"query gradients": 8, "train sweep": 100}[stage.name]
        assert stage.calls == -(-most // stage.batch_size)
        if stage.batch_size < most:
            assert sum(compute(min(2 * stage.batch_size, most))) > limit


@pytest.mark.slow
def test_more_memory_is_never_less_room():
    limits = [30_000, 45_000, 100_000, 10**7]
    found = [planned(limit_bytes=limit) for limit in limits]
    room = [(p.queries_at_a_time, p.batch_size) for p in found]
    assert [queries for queries, _ in room] == sorted(queries for queries, _ in room)
    whole = [size for queries, size in room if queries == 8]
    assert whole == sorted(whole)
    assert whole[0] < whole[-1] == 100
    assert all(p.peak_bytes <= limit for p, limit in zip(found, limits, strict=True))


def test_queries_come_in_parts_if_their_gradients_do_not_fit():
    # Eight gradients alone are above it.
    limit = 8 * GRADIENT_BYTES
    found = planned(limit_bytes=limit)
    assert 1 < found.query_parts == -(-8 // found.queries_at_a_time)
    sweep = found.stages[1]
    held = found.queries_at_a_time * GRADIENT_BYTES
    assert sweep.argument_bytes > held
    # In one part fewer it would not fit with one example.
    more = -(-8 // (found.query_parts - 1))
    directions = jax.tree.map(lambda x: shape(more, *x.shape), SHAPES)
    function = functools.partial(products_with, quadratic)
    needed = compiled_bytes(function, SHAPES, batch_shapes(1), directions)
    assert sum(needed) > limit


def test_what_does_not_fit_is_said_with_its_stage_and_what_to_try():
    with pytest.raises(
        ValueError, match=r"train sweep.*one example and one query.*lay"
    ):
        planned(limit_bytes=2 * GRADIENT_BYTES)
    # Of fewer parameters the same limit is enough.
    found = planned(limit_bytes=2 * GRADIENT_BYTES, layers="^v$")
    assert found.layer_parts == ("^v$",)


def test_arrays_are_planned_like_shapes_and_other_dtypes_stay_in_memory():
    settings = dict(queries=2, examples=4, limit_bytes=10**7)
    plain = plan(quadratic, SHAPES, ROW, **settings)
    rough = jax.tree.map(lambda x: jnp.ones(x.shape, jnp.bfloat16), SHAPES)
    found = plan(quadratic, rough, batch_shapes(3), **settings)
    for stage, other in zip(found.stages, plain.stages, strict=True):
        assert stage.held_bytes == GRADIENT_BYTES // 2
        assert stage._replace(held_bytes=0) == other


def test_summed_queries_need_no_query_gradients_in_the_sweep_but_keep_them():
    found = planned(limit_bytes=10**6, aggregate="sum")
    sweep = found.stages[1]
    assert sweep.name == "train sweep, forward mode"
    assert sweep.held_bytes == 8 * GRADIENT_BYTES


def test_what_can_be_planned_can_be_run():
    assert set(STAGES) - {"index"} <= set(METHODS)


@pytest.mark.parametrize("method", ["cosine", "diagonal", "cg", "lanczos", "logra"])
def test_the_stages_of_a_method_compile(method):
    found = plan(
        quadratic,
        SHAPES,
        ROW,
        method=method,
        queries=2,
        examples=3,
        limit_bytes=10**8,
        largest_batch_size=1,
        rank=2,
    )
    assert all(stage.flops > 0 for stage in found.stages if stage.batch_size)
    assert found.batch_size == 1


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (16, 1):
            x = jnp.tanh(nn.Dense(width, name=f"to_{width}")(x))
        return x[:, 0]


@pytest.fixture(scope="module")
def network():
    """A network, eight examples, and two queries."""
    model = Network()
    draw = np.random.default_rng(0)
    train, query = (
        {
            "x": draw.normal(size=(n, 16)).astype(np.float32),
            "y": draw.normal(size=n).astype(np.float32),
        }
        for n in (8, 2)
    )
    params = jax.jit(model.init)(jax.random.key(0), train["x"])["params"]

    def loss(params, batch):
        return (model.apply({"params": params}, batch["x"]) - batch["y"]) ** 2

    return types.SimpleNamespace(loss=loss, params=params, train=train, query=query)


@pytest.mark.slow
def test_factors_that_do_not_fit_come_in_parts_of_the_layers(network):
    settings = dict(method="ekfac", queries=1, examples=8, largest_batch_size=1)
    roomy, tight = (
        plan(
            network.loss,
            network.params,
            network.train,
            limit_bytes=limit,
            **settings,
        )
        for limit in (10**6, 9_500)
    )
    assert roomy.layer_parts == (None,)
    assert [stage.name for stage in roomy.stages] == [
        "query gradients",
        "moments",
        "eigenvectors",
        "eigenvalues",
        "inverse",
        "train sweep",
    ]
    assert len(tight.layer_parts) > 1
    assert tight.peak_bytes <= 9_500 < roomy.peak_bytes
    # A sum takes the place of the one before it; the moments are still there, and the
    # query's gradient, while the eigenvalues are summed.
    gradients, moments, eigenvectors, eigenvalues, *_ = roomy.stages
    assert moments.output_bytes < 100
    assert 0 < moments.held_bytes <= gradients.output_bytes
    assert eigenvalues.held_bytes >= moments.held_bytes + eigenvectors.argument_bytes
    # Directions are as large as all parameters, zero where a part has none.
    whole = sum(4 * x.size for x in jax.tree.leaves(network.params))
    assert roomy.stages[-1].held_bytes == 0
    assert 0 < tight.stages[-1].held_bytes < whole
    # Every parameter is in one part.
    sizes = [
        tree.selected_size(network.params, tree.select(network.params, part))
        for part in tight.layer_parts
    ]
    assert sum(sizes) == sum(x.size for x in jax.tree.leaves(network.params))


@pytest.mark.slow
def test_scores_of_parts_of_the_layers_add_up(network):
    parts = plan(
        network.loss,
        network.params,
        network.train,
        method="ekfac",
        queries=1,
        examples=8,
        limit_bytes=9_500,
    ).layer_parts
    whole, *some = (
        scores(
            network.loss,
            network.params,
            network.train,
            network.query,
            method="ekfac",
            layers=layers,
        ).scores
        for layers in (None, *parts)
    )
    np.testing.assert_allclose(sum(some), whole, rtol=1e-4, atol=1e-4)


def test_activations_are_planned(network):
    found = plan(
        network.loss,
        network.params,
        network.train,
        method="act_act",
        queries=2,
        examples=8,
        limit_bytes=10**6,
    )
    assert [stage.batch_size for stage in found.stages] == [8]


def test_the_table_has_a_row_for_each_stage():
    found = planned(limit_bytes=100_000)
    rows = found.rows()
    assert [row["stage"] for row in rows] == ["query gradients", "train sweep"]
    for row, stage in zip(rows, found.stages, strict=True):
        total = sum(
            row[f"{part} MB"] for part in ("arguments", "outputs", "temporary", "held")
        )
        assert row["total MB"] == pytest.approx(total)
        assert row["total MB"] == stage.total_bytes / 1e6
    lines = str(found).splitlines()
    assert len({len(line) for line in lines[1:4]}) == 1
    assert f"of {found.limit_bytes / 1e6:.4g} MB" in lines[0]
    assert lines[4].startswith(f"batch_size={found.batch_size};")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "unrolled"}, "method='unrolled' cannot be planned: one of"),
        ({"queries": 0}, "queries=0: must be at least 1"),
        ({"examples": 0}, "examples=0: must be at least 1"),
        ({"limit_bytes": -1}, "limit_bytes=-1: must be at least 1"),
        ({"curvature": "convex"}, "curvature='convex': one of fisher"),
        ({"layers": "nowhere"}, "layers='nowhere' matches no parameter"),
    ],
)
def test_wrong_options_are_refused(options, message):
    settings = {"queries": 8, "examples": 100, "limit_bytes": 10**6} | options
    with pytest.raises(ValueError, match=message):
        plan(quadratic, SHAPES, ROW, **settings)
