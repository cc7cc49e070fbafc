"""What decides a training run: the recipe, the optimiser and one step.

A run is a pure function of (recipe, data, starting parameters): which examples stand in
step s, their dropout and their learning rate follow from the recipe's seed and s. That
is what lets any gradient of the run be computed again later (``replay.py``).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import tree
from jaxunlearn.data import TokenizedData, collate, step_indices
from jaxunlearn.data.batching import blank_rows
from jaxunlearn.models.cross_entropy import label_counts
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.randomness import random_key
from jaxunlearn.types import Batch, Params

OPTIMIZERS = ("adamw", "adam", "sgd", "momentum")
SCHEDULES = ("constant", "linear", "cosine")
REDUCTIONS = ("token", "example")

# Steps are counted in int32; a batch of 2**20 examples is past what memory holds.
COUNT, LARGEST = 2**31 - 1, float(np.finfo(np.float32).max)
BOUNDS = {
    "epochs": (int, 1, COUNT),
    "batch_size": (int, 1, 2**20),
    "learning_rate": (float, 0.0, LARGEST),
    "weight_decay": (float, 0.0, LARGEST),
    "warmup_steps": (int, 0, COUNT),
    "clip_norm": (float, float(np.finfo(np.float32).tiny), LARGEST),
    "microbatch_size": (int, 1, 2**20),
    "seed": (int, 0, 2**32 - 1),
}
"""Kind, least and largest value of a recipe's numbers."""
CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "reduction": REDUCTIONS}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
      epochs: Passes over the data.
      batch_size: Examples a step.
      learning_rate: Peak learning rate.
      optimizer: ``adamw``, ``adam``, ``sgd`` or ``momentum`` (SGD with 0.9).
      weight_decay: Decoupled decay (``adamw`` only), not on biases and norms.
      schedule: ``constant``, ``linear`` (to 0) or ``cosine`` (to 0) after the warm-up.
      warmup_steps: Steps of linear warm-up.
      clip_norm: Global gradient norm above which the gradient is scaled down.
      reduction: ``token``: every labelled token of the batch counts the same;
        ``example``: every example counts the same.
      microbatch_size: Examples computed at a time; None is the whole batch. The
        parameters that come out do not depend on it.
      seed: Of the order of the data and of dropout.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 5e-4
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = None
    reduction: str = "token"
    microbatch_size: int | None = None
    seed: int = 0

    def __post_init__(self):
        """Refuse settings that cannot be trained with."""
        for name, (kind, low, high) in BOUNDS.items():
            value, optional = getattr(self, name), getattr(type(self), name) is None
            if value is None and optional:
                continue
            numeric = int if kind is int else (int, float)
            real = isinstance(value, numeric) and not isinstance(value, bool)
            if not (real and low <= value <= high):
                what = "a whole number" if kind is int else "a number"
                raise ValueError(
                    f"{name}={value!r}: must be {what} from {low:.10g} to {high:.10g}"
                    + (", or None" if optional else "")
                )
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: one of {', '.join(known)}"
                )
        if self.weight_decay > 0 and self.optimizer != "adamw":
            raise ValueError(
                f"weight_decay={self.weight_decay} does nothing with optimizer="
                f'{self.optimizer!r}: use "adamw", or leave it 0'
            )
        size = self.microbatch_size
        if size is not None and (size < 1 or self.batch_size % size):
            raise ValueError(
                f"microbatch_size={size} does not divide batch_size={self.batch_size}"
            )


class TrainingState(NamedTuple):
    """All that the next step needs."""

    params: Params  # master weights: float32, whatever the model is stored in
    opt_state: optax.OptState
    step: jax.Array  # int32[]: steps done


class StepMetrics(NamedTuple):
    """What a step tells."""

    loss: jax.Array  # float32[]: the batch's loss before the update
    gradient_norm: jax.Array  # float32[]: before clipping


