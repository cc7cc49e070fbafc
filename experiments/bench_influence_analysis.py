"""GPT-2 124M by shapes: flops and bytes of each row beside a training step's.

Nothing is computed: programs are compiled for arrays that do not exist. XLA counts the
body of a loop once, so the flops of matrix products are counted here, loops and all;
temporary bytes are XLA's.
"""

import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from bench_influence_fixture import BLOCKS
from rich.console import Console
from rich.table import Table

from jaxunlearn import gradients
from jaxunlearn.gradients.projections.projection import Projection
from jaxunlearn.gradients.projections.rows import projected_gradients
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.models.checkpoints.huggingface import parameter_shapes
from jaxunlearn.models.tying import token_rows, with_token_rows
from jaxunlearn.types import Batch, Params

LENGTH, SIZE, QUERIES = 512, 8, 4


def programs(model: GPT2) -> dict[str, tuple[Callable, int]]:
    """Return functions of (params, batch, vector), and directions that vector holds."""

    def loss(params: Params, batch: Batch) -> jax.Array:
        return model.token_losses(params, batch).sum(axis=-1)

    def step(params, batch, vector):
        return jax.value_and_grad(lambda p: loss(p, batch).sum())(params)

    def floor(params, batch, vector):
        def total(rows):
            return model.token_losses(*with_token_rows(params, batch, rows)).sum()

        return jax.value_and_grad(total)(token_rows(params, batch))

    def products(layers):
        return lambda params, batch, vector: gradients.products_with(
            loss, params, batch, vector, layers=layers
        )

    def index_row(params, batch, vector):
        return projected_gradients(
            loss, params, batch, Projection("kronecker", (16, 16)), layers=BLOCKS
        )

    return {
        "step": (step, 0),
        "floor": (floor, 0),
        "direction": (
            lambda p, b, v: gradients.directional_scores(loss, p, b, v),
            1,
        ),
        f"products_blocks, {QUERIES} queries": (products(BLOCKS), QUERIES),
        f"products_all, {QUERIES} queries": (products(None), QUERIES),
        "index row": (index_row, 0),
        "hvp": (lambda p, b, v: gradients.hvp(loss, p, b, v), 1),
        "fisher_diagonal": (
            lambda p, b, v: gradients.fisher_diagonal(loss, p, b),
            0,
        ),
    }


def vector_like(params: Params, count: int, make: Callable):
    """Return no direction, one like ``params``, or several."""
    if count == 0:
        return None
    lead = () if count == 1 else (count,)
    return jax.tree.map(lambda x: make((*lead, *x.shape)), params)


def print_analysis() -> None:
    """Print flops and bytes of every row at GPT-2 124M, from shapes alone."""
    model = GPT2(GPT2Config())
    params = parameter_shapes(model)
    tokens = jax.ShapeDtypeStruct((SIZE, LENGTH), jnp.int32)
    batch = {"input_ids": tokens, "labels": tokens}
    table = Table(title=f"GPT-2 124M, float32, B={SIZE}, T={LENGTH}")
    for name in ("row", "Tflop of products", "/ step", "XLA's Tflop"):
        table.add_column(name)
    for name in ("temporary MB", "/ step", "compile s"):
        table.add_column(name)
    step_flops = step_bytes = None
    for name, (function, count) in programs(model).items():
        vector = vector_like(
            params, count, lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)
        )
        flops = product_flops(jax.make_jaxpr(function)(params, batch, vector).jaxpr)
        start = time.perf_counter()
        compiled = jax.jit(function).lower(params, batch, vector).compile()
        spent = time.perf_counter() - start
        temporary = compiled.memory_analysis().temp_size_in_bytes
        step_flops, step_bytes = step_flops or flops, step_bytes or temporary
        table.add_row(
            name,
            f"{flops / 1e12:.2f}",
            f"{flops / step_flops:.2f}",
            f"{compiled.cost_analysis()['flops'] / 1e12:.2f}",
            f"{temporary / 1e6:.0f}",
            f"{temporary / step_bytes:.2f}",
            f"{spent:.0f}",
        )
    Console(width=110).print(table)


def product_flops(jaxpr) -> float:
    """Return the flops of a program's matrix products; loops as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            size = math.prod(left[axis] for axis in contracted)
            total += 2.0 * size * math.prod(equation.outvars[0].aval.shape)
        times = equation.params.get("length", 1)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * product_flops(inner)
    return total


def print_accelerator(peak_tflops: float | None, rounds: int, size: int) -> None:
    """Time GPT-2 124M in bfloat16 on this device; best of ``rounds`` calls."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        raise ValueError("--gpu: no accelerator is here, JAX sees only the CPU")
    model = GPT2(GPT2Config(dtype="bfloat16"))
    params = jax.jit(lambda: model.init(key=jax.random.key(0)))()
    ids = jax.random.randint(jax.random.key(1), (size, LENGTH), 0, 50257)
    batch = {"input_ids": ids, "labels": ids}
    table = Table(title=f"{device.device_kind}, GPT-2 124M, bfloat16, B={size}")
    for name in ("row", "ms", "tokens/s", "/ step", "of peak", "peak GB so far"):
        table.add_column(name)
    step_seconds = None
    for name, (function, count) in programs(model).items():
        vector = vector_like(params, count, jnp.ones)
        flops = product_flops(jax.make_jaxpr(function)(params, batch, vector).jaxpr)
        compiled = jax.jit(function).lower(params, batch, vector).compile()
        jax.block_until_ready(compiled(params, batch, vector))
        times = []
        for _ in range(max(rounds, 5)):
            start = time.perf_counter()
            jax.block_until_ready(compiled(params, batch, vector))
            times.append(time.perf_counter() - start)
        best = min(times)
        step_seconds = step_seconds or best
        used = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
        share = f"{flops / best / peak_tflops / 1e12:.2f}" if peak_tflops else ""
        table.add_row(
            name,
            f"{1e3 * best:.1f}",
            f"{ids.size / best:.0f}",
            f"{best / step_seconds:.2f}",
            share,
            f"{used / 1e9:.1f}",
        )
    Console(width=110).print(table)
