"""Our side of bench_influence.py: each row of its table as a function to be timed.

A row is a function from the fixture to a function without arguments, which does the
work once and returns what it found.
"""

from collections.abc import Callable

import jax
import numpy as np
from bench_influence_fixture import (
    BATCH,
    BLOCKS,
    Fixture,
    Found,
    Row,
    batch_of,
    batches_of,
)
from bench_influence_index import index_build, index_query

from jaxunlearn import gradients
from jaxunlearn.gradients.kronecker.query_scores import ekfac_scores
from jaxunlearn.models.tying import token_rows, with_token_rows
from jaxunlearn.types import Params


def each_batch(function: Callable, batches: list, *first) -> Callable[[], Found]:
    """Return what runs ``function(*first, batch)`` over batches and waits for each."""

    def run() -> Found:
        found = [jax.block_until_ready(function(*first, batch)) for batch in batches]
        return {"last": np.asarray(jax.tree.leaves(found[-1])[0])}

    return run


def training_step(fixture: Fixture) -> Callable[[], Found]:
    """Loss and gradient of all parameters over all 80 sequences."""

    def step(params, batch):
        return jax.value_and_grad(lambda p: fixture.loss(p, batch).sum())(params)

    every = batches_of(fixture.train, fixture.query)
    return each_batch(jax.jit(step), every, fixture.params)


def floor(fixture: Fixture) -> Callable[[], Found]:
    """Forward and a backward pass of activations only over all 80 sequences."""

    def back(params, batch):
        def total(rows):
            own = with_token_rows(params, batch, rows)
            return fixture.model.token_losses(*own).sum()

        return jax.value_and_grad(total)(token_rows(params, batch))

    every = batches_of(fixture.train, fixture.query)
    return each_batch(jax.jit(back), every, fixture.params)


def direction(fixture: Fixture) -> Callable[[], Found]:
    """All 80 sequences against one direction; the direction is there already."""
    summed = jax.jit(jax.grad(lambda p, batch: fixture.loss(p, batch).sum()))(
        fixture.params, batch_of(fixture.query)
    )
    every = batches_of(fixture.train, fixture.query)

    def run() -> Found:
        scores = gradients.directional_scores(
            fixture.loss, fixture.params, every, summed
        )
        return {"summed": np.asarray(scores)[: len(fixture.train)]}

    return run


def forget_query(fixture: Fixture) -> Callable[[], Found]:
    """The gradient of 16 summed queries, then 64 sequences against it."""
    gradient = jax.jit(jax.grad(lambda p, batch: fixture.loss(p, batch).sum()))
    query, train = batch_of(fixture.query), batches_of(fixture.train)

    def run() -> Found:
        summed = gradient(fixture.params, query)
        scores = gradients.directional_scores(
            fixture.loss, fixture.params, train, summed
        )
        return {"summed": np.asarray(scores)}

    return run


def products(fixture: Fixture, layers: str | None) -> Callable[[], Found]:
    train, query = batch_of(fixture.train), batch_of(fixture.query)

    @jax.jit
    def compiled(params, train, query):
        return gradients.gradient_products(
            fixture.loss, params, train, query, layers=layers, batch_size=BATCH
        )

    def run() -> Found:
        return {"scores": np.asarray(compiled(fixture.params, train, query))}

    return run


def products_blocks(fixture: Fixture) -> Callable[[], Found]:
    """Gradient products, 64 x 16, weights and biases of the blocks."""
    return products(fixture, BLOCKS)


def products_all(fixture: Fixture) -> Callable[[], Found]:
    """Gradient products, 64 x 16, all parameters."""
    return products(fixture, None)


def ekfac(fixture: Fixture, layers: str | None) -> Callable[[], Found]:
    train, query = batches_of(fixture.train), batches_of(fixture.query)

    def run() -> Found:
        found = ekfac_scores(fixture.loss, fixture.params, train, query, layers=layers)
        return {"scores": np.asarray(found.scores)}

    return run


def ekfac_blocks(fixture: Fixture) -> Callable[[], Found]:
    """EK-FAC, factors and scores, weights and biases of the blocks."""
    return ekfac(fixture, BLOCKS)


def ekfac_all(fixture: Fixture) -> Callable[[], Found]:
    """EK-FAC, factors and scores, all parameters."""
    return ekfac(fixture, None)


def random_direction(params: Params) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def hvp(fixture: Fixture) -> Callable[[], Found]:
    """A Hessian-vector product of the mean over 80 sequences, all parameters."""
    vector = random_direction(fixture.params)
    every = batches_of(fixture.train, fixture.query)

    def run() -> Found:
        found = gradients.hvp(fixture.loss, fixture.params, every, vector)
        return {"last": np.asarray(jax.tree.leaves(jax.block_until_ready(found))[0])}

    return run


def fisher_diagonal(fixture: Fixture) -> Callable[[], Found]:
    """The exact per-example Fisher diagonal over 80 sequences, all parameters."""
    every = batches_of(fixture.train, fixture.query)

    def run() -> Found:
        found = gradients.fisher_diagonal(fixture.loss, fixture.params, every)
        return {"last": np.asarray(jax.tree.leaves(jax.block_until_ready(found))[0])}

    return run


def units(fixture: Fixture) -> Callable[[], Found]:
    """A training step over the same tokens."""
    return training_step(fixture)


UNITS: dict[str, Row] = {"step": training_step, "floor": floor}
ROWS: dict[str, Row] = {
    "units": units,
    "direction": direction,
    "forget_query": forget_query,
    "products_blocks": products_blocks,
    "products_all": products_all,
    "ekfac_blocks": ekfac_blocks,
    "ekfac_all": ekfac_all,
    "index_build": index_build,
    "index_query": index_query,
    "hvp": hvp,
    "fisher_diagonal": fisher_diagonal,
}
