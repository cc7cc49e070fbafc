"""Unlearning at matched strength, and what is measured of a model; all seeds at once.

Ways to unlearn can be compared only where they forgot equally much. So every way here
goes to the same forget loss, that of the model really retrained, seed by seed, and what
is compared is the price.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper.laboratory import Lab
from jaxunlearn import tree
from jaxunlearn.evaluation.membership.roc import auc
from jaxunlearn.models.tying import tie, untie
from jaxunlearn.training.weighted import take_batch
from jaxunlearn.types import Batch, Params
from jaxunlearn.unlearning.edits.recorded import PARTS

DOUBLINGS, HALVINGS = 30, 14
SMALLEST_STEP = 1e-5  # relative to the changed parameters
RETAIN_EXAMPLES = 96


class Matched(NamedTuple):
    """Where a way to unlearn ended.

    Attributes:
      params: Parameters, leading axis seeds.
      scale: float64[seeds], of the direction; NaN of ascent.
      reached: bool[seeds], whether the forget loss is at the target.
    """

    params: Params
    scale: np.ndarray
    reached: np.ndarray


def direction(
    lab: Lab,
    *,
    epochs: Sequence[int] | None = None,
    weights: str = "unit",
    layers: str = ".",
    part: str = "tied",
    recorded: Params | None = None,
) -> Params:
    """Return the recorded gradients of the forgotten as a direction, [seeds, ...].

    Args:
      lab: The runs.
      epochs: Whose gradients, counted from 1; None: all.
      weights: ``unit``, or ``applied``: each with the weight that SGD gave it.
      layers: Regular expression of the parameters; others get 0.
      part: Of the tied embedding: ``tied``, ``input`` or ``output``.
      recorded: In place of the lab's; a tree [E, seeds, ...].
    """
    if recorded is None:
        recorded = lab.recorded if weights == "unit" else lab.applied
    chosen = (
        list(range(lab.recipe.epochs)) if epochs is None else [e - 1 for e in epochs]
    )
    total = jax.tree.map(lambda x: np.asarray(x)[chosen].sum(axis=0), recorded)
    used = tree.select(untie(lab.start), PARTS[part])
    total = jax.tree.map(lambda x, m: np.where(m, x, 0), total, used)
    return restricted(lab, tie(total), layers)


def restricted(lab: Lab, stacked: Params, layers: str) -> Params:
    """Return a tree [seeds, ...] with zeros outside the layers."""
    return jax.tree.map(
        lambda x, m: np.where(m, x, 0), stacked, tree.select(lab.start, layers)
    )


@functools.lru_cache(maxsize=64)
def losses_of(lab_key: "Key") -> Callable[[Params, np.ndarray], jax.Array]:
    """Return jitted losses of chosen training examples, [seeds, n], of [seeds, ...]."""
    lab = lab_key.lab

    def one(params, rows):
        return lab.model.per_example_loss(params, take_batch(lab.sets.train, rows))

    return jax.jit(jax.vmap(one))


class Key(NamedTuple):
    """A lab by identity, for caches of compiled programs."""

    lab: Lab

    def __hash__(self):
        """Hash the lab's identity."""
        return id(self.lab.sets)

    def __eq__(self, other):
        """Compare identities."""
        return self.lab.sets is other.lab.sets


def forget_losses(lab: Lab, params: Params) -> np.ndarray:
    """Return the losses of what is to be forgotten, float[seeds, F]."""
    return np.asarray(losses_of(Key(lab))(params, lab.sets.forget))


def kept_rows(lab: Lab) -> np.ndarray:
    """Return the kept examples that are measured, evenly spaced, int32[seeds, n]."""
    count = lab.sets.kept.shape[1]
    chosen = np.linspace(0, count - 1, min(count, RETAIN_EXAMPLES)).astype(int)
    return lab.sets.kept[:, chosen]


def retain_losses(lab: Lab, params: Params) -> np.ndarray:
    """Return the losses of kept examples, float[seeds, n]."""
    return np.asarray(losses_of(Key(lab))(params, kept_rows(lab)))


def unseen_losses(lab: Lab, params: Params) -> np.ndarray:
    """Return the losses of people no model saw, float[seeds, U]."""
    return np.asarray(unseen_program(Key(lab))(params))


@functools.lru_cache(maxsize=64)
def unseen_program(key: Key) -> Callable:
    """Return the jitted losses of the unseen."""
    loss = key.lab.model.per_example_loss
    return jax.jit(jax.vmap(lambda params: loss(params, key.lab.sets.unseen)))


def target_of(lab: Lab) -> np.ndarray:
    """Return the forget loss to reach: the retrained model's, float[seeds]."""
    return forget_losses(lab, lab.retrained).mean(axis=1)


