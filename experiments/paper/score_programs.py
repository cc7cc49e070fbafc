"""The scores that are said to quantify unlearning; all seeds at once.

Each is ``S(z)``: what the group F to forget is to an example z at one model. The score
of a model is the mean over z in F: the group on itself. With g_z the gradient of z, g
that of the group's mean loss, g_1 the one recorded of it in the first epoch, H the
Hessian and A the empirical Fisher matrix of the mean training loss, m[l] the mean
activation at layer l::

    gradient_dot   <g_z, g>                       of the group  |g|^2
    stored_dot     <g_z, g_1>
    hvp            <g_z, H g> / |g|^2             of the group  g^T H g / |g|^2
    inverse_hvp    <g_z, (A + damping I)^-1 g>
    act_act         sum_l <m_z[l], m_F[l]>
    act_grad       -sum_l <m_F[l], sum_t d loss_z / d a_z[l,t]>

The first four are a direction and a forward-mode sweep over the examples.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper.laboratory import Lab, one_step
from experiments.paper.matched import Key, direction
from jaxunlearn import tree
from jaxunlearn.gradients import directional_scores, hvp, per_example_gradients
from jaxunlearn.gradients.solvers import woodbury_dual
from jaxunlearn.influence import activation_scores
from jaxunlearn.training.recipe import initial_state, optimizer
from jaxunlearn.types import Batch, Params

CURVATURE_EXAMPLES = 32  # of H those to forget among them; of A all kept
DAMPING = 0.1  # of the mean of the eigenvalues that A has

SCORES = (
    "gradient_dot",
    "stored_dot",
    "hvp",
    "inverse_hvp",
    "act_act",
    "act_grad",
)


class Samples(NamedTuple):
    """What curvature is of, int32[seeds, n] and weights float32[n] as in training."""

    hessian: np.ndarray
    weights: np.ndarray
    fisher: np.ndarray


def samples_of(lab: Lab) -> Samples:
    """Return a sample of the training examples; that of A is of kept ones alone.

    With the forgotten in it, A would be large just where g is, whatever the model.
    """
    forget, kept = lab.sets.forget, lab.sets.kept

    def spread(count: int) -> np.ndarray:
        count = min(count, kept.shape[1])
        return kept[:, np.linspace(0, kept.shape[1] - 1, count).astype(int)]

    chosen = spread(max(CURVATURE_EXAMPLES - forget.shape[1], 1))
    share = kept.shape[1] / chosen.shape[1]
    weights = [1.0] * forget.shape[1] + [share] * chosen.shape[1]
    return Samples(
        np.concatenate([forget, chosen], axis=1),
        np.asarray(weights, np.float32),
        spread(CURVATURE_EXAMPLES),
    )


class Scorer:
    """Scores of one laboratory's models, and how long each took."""

    def __init__(self, lab: Lab):
        """Choose the samples; nothing is compiled yet."""
        self.lab, self.samples = lab, samples_of(lab)
        self.stored = direction(lab, epochs=[1])
        self.step = training_step(lab)
        self.seconds: dict[str, list[float]] = {}

    def of_group(self, params: Params) -> dict[str, np.ndarray]:
        """Return score -> float64[seeds]: the group on itself, at models [seeds, ...].

        The mean of the products with g_z over the group is the product with g. A
        training step is timed beside, under the same load of the machine.
        """
        self.timed("step", self.step)
        group = picked(self.lab, self.lab.sets.forget)
        directions = self.directions(params, group)
        own = directions["gradient_dot"]
        found = {name: product(own, vector) for name, vector in directions.items()}
        for name in ("act_act", "act_grad"):
            program = activations(self.key, name)
            scores = self.timed(name, program, params, group, group)
            found[name] = np.asarray(scores, np.float64).mean(axis=1)
        return found

    def of_examples(
        self, params: Params, queries: list[Batch]
    ) -> dict[str, np.ndarray]:
        """Return score -> float64[seeds, n], of the group to each example.

        Args:
          params: The models, leading axis seeds.
          queries: Batches [seeds, F, ...] of as many examples as the group has.
        """
        group = picked(self.lab, self.lab.sets.forget)
        directions = self.directions(params, group)
        found: dict[str, list] = {name: [] for name in SCORES}
        for batch in queries:
            for name, vector in directions.items():
                found[name].append(
                    self.timed("sweep", products(self.key), params, vector, batch)
                )
            for name in ("act_act", "act_grad"):
                program = activations(self.key, name)
                found[name].append(self.timed(name, program, params, group, batch))
        return {
            name: np.concatenate(parts, axis=1).astype(np.float64)
            for name, parts in found.items()
        }

    @property
    def key(self) -> Key:
        """The laboratory, for caches of compiled programs."""
        return Key(self.lab)

    def directions(self, params: Params, group: Batch) -> dict[str, Params]:
        """Return the directions of the scores that are a product with g_z."""
        lab, samples = self.lab, self.samples
        own = self.timed("gradient", gradient(self.key), params, group)
        hessian = picked(lab, samples.hessian)
        hessian["weight"] = np.broadcast_to(samples.weights, samples.hessian.shape)
        moved = self.timed("hvp", hessian_product(self.key), params, own, hessian)
        kept = picked(lab, samples.fisher)
        inverted = self.timed("inverse", fisher_inverse(self.key), params, own, kept)
        return {
            "gradient_dot": own,
            "stored_dot": self.stored,
            "hvp": moved,
            "inverse_hvp": inverted,
        }

    def timed(self, name: str, program: Callable, *given):
        """Call a program and note the seconds."""
        begin = time.perf_counter()
        found = jax.block_until_ready(program(*given))
        self.seconds.setdefault(name, []).append(time.perf_counter() - begin)
        return found

    def costs(self) -> dict[str, float]:
        """Return each score's time over a training step's, for a group of examples."""
        warm = {k: float(np.median(v[1:] or v)) for k, v in self.seconds.items()}
        first = {"gradient_dot": ("gradient",), "stored_dot": ()}
        first |= {"hvp": ("gradient", "hvp"), "inverse_hvp": ("gradient", "inverse")}
        seconds = {k: sum(warm[x] for x in (*v, "sweep")) for k, v in first.items()}
        seconds |= {name: warm[name] for name in ("act_act", "act_grad")}
        return {name: value / warm["step"] for name, value in seconds.items()}