def steps_per_epoch(recipe: Recipe, examples: int) -> int:
    """Return the number of steps in which ``examples`` examples pass once."""
    return math.ceil(examples / recipe.batch_size)


def check_finite(
    model: GPT2, recipe: Recipe, metrics: "StepMetrics", step: int
) -> None:
    """Refuse to go on from a step (0 is the first) whose numbers are not finite.

    Raises:
      ValueError: Loss or gradient are not; names what can help in this case.
    """
    loss, norm = float(metrics.loss), float(metrics.gradient_norm)
    if math.isfinite(loss) and math.isfinite(norm):
        return
    remedies = []
    if step > 0:
        remedies.append(f"lower learning_rate={recipe.learning_rate}")
        if recipe.warmup_steps < step:
            remedies.append(f"raise warmup_steps={recipe.warmup_steps}")
        if recipe.clip_norm is None:
            remedies.append("set clip_norm, such as 1.0")
    if model.config.dtype != "float32":
        remedies.append(f'compute in dtype="float32", not {model.config.dtype}')
    if not remedies:
        remedies.append(
            "no weight has moved yet, so no setting of the recipe helps: the starting "
            "weights are too large, start from others"
        )
    raise ValueError(
        f"the loss is {loss} and its gradient's norm {norm} at step {step + 1}: "
        f"{', or '.join(remedies)}"
    )


def learning_rate(recipe: Recipe, total_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the steps done."""
    rest = max(1, total_steps - recipe.warmup_steps)
    main = {
        "constant": optax.constant_schedule(recipe.learning_rate),
        "linear": optax.linear_schedule(recipe.learning_rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(recipe.learning_rate, rest),
    }[recipe.schedule]
    if recipe.warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(0.0, recipe.learning_rate, recipe.warmup_steps)
    return optax.join_schedules([warmup, main], [recipe.warmup_steps])


@functools.lru_cache(maxsize=16)
def optimizer(recipe: Recipe, total_steps: int) -> optax.GradientTransformation:
    """Return the recipe's optax optimiser for a run of ``total_steps``.

    Remembered, so that programs can be remembered by it.
    """
    rate = learning_rate(recipe, total_steps)
    transform = {
        "adamw": lambda: optax.adamw(
            rate, weight_decay=recipe.weight_decay, mask=decayed
        ),
        "adam": lambda: optax.adam(rate),
        "sgd": lambda: optax.sgd(rate),
        "momentum": lambda: optax.sgd(rate, momentum=0.9),
    }[recipe.optimizer]()
    if recipe.clip_norm is None:
        return transform
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), transform)


def decayed(params: Params) -> Params:
    """Return True for kernels and embeddings, which weight decay is for."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: tree.leaf_name(path).endswith(("kernel", "embedding")), params
    )


def batch_at(
    recipe: Recipe,
    data: TokenizedData,
    step: int,
    *,
    omit: Collection[int] = (),
) -> Batch:
    """Return the batch of global step ``step``, a function of (seed, step) alone.

    The rows of the examples ``omit`` are padding; every other row is as without them.
    """
    indices = step_indices(
        recipe.seed, step, n=len(data.examples), batch_size=recipe.batch_size
    )
    batch = collate(
        data,
        indices,
        batch_size=recipe.batch_size,
        length=data.length,
    )
    return blank_rows(batch, omit, pad_id=data.pad_id) if omit else batch


def step_key(recipe: Recipe, model: GPT2, step: int | jax.Array) -> jax.Array | None:
    """Return the dropout key of a step; None for a model without dropout."""
    if not model.has_dropout:
        return None
    return jax.random.fold_in(random_key(recipe.seed), step)