def matched(
    lab: Lab,
    along: Params,
    *,
    target: np.ndarray | None = None,
    start: Params | None = None,
) -> Matched:
    """Take the smallest step along a direction that lifts the forget loss to target.

    ``theta + s d``: s doubles from a relative step of 1e-5 until the loss is at the
    target, then is bisected; all seeds together, up to 44 evaluations.

    Args:
      lab: The runs.
      along: d, [seeds, ...].
      target: float[seeds]; None: the retrained model's forget loss.
      start: theta, [seeds, ...]; None: the trained models.
    """
    target = target_of(lab) if target is None else np.asarray(target)
    start = lab.trained if start is None else start
    params, scale, reached = bisection(Key(lab))(
        start, along, target.astype(np.float32), lab.sets.forget
    )
    return Matched(params, np.asarray(scale, np.float64), np.asarray(reached))


@functools.lru_cache(maxsize=64)
def bisection(key: Key) -> Callable:
    """Return the jitted search for the step, over seeds."""
    lab = key.lab

    def one(params, along, target, rows):
        batch = take_batch(lab.sets.train, rows)

        def loss(scale):
            moved = tree.add_scaled(params, scale, along)
            return jnp.mean(lab.model.per_example_loss(moved, batch))

        touched = jax.tree.map(lambda p, d: jnp.where(d != 0, p, 0.0), params, along)
        unit = SMALLEST_STEP * tree.norm(touched) / (tree.norm(along) + 1e-30)

        def short(carry):
            _, _, found, count = carry
            return ~found & (count < DOUBLINGS)

        def double(carry):
            low, high, _, count = carry
            over = loss(high) >= target
            return (
                jnp.where(over, low, high),
                jnp.where(over, high, 2 * high),
                over,
                count + 1,
            )

        low, high, found, _ = jax.lax.while_loop(
            short, double, (0.0 * unit, unit, jnp.array(False), 0)
        )

        def halve(carry, _):
            low, high = carry
            middle = (low + high) / 2
            over = loss(middle) >= target
            return (jnp.where(over, low, middle), jnp.where(over, middle, high)), None

        (low, high), _ = jax.lax.scan(halve, (low, high), None, length=HALVINGS)
        already = loss(0.0 * unit) >= target
        scale = jnp.where(already, 0.0, high)
        return tree.add_scaled(params, scale, along), scale, found | already

    return jax.jit(jax.vmap(one))


def matched_ascent(
    lab: Lab,
    *,
    layers: str = ".",
    target: np.ndarray | None = None,
    start: Params | None = None,
    relative_step: float = 2e-3,
    max_steps: int = 400,
) -> Matched:
    """Climb the forget loss by its own gradient until it is at the target.

    Steps of constant length, relative to the chosen parameters; the last one is cut by
    bisection so that the loss is matched.
    """
    target = target_of(lab) if target is None else np.asarray(target)
    start = lab.trained if start is None else start
    mask = jax.tree.map(jnp.asarray, tree.select(lab.start, layers))
    before, along = ascent(Key(lab))(
        start,
        target.astype(np.float32),
        lab.sets.forget,
        mask,
        relative_step,
        max_steps,
    )
    last = matched(lab, along, target=target, start=before)
    return last._replace(scale=np.full(len(target), np.nan))


@functools.lru_cache(maxsize=64)
def ascent(key: Key) -> Callable:
    """Return jitted ascent: the last point below the target, and the gradient there."""
    lab = key.lab

    def one(params, target, rows, mask, relative_step, max_steps):
        batch = take_batch(lab.sets.train, rows)
        value_and_grad = jax.value_and_grad(
            lambda p: jnp.mean(lab.model.per_example_loss(p, batch))
        )
        length = relative_step * tree.norm(params, mask)

        def unfinished(carry):
            _, _, steps, over = carry
            return ~over & (steps < max_steps)

        def climb(carry):
            params, _, steps, _ = carry
            _, gradient = value_and_grad(params)
            gradient = tree.masked(gradient, mask)
            moved = tree.add_scaled(
                params, length / (tree.norm(gradient) + 1e-30), gradient
            )
            over = jnp.mean(lab.model.per_example_loss(moved, batch)) >= target
            kept = jax.tree.map(lambda a, b: jnp.where(over, a, b), params, moved)
            return kept, gradient, steps + 1, over

        zeros = tree.zeros_like(params)
        before, gradient, _, _ = jax.lax.while_loop(
            unfinished, climb, (params, zeros, 0, jnp.array(False))
        )
        return before, gradient

    return jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None, None)))


