"""The compiled step down an objective: its memory, and whose arrays it may consume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.data import Example, TokenizedData, in_order
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.randomness import random_key
from jaxunlearn.tasks import classification_task, language_task
from jaxunlearn.training.recipe import Recipe, optimizer
from jaxunlearn.unlearning import Limits, Sets, unlearn
from jaxunlearn.unlearning.descent import step_inputs
from jaxunlearn.unlearning.descent_step import (
    WithOptions,
    initial_descent,
    make_step,
)
from jaxunlearn.unlearning.objectives.difference import grad_diff

RNG = np.random.default_rng(0)
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.1, optimizer="adam")
PARAMS = {
    "kernel": jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32),
    "bias": jnp.zeros(3),
}


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def batch(size):
    return {
        "inputs": RNG.normal(size=(size, 5)).astype(np.float32),
        "labels": RNG.integers(3, size=size).astype(np.int32),
        "index": np.arange(size, dtype=np.int32),
        "weight": np.ones(size, np.float32),
    }


TASK = classification_task(linear)
LANGUAGE = Recipe(epochs=2, batch_size=4, learning_rate=0.01)
CONFIG = GPT2Config(vocab_size=97, n_positions=8, n_embd=16, n_layer=2, n_head=2)


def tokens(size):
    """Sequences of eight tokens."""
    ids = np.random.default_rng(size).integers(97, size=(size, 8)).astype(np.int32)
    examples = tuple(Example(x, x, i) for i, x in enumerate(ids))
    return TokenizedData(examples, 0, 0, 0)


SETS = Sets(batch(4), batch(4))


@pytest.fixture(scope="module")
def compiled():
    """The step, its argument, and a state before it."""

    def make(task):
        # It keeps the starting parameters: what the step must not consume.
        return grad_diff(task, retain_term="kl")

    transform, key = optimizer(RECIPE, 3), random_key(0)
    mask = tree.select(PARAMS, ".", stacked=())
    step, argument = make_step(make, TASK, transform, mask, key)
    return step, argument, lambda: initial_descent(make(TASK), transform, PARAMS, key)


def test_new_weights_take_the_place_of_the_old(compiled):
    step, argument, start = compiled
    state = start()
    planned = (
        step.lower(argument, *step_inputs(state), SETS).compile().memory_analysis()
    )
    own = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
    assert planned.alias_size_in_bytes >= own > 0


def test_the_bits_are_those_of_a_step_that_consumes_nothing(compiled, same_bits):
    step, argument, start = compiled
    keeping = jax.jit(step.__wrapped__)
    one, other = step_inputs(start()), step_inputs(start())
    for _ in range(3):
        one, other = (f(argument, *x, SETS) for f, x in ((step, one), (keeping, other)))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert all(same_bits(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["grad_diff", "npo"])
def test_a_second_descent_compiles_nothing(method, compilations):
    def descended():
        # Equal, and other objects: a request makes its own.
        sets = Sets(*(in_order(tokens(size), batch_size=4) for size in (5, 9)))
        free = Limits(max_retain_nats=None, max_relative_step=None)
        given = {"recipe": dataclasses.replace(LANGUAGE), "limits": free}
        task = language_task(GPT2(dataclasses.replace(CONFIG)))
        return unlearn(task, params, sets, method, layers="^h/1/", **given)

    params = GPT2(CONFIG).init(key=random_key(0))
    first = descended()
    compilations.clear()
    second = descended()
    assert not compilations
    assert first.steps == 4
    np.testing.assert_array_equal(
        second.params["h"]["mlp"]["c_fc"]["kernel"],
        first.params["h"]["mlp"]["c_fc"]["kernel"],
    )


def test_other_options_are_another_program():
    def step_of(*options, layers="."):
        mask = tree.select(PARAMS, layers, stacked=())
        make = WithOptions(grad_diff, options)
        return make_step(make, TASK, optimizer(RECIPE, 3), mask, random_key(0))[0]

    one = step_of(("forget_weight", 2.0))
    assert step_of(("forget_weight", 2.0)) is one
    assert step_of(("forget_weight", 3.0)) is not one
    assert step_of(("forget_weight", 2.0), layers="bias") is not one
    assert step_of(("forget_weight", np.ones(2))) is not one  # has no hash


@pytest.mark.parametrize("given", [{"target": 3.0}, {"keep_best": "nearest_to_unseen"}])
def test_the_parameters_of_the_caller_stay(given, same_bits):
    before = jax.tree.map(np.array, PARAMS)
    # As near to the unseen at every evaluation, so the first of them is kept.
    sets = Sets([SETS.forget], [SETS.retain], [SETS.forget])
    free = Limits(max_retain_nats=None, max_relative_step=None)
    recipe = dataclasses.replace(RECIPE, epochs=30)
    given |= {"recipe": recipe, "limits": free, "evaluate_every": 2}
    outcome = unlearn(TASK, PARAMS, sets, "grad_diff", **given)
    assert outcome.steps > 0
    assert jax.tree.all(jax.tree.map(same_bits, PARAMS, before))
    assert not any(x.is_deleted() for x in jax.tree.leaves(outcome.params))