def example_shares(recipe: Recipe, batch: Batch) -> jax.Array:
    """Return the share c_i of each example in the batch loss, float32[B], sum 1.

    The batch loss is ``sum_i c_i l_i`` with l_i the example's mean token loss. By
    reduction: ``token`` c_i = n_i / sum n; ``example`` c_i = w_i / sum w. So example i
    enters a plain SGD step with ``-learning_rate * c_i * grad l_i``, wherever it stands
    and however the batch is cut in microbatches.
    """
    if recipe.reduction == "token":
        weight = label_counts(jnp.asarray(batch["labels"]))
    else:
        weight = jnp.asarray(batch["weight"], jnp.float32)
    return weight / jnp.maximum(weight.sum(), 1.0)


def batch_gradient(
    model: GPT2, recipe: Recipe, params: Params, batch: Batch, key: jax.Array | None
) -> tuple[jax.Array, Params]:
    """Return the loss ``sum_i c_i l_i`` of a batch and its gradient.

    In microbatches where the recipe says so; the shares c_i are those of the whole
    batch, so the sum is the same.
    """
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    shares = example_shares(recipe, batch)

    def loss(params, part, shares):
        return jnp.sum(shares * model.per_example_loss(params, part, key=key))

    size = recipe.microbatch_size
    if size is None or size >= recipe.batch_size:
        return jax.value_and_grad(loss)(params, batch, shares)

    def cut(x):
        return x.reshape(-1, size, *x.shape[1:])

    def accumulate(total, part):
        value, gradient = jax.value_and_grad(loss)(params, *part)
        return (total[0] + value, tree.add_scaled(total[1], 1.0, gradient)), None

    start = (jnp.float32(0), tree.zeros_like(params))
    parts = (jax.tree.map(cut, batch), cut(shares))
    (value, gradient), _ = jax.lax.scan(accumulate, start, parts)
    return value, gradient


def apply_gradient(
    transform: optax.GradientTransformation, state: TrainingState, gradient: Params
) -> TrainingState:
    """Return the state after one optimiser step."""
    updates, opt_state = transform.update(gradient, state.opt_state, state.params)
    return TrainingState(
        optax.apply_updates(state.params, updates), opt_state, state.step + 1
    )


def make_step(
    model: GPT2, recipe: Recipe, transform: optax.GradientTransformation
) -> Callable[[TrainingState, Batch], tuple[TrainingState, StepMetrics]]:
    """Return the training step, to be jitted by the caller with the state donated."""

    def step(state: TrainingState, batch: Batch):
        key = step_key(recipe, model, state.step)
        loss, gradient = batch_gradient(model, recipe, state.params, batch, key)
        metrics = StepMetrics(loss, tree.norm(gradient))
        return apply_gradient(transform, state, gradient), metrics

    return step


@functools.lru_cache(maxsize=16)
def compiled_step(model: GPT2, recipe: Recipe, total_steps: int) -> Callable:
    """Return the jitted training step, which donates its state.

    Remembered, so that training and its replay compile once and run the same program.
    """
    transform = optimizer(recipe, total_steps)
    return jax.jit(make_step(model, recipe, transform), donate_argnums=0)


def initial_state(
    params: Params, transform: optax.GradientTransformation
) -> TrainingState:
    """Return the state before the first step, made of a float32 copy of ``params``."""
    masters = tree.master_weights(params)
    return TrainingState(masters, transform.init(masters), jnp.int32(0))


def training_bytes(recipe: Recipe, params: Params) -> dict[str, int]:
    """Return the bytes that training holds of each: weights, optimiser, gradients.

    Args:
      recipe: Its optimiser.
      params: Parameters, or their shapes.
    """
    make = functools.partial(initial_state, transform=optimizer(recipe, 1))
    state = jax.eval_shape(make, params)
    weights = tree.bytes_of(state.params)
    return {
        "weights": weights,
        "optimizer": tree.bytes_of(state.opt_state),
        "gradients": weights,
    }


def update_weights(
    recipe: Recipe, batch: Batch, step: int, total_steps: int
) -> np.ndarray:
    """Return ``learning_rate_s * c_i``, the weight of each example in step s."""
    rate = np.float32(learning_rate(recipe, total_steps)(step))
    return rate * np.asarray(example_shares(recipe, batch))