def measured(lab: Lab, params: Params) -> dict[str, np.ndarray]:
    """Return what is compared of models, each float64[seeds].

    ``forget``, ``retain`` and ``unseen`` losses; ``retain_rise`` over the trained
    model, relative; ``membership``: AUC of the losses of forget against unseen (0.5:
    not to be told apart); ``extraction``: mean extraction strength of the forgotten;
    ``to_trained`` and ``to_retrained``: distance in parameters, relative to that
    between the trained and the retrained model; ``behaviour``: root mean square
    difference from the retrained model's losses over forget and kept examples.
    """
    forget, retain = forget_losses(lab, params), retain_losses(lab, params)
    unseen = unseen_losses(lab, params)
    before = retain_losses(lab, lab.trained).mean(axis=1)
    apart = distance(lab.trained, lab.retrained)
    theirs = np.concatenate(
        [forget_losses(lab, lab.retrained), retain_losses(lab, lab.retrained)], axis=1
    )
    ours = np.concatenate([forget, retain], axis=1)
    found = {
        "forget": forget.mean(axis=1),
        "retain": retain.mean(axis=1),
        "unseen": unseen.mean(axis=1),
        "retain_rise": retain.mean(axis=1) / before - 1,
        "membership": np.array(
            [auc(f, u) for f, u in zip(finite(forget), finite(unseen), strict=True)]
        ),
        "extraction": extraction(lab, params),
        "to_trained": distance(params, lab.trained) / apart,
        "to_retrained": distance(params, lab.retrained) / apart,
        "behaviour": np.sqrt(np.mean((ours - theirs) ** 2, axis=1)),
    }
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def finite(losses: np.ndarray) -> np.ndarray:
    """Return losses with what overflowed at the largest float: still the last rank."""
    return np.nan_to_num(losses, nan=np.finfo(np.float32).max, posinf=3e38)


def distance(a: Params, b: Params) -> np.ndarray:
    """Return the Euclidean distance of parameters, float64[seeds]."""
    squares = jax.tree.map(
        lambda x, y: np.sum(
            (np.asarray(x, np.float64) - np.asarray(y, np.float64)) ** 2,
            axis=tuple(range(1, np.ndim(x))),
        ),
        a,
        b,
    )
    return np.sqrt(sum(jax.tree.leaves(squares)))


def extraction(lab: Lab, params: Params) -> np.ndarray:
    """Return the mean extraction strength of the forgotten, float64[seeds]."""
    correct, counted = correctness(Key(lab))(params, lab.sets.forget)
    correct, counted = np.asarray(correct), np.asarray(counted)
    strengths = np.zeros(correct.shape[:2])
    for seed, i in np.ndindex(*strengths.shape):
        right = correct[seed, i][counted[seed, i]][:-1]  # without the end of text
        wrong = np.flatnonzero(~right)
        begin = wrong[-1] + 1 if len(wrong) else 0
        strengths[seed, i] = 1 - begin / max(len(right), 1)
    return strengths.mean(axis=1)


@functools.lru_cache(maxsize=64)
def correctness(key: Key) -> Callable:
    """Return jitted ``(params, rows) -> greedy prediction right, labelled``."""
    lab = key.lab

    def one(params: Params, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch: Batch = take_batch(lab.sets.train, rows)
        labels = batch["labels"][:, 1:]
        guess = jnp.argmax(lab.model.logits(params, batch)[:, :-1], axis=-1)
        return guess == labels, labels != -100

    return jax.jit(jax.vmap(one))


def relearned(
    lab: Lab,
    params: Params,
    *,
    steps: Sequence[int] = (0, 1, 2, 4, 8, 16),
    learning_rate: float = 1e-3,
    share: float = 0.5,
) -> dict[str, np.ndarray]:
    """Relearn a part of the forgotten; measure the other part on the way.

    Adam on the first half of the forgotten examples, all of them each step.

    Returns:
      ``steps`` int[K]; ``taught`` and ``held_out`` losses, float64[K, seeds].
    """
    half = int(lab.sets.forget.shape[1] * share)
    taught, held = lab.sets.forget[:, :half], lab.sets.forget[:, half:]
    curves = relearning(Key(lab), max(steps), learning_rate)(params, taught, held)
    rows = np.asarray(steps)
    return {
        "steps": rows,
        "taught": np.asarray(curves[0], np.float64).T[rows],
        "held_out": np.asarray(curves[1], np.float64).T[rows],
    }


@functools.lru_cache(maxsize=64)
def relearning(key: Key, steps: int, learning_rate: float) -> Callable:
    """Return jitted relearning: losses before each step and after the last."""
    import optax

    lab = key.lab
    transform = optax.adam(learning_rate)

    def one(params, taught, held):
        batches = [take_batch(lab.sets.train, rows) for rows in (taught, held)]

        def loss(params, batch):
            return jnp.mean(lab.model.per_example_loss(params, batch))

        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, batches[0])
            other = loss(params, batches[1])
            updates, state = transform.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), (value, other)

        start = (jax.tree.map(jnp.asarray, params), transform.init(params))
        (after, _), (own, other) = jax.lax.scan(step, start, None, length=steps)
        last = [loss(after, batch) for batch in batches]
        return tuple(jnp.append(x, y) for x, y in zip((own, other), last, strict=True))

    return jax.jit(jax.vmap(one))