def product(a: Params, b: Params) -> np.ndarray:
    """Return the inner products of two trees, float64[seeds]."""
    products = jax.tree.map(
        lambda x, y: np.einsum(
            "si,si->s",
            np.reshape(x, (len(x), -1)),
            np.reshape(y, (len(y), -1)),
            dtype=np.float64,
        ),
        a,
        b,
    )
    return sum(jax.tree.leaves(products))


def picked(lab: Lab, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return training examples [seeds, n, ...] of rows [seeds, n]."""
    data = {name: np.asarray(x)[rows] for name, x in lab.sets.train.items()}
    return data | {"index": rows}


@functools.lru_cache(maxsize=64)
def gradient(key: Key) -> Callable:
    """Return jitted ``(params, group) -> gradient of its mean loss``."""
    loss = key.lab.model.per_example_loss
    return jax.jit(jax.vmap(jax.grad(lambda p, batch: jnp.mean(loss(p, batch)))))


@functools.lru_cache(maxsize=64)
def hessian_product(key: Key) -> Callable:
    """Return jitted ``(params, g, batch) -> H g / |g|^2``."""

    def one(params: Params, vector: Params, batch: Batch) -> Params:
        # Along the unit vector: the product with a small one would lose its bits.
        length = jnp.maximum(tree.norm(vector), 1e-30)
        unit = tree.scaled(1 / length, vector)
        moved = hvp(key.lab.model.per_example_loss, params, batch, unit)
        return tree.scaled(1 / length, moved)

    return jax.jit(jax.vmap(one))


@functools.lru_cache(maxsize=64)
def fisher_inverse(key: Key) -> Callable:
    """Return jitted ``(params, g, batch) -> (A + damping I)^-1 g``, exact (Woodbury).

    Seed by seed: the gradients of one sample at a time are in memory.
    """
    loss = key.lab.model.per_example_loss

    def one(given: tuple[Params, Params, Batch]) -> Params:
        params, vector, batch = given
        rows = per_example_gradients(loss, params, batch)
        count = len(batch["index"])
        squares = jax.tree.map(lambda x: jnp.sum(x * x), rows)
        mean = jax.tree.reduce(jnp.add, squares) / count**2  # trace / rank
        return woodbury_dual(rows, vector, damping=DAMPING * mean).value

    return jax.jit(lambda *given: jax.lax.map(one, given))


@functools.lru_cache(maxsize=64)
def products(key: Key) -> Callable:
    """Return jitted ``(params, v, queries) -> <g_z, v>``, [seeds, n]."""
    loss = key.lab.model.per_example_loss

    def one(params: Params, vector: Params, queries: Batch) -> jax.Array:
        return directional_scores(loss, params, queries, vector)

    return jax.jit(jax.vmap(one))


@functools.lru_cache(maxsize=64)
def activations(key: Key, kind: str) -> Callable:
    """Return jitted ``(params, group, queries) -> mean score``, [seeds, n]."""
    loss = key.lab.model.per_example_loss

    def one(params: Params, group: Batch, queries: Batch) -> jax.Array:
        found = activation_scores(loss, params, group, queries, kind=kind)
        return found.scores.mean(axis=1)

    return jax.jit(jax.vmap(one))


def training_step(lab: Lab) -> Callable:
    """Return a jitted step of fine-tuning, as a function of nothing."""
    transform = optimizer(lab.recipe, lab.orders.shape[1])

    def one(params: Params, rows: jax.Array):
        state = initial_state(params, transform)
        return one_step(lab.model, lab.recipe, transform, lab.sets.train, state, rows)

    step = jax.jit(jax.vmap(one))
    return lambda: step(lab.trained, lab.orders[:, 0])
