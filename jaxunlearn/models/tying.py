"""The token embedding and the output head, apart or as one matrix.

A tied model uses the table ``wte/embedding`` [V,D] twice: to look tokens up and,
transposed, as output head. Untied, the two uses are two leaves, and what belongs to
either is told apart by name: a gradient, a mask, a move.
"""

import jax
import jax.numpy as jnp

from jaxunlearn.types import Batch, Params

TABLE = ("wte", "embedding")
HEAD = ("lm_head", "kernel")


def token_table(tree: Params) -> jax.Array:
    """Return the table of token embeddings [V,D], or what a tree like it has there."""
    return tree[TABLE[0]][TABLE[1]]


def with_table(tree: Params, table: jax.Array) -> Params:
    """Return a tree with another leaf in the table's place."""
    return {**tree, TABLE[0]: {TABLE[1]: table}}


def is_untied(tree: Params) -> bool:
    """Return whether a tree has a head of its own."""
    return HEAD[0] in tree


def output_head(params: Params) -> jax.Array:
    """Return the output head [V,D]: ``lm_head/kernel`` where there is one, else the
    table."""
    return params[HEAD[0]][HEAD[1]] if is_untied(params) else token_table(params)


def untie(params: Params) -> Params:
    """Return the parameters with the table and the head as two leaves.

    Args:
      params: Parameters of a model; those with a head of its own, or without a table,
        come back as they are.

    Returns:
      The tree, its ``lm_head/kernel`` the table: [V,D], a row a token, as torch has it
      too, so that no use of it turns it over.
    """
    if is_untied(params) or TABLE[0] not in params:
        return params
    return {**params, HEAD[0]: {HEAD[1]: token_table(params)}}


def tie(direction: Params) -> Params:
    """Return an untied direction as one of the tied parameters: the uses' sum.

    ``untie`` is linear and this is its transpose: it makes the gradient by the untied
    parameters that by the tied ones. Parameters that were moved while untied are tied
    by ``add_scaled(params, 1.0, tie(subtract(moved, untie(params))))``.

    Args:
      direction: A tree like ``untie(params)``: a gradient, a difference.

    Returns:
      The tree without ``lm_head``; where there is none, as it is.
    """
    if not is_untied(direction):
        return direction
    rest = {name: part for name, part in direction.items() if name != HEAD[0]}
    return with_table(rest, token_table(direction) + output_head(direction))


def token_rows(params: Params, batch: Batch) -> jax.Array:
    """Return the row of the table that each token looks up, [B,T,D]."""
    return token_table(params)[jnp.asarray(batch["input_ids"])]


def with_token_rows(
    params: Params, batch: Batch, rows_BTD: jax.Array
) -> tuple[Params, Batch]:
    """Return parameters and a batch in which every token looks up a row of its own.

    The loss is the same function of the rows as of :func:`token_rows`, so its gradient
    by them is the lookup part of the table's gradient, token by token; and other rows
    are other embeddings, which no token of the vocabulary may have.

    Args:
      params: Parameters; the head is what it was.
      batch: A batch.
      rows_BTD: The rows.

    Returns:
      The parameters, untied, with B T rows in their table, and the batch with the
      numbers of the rows as ``input_ids``.
    """
    size, length, width = rows_BTD.shape
    numbers = jnp.arange(size * length, dtype=jnp.int32).reshape(size, length)
    table = rows_BTD.reshape(size * length, width)
    return with_table(untie(params), table), {**batch, "input_ids": numbers}
