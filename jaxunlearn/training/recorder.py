"""Each example's own gradient, taken from the pass that trains on it.

The tied embedding's gradient is dense (154 MB an example at GPT-2's size), so it is
kept as factors, which one pass over the whole batch gives:

* lookup part: one row [D] a token of the example, ``d l_i / d embedded token``;
* head part ``H^T G``: last hidden states H [L,D] and, of the loss's gradient with
  respect to the logits G [L,V], the k largest entries a row. What is left out is
  measured: ``truncation`` is ``|H^T (G - G_k)| / |grad l_i|``, exact.

For other leaves the pass goes over the examples one by one: each gradient is an
example's own, the batch's is their sum. That takes no more arithmetic, and far less
memory than copies of the leaves for every example, but fills an accelerator less well.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import tree
from jaxunlearn.models.cross_entropy import (
    head_logits,
    mean_over_labels,
    next_token_losses,
)
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.models.tying import (
    TABLE,
    is_untied,
    token_rows,
    token_table,
    with_table,
    with_token_rows,
)
from jaxunlearn.training.recipe import (
    Recipe,
    StepMetrics,
    TrainingState,
    apply_gradient,
    example_shares,
    step_key,
)
from jaxunlearn.types import IGNORED_LABEL, Batch, Params

EMBEDDING = "/".join(TABLE)


@dataclasses.dataclass(frozen=True)
class Recording:
    """What to record.

    Attributes:
      layers: Regular expression of the recorded leaves.
      epochs: Which passings; 1 is the first.
      dtype: ``float32`` or ``bfloat16``, of the stored arrays.
      head_entries: k, largest entries kept of each row of G (at most V).
    """

    layers: str = "wte"
    epochs: tuple[int, ...] = (1,)
    dtype: str = "float32"
    head_entries: int = 64

    def __post_init__(self):
        """Refuse what cannot be recorded."""
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f'dtype={self.dtype!r}: "float32" or "bfloat16"')
        if self.head_entries < 1 or not self.epochs or min(self.epochs) < 1:
            raise ValueError(
                f"head_entries={self.head_entries}, epochs={self.epochs}: at least one "
                f"entry and one epoch, counted from 1"
            )


class ExampleGradients(NamedTuple):
    """The recorded gradients of one batch; row b belongs to ``index[b]``."""

    index: jax.Array  # int32[B], -1 = padding
    norm: jax.Array  # float32[B]: of the gradient on the recorded leaves
    truncation: jax.Array  # float32[B]: relative error of the head part, 0 without it
    dense: dict[str, jax.Array]  # name -> [B, *leaf]; stacked layers each by its name
    lookup_ids: jax.Array | None  # int32[B,T]
    lookup_rows: jax.Array | None  # [B,T,D]
    head_hidden: jax.Array | None  # [B,L,D]
    head_ids: jax.Array | None  # int32[B,L,k]
    head_values: jax.Array | None  # [B,L,k]


def check_recording(recording: Recording, recipe: Recipe, params: Params) -> None:
    """Refuse what cannot be recorded.

    Raises:
      ValueError: The recording names an epoch that the run has not, or no parameter;
        or the head is not the table, whose factors are the two parts of one gradient.
    """
    if is_untied(params):
        raise ValueError(
            f"layers={recording.layers!r}: gradients of a model with a head of its own "
            f"are not recorded: train without recording, and let them be replayed"
        )
    if max(recording.epochs) > recipe.epochs:
        raise ValueError(
            f"recording epochs={recording.epochs}, but the run has epochs 1 to "
            f"{recipe.epochs}"
        )
    tree.select(params, recording.layers)


def make_recording_step(
    model: GPT2,
    recipe: Recipe,
    transform: optax.GradientTransformation,
    layers: str,
    *,
    head_entries: int,
    label_slots: int,
) -> Callable[
    [TrainingState, Batch], tuple[TrainingState, StepMetrics, ExampleGradients]
]:
    """Return a training step that also returns the examples' gradients.

    Args:
      model: The model.
      recipe: The run's recipe.
      transform: Its optimiser.
      layers: The recorded parameters, as for :func:`jaxunlearn.tree.select`.
      head_entries: k.
      label_slots: L, the most labelled tokens of any example.

    Returns:
      ``step(state, batch) -> (state, metrics, ExampleGradients)``, which leaves the
      same state as the plain step up to rounding.

    Cost: the plain step, and for the embedding one more forward of the head over the
    labelled tokens. If other leaves are recorded, the examples' gradients on them.
    """

    def step(state, batch):
        mask = tree.select(state.params, layers)
        alone = any(
            chosen.any()
            for name, chosen in tree.named_leaves(mask)
            if name != EMBEDDING
        )
        size = 1 if alone else recipe.microbatch_size or recipe.batch_size
        key = step_key(recipe, model, state.step)
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        shares = example_shares(recipe, batch)

        def accumulate(total, part):
            rows, share = part
            loss, gradient, examples = microbatch_gradients(
                model, state.params, mask, rows, share, key, head_entries, label_slots
            )
            total = (total[0] + loss, tree.add_scaled(total[1], 1.0, gradient))
            return total, examples

        parts = jax.tree.map(
            lambda x: x.reshape(-1, size, *x.shape[1:]), (batch, shares)
        )
        start = (jnp.float32(0), tree.zeros_like(state.params))
        (loss, gradient), examples = jax.lax.scan(accumulate, start, parts)
        examples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), examples)
        metrics = StepMetrics(loss, tree.norm(gradient))
        return apply_gradient(transform, state, gradient), metrics, examples

    return step


def microbatch_gradients(
    model: GPT2,
    params: Params,
    mask: Params,
    batch: Batch,
    shares: jax.Array,
    key: jax.Array | None,
    head_entries: int,
    label_slots: int,
) -> tuple[jax.Array, Params, ExampleGradients]:
    """Return a microbatch's loss, its gradient, and each example's own gradient.

    Leaves other than the embedding need a microbatch of one example.
    """
    size = len(batch["index"])

    def loss(params, rows):
        apart, numbered = with_token_rows(params, batch, rows)
        hidden = model.hidden_states(apart, numbered, key=key)
        losses = next_token_losses(hidden, model.head(apart), batch["labels"])
        return jnp.sum(shares * mean_over_labels(losses, batch["labels"])), hidden

    (value, hidden), (gradient, by_rows) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(params, token_rows(params, batch))
    # The table's gradient by its use as head; that by its use in lookups is added.
    table = token_table(gradient).at[batch["input_ids"]].add(by_rows)
    gradient = with_table(gradient, table)
    # Example i entered the loss with its share c_i: divide it out; padding has none.
    inverse = jnp.where(shares > 0, 1.0 / jnp.where(shares > 0, shares, 1.0), 0.0)

    def own(x):
        return x.astype(jnp.float32) * inverse.reshape((-1,) + (1,) * (x.ndim - 1))

    dense = {
        name: own(part[None])
        for name, part in tree.selected_slices(gradient, mask)
        if name != EMBEDDING
    }
    squares = sum((jnp.sum(x * x) for x in dense.values()), start=jnp.zeros(size))
    if not token_table(mask).any():
        none = (None,) * 5
        return (
            value,
            gradient,
            ExampleGradients(
                batch["index"], jnp.sqrt(squares), jnp.zeros(size), dense, *none
            ),
        )
    rows = own(by_rows)
    square, left_out, *factors = jax.lax.map(
        lambda example: head_factors(
            *example, model.head(params), head_entries, label_slots
        ),
        (hidden, batch["labels"], batch["input_ids"], rows),
    )
    norm = jnp.sqrt(squares + square)
    truncation = left_out / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)
    return (
        value,
        gradient,
        ExampleGradients(
            batch["index"], norm, truncation, dense, batch["input_ids"], rows, *factors
        ),
    )


def head_factors(
    hidden_TD, labels_T, ids_T, rows_TD, embedding_VD, entries: int, slots: int
):
    """Return one example's head factors, the embedding gradient's norm, and the rest.

    Norms come from Gram matrices: ``|H^T G|^2 = sum (H H^T) * (G G^T)``; the tied
    gradient adds the lookup rows, S once scattered to their tokens' ids:
    ``|S + H^T G|^2 = |S|^2 + 2 <S, H^T G> + |H^T G|^2``.
    """
    counted = labels_T[1:] != IGNORED_LABEL
    place = jnp.argsort(~counted, stable=True)[:slots]
    counted = counted[place]
    hidden_LD = hidden_TD[:-1][place].astype(jnp.float32)
    labels_L = jnp.where(counted, labels_T[1:][place], 0)
    probability = jax.nn.softmax(head_logits(hidden_TD[:-1][place][None], embedding_VD))
    count = jnp.maximum(counted.sum(), 1)
    rows_L = jnp.arange(labels_L.shape[0])
    g_LV = probability[0].at[rows_L, labels_L].add(-1.0)
    g_LV = g_LV * counted[:, None] / count
    entries = min(entries, g_LV.shape[1])
    _, top = jax.lax.top_k(jnp.abs(g_LV), entries)
    values = jnp.take_along_axis(g_LV, top, axis=1)
    rest = g_LV.at[rows_L[:, None], top].set(0.0)
    gram = hidden_LD @ hidden_LD.T
    head_square = jnp.sum(gram * (g_LV @ g_LV.T))
    rest_square = jnp.sum(gram * (rest @ rest.T))
    same = ids_T[:, None] == ids_T[None, :]
    lookup_square = jnp.sum(jnp.where(same, rows_TD @ rows_TD.T, 0.0))
    crossed = jnp.sum((rows_TD @ hidden_LD.T) * g_LV[:, ids_T].T)
    square = jnp.maximum(head_square + lookup_square + 2 * crossed, 0.0)
    left_out = jnp.sqrt(jnp.maximum(rest_square, 0.0))
    return square, left_out, hidden_LD, top, values
