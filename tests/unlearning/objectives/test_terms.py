"""Objectives against numbers worked out in float64, and the identities between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.unlearning.forms import Sets
from jaxunlearn.unlearning.objectives.difference import grad_diff
from jaxunlearn.unlearning.objectives.preference_losses import npo, simnpo
from jaxunlearn.unlearning.objectives.terms import kl, kl_divergence, nll

B, T, V = np.arange(2), np.arange(5), np.arange(6)
GRID = np.meshgrid(B, T, V, indexing="ij")
STUDENT = 2 * np.sin(1 + 7 * GRID[0] + 3 * GRID[1] + 2 * GRID[2])
REFERENCE = 2 * np.cos(2 + 5 * GRID[0] + 2 * GRID[1] + 3 * GRID[2])
LABELS = np.array([[-100, -100, 1, 3, 2], [-100, 4, 0, -100, -100]], np.int32)
BATCH = {"labels": LABELS, "index": np.arange(2), "weight": np.ones(2, np.float32)}
KEY = jax.random.key(0)


class Table:
    """A task whose parameters are the logits of its examples."""

    def __call__(self, params, batch):
        targets = self.targets(batch)
        chosen = jnp.take_along_axis(
            jax.nn.log_softmax(self.outputs(params, batch)),
            jnp.maximum(targets, 0)[..., None],
            axis=-1,
        )[..., 0]
        used = targets != -100
        return -jnp.sum(jnp.where(used, chosen, 0), 1) / jnp.maximum(used.sum(1), 1)

    def outputs(self, params, batch):
        return params["logits"][jnp.asarray(batch["index"])]

    def targets(self, batch):
        labels = jnp.asarray(batch["labels"])
        return jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-100)


def params(logits):
    return {"logits": jnp.asarray(logits, jnp.float32)}


def forget_loss(factory, *, student=STUDENT, batch=BATCH, **options):
    """The objective's value and gradient, its reference taken at REFERENCE."""
    objective = factory(Table(), retain_term="none", forget_weight=1.0, **options)
    start, batch = params(REFERENCE), dict(batch)
    if objective.reference is not None:
        batch |= objective.reference(start, batch)
    state = objective.init(start, KEY)

    def loss(point):
        return objective.loss(point, state, Sets(batch), KEY)[0]

    value, gradient = jax.value_and_grad(loss)(params(student))
    return float(value), np.asarray(gradient["logits"])


@pytest.mark.parametrize(
    ("factory", "options", "golden"),
    [
        (grad_diff, {}, -2.7247035017),
        (npo, {"beta": 0.1}, 13.4498311305),
        (simnpo, {"beta": 4.5}, 4.1908453e-05),
        (simnpo, {"beta": 2.5}, 3.4170980e-03),
    ],
)
def test_golden_values(factory, options, golden):
    assert forget_loss(factory, **options)[0] == pytest.approx(golden, rel=3e-5)


def test_golden_value_of_the_divergence():
    divergence = kl_divergence(jnp.asarray(REFERENCE), jnp.asarray(STUDENT))
    assert float(divergence.mean()) == pytest.approx(1.2960834643, rel=1e-5)
    # The term's mean is over targets alone.
    term = kl(Table())
    values = term.values(params(STUDENT), params(REFERENCE), BATCH)
    used = np.asarray(Table().targets(BATCH)) != -100
    expected = [np.asarray(divergence)[i][used[i]].mean() for i in range(2)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_at_the_start_npo_is_log_two_and_its_gradient_is_that_of_ascent():
    summed = np.asarray(forget_loss(grad_diff, student=REFERENCE)[1]) * 5 / 2
    for beta in (0.1, 3.0):
        value, gradient = forget_loss(npo, student=REFERENCE, beta=beta)
        assert value == pytest.approx(2 / beta * np.log(2), rel=1e-6)
        np.testing.assert_allclose(gradient, summed, atol=1e-6)


def test_npo_with_beta_to_zero_is_ascent_anywhere():
    # Token means to means of sums: 5 tokens, 2 examples.
    ascent = forget_loss(grad_diff)[1] * 5 / 2
    np.testing.assert_allclose(forget_loss(npo, beta=1e-6)[1], ascent, atol=1e-5)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_npo_weighs_ascent_by_how_far_an_example_is(beta):
    term, table = nll(Table()), Table()
    counts = np.array([3.0, 2.0])
    now, start = (
        counts * np.asarray(term.values(params(x), None, BATCH))
        for x in (STUDENT, REFERENCE)
    )
    weight = 2 / (1 + np.exp(beta * (now - start)))

    def total(point, i):
        return -counts[i] * table(point, BATCH)[i] / 2

    expected = sum(
        weight[i] * np.asarray(jax.grad(total)(params(STUDENT), i)["logits"])
        for i in range(2)
    )
    np.testing.assert_allclose(forget_loss(npo, beta=beta)[1], expected, atol=1e-6)


def test_the_divergence_is_flat_at_the_start():
    objective = grad_diff(Table(), forget_weight=0.0, retain_term="kl")
    start = params(STUDENT)
    state = objective.init(start, KEY)

    def loss(point):
        return objective.loss(point, state, Sets(BATCH, BATCH), KEY)[0]

    value, gradient = jax.value_and_grad(loss)(start)
    assert float(value) == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(gradient["logits"], 0, atol=1e-7)


@pytest.mark.parametrize("factory", [grad_diff, npo, simnpo])
def test_padding_rows_count_for_nothing(factory):
    rows = [0, 1, 1]
    padded = {
        "labels": LABELS[rows],
        "index": np.array([0, 1, -1]),
        "weight": np.array([1, 1, 0], np.float32),
    }
    alone, more = (forget_loss(factory, batch=batch) for batch in (BATCH, padded))
    assert more[0] == pytest.approx(alone[0], rel=1e-6)
    np.testing.assert_allclose(more[1], alone[1], atol=1e-7)


def test_what_makes_no_sense_is_refused():
    for options in ({"beta": 0.0}, {"beta": float("nan")}):
        for factory in (npo, simnpo):
            with pytest.raises(ValueError, match="beta="):
                factory(Table(), **options)
    with pytest.raises(ValueError, match="retain_term='all'"):
        grad_diff(Table(), retain_term="all")
    with pytest.raises(ValueError, match="retain_weight=-1"):
        grad_diff(Table(), retain_weight=-1)
