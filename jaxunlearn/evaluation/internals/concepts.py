"""Whether the vector that writes a concept into the residual stream is still there.

A concept vector is one unit's output weights in one block's MLP: where the unit is
active, the vector is added to the residual stream, and raises the tokens whose
embeddings it points to (Geva et al. 2022, arXiv 2203.14680). Unlearning that leaves it
as it was has hidden the concept, not removed it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Params

TOP_TOKENS = 200


class ConceptChange(NamedTuple):
    """How a concept vector changed.

    Of what was to be forgotten, ``cosine`` and ``jaccard`` are better lower and
    ``distance`` higher. A retrained model says nothing about how far is right: its
    units are others altogether.

    Attributes:
      cosine: Of the two vectors, -1 to 1; 0 if one of them is zero.
      distance: Euclidean, from 0; in the units of the weights.
      jaccard: Tokens among the top of both over those among the top of either, 0 to 1.
      top_before: int32[k], ids of the tokens that it raised most, the most first.
      top_after: int32[k], likewise; empty if nothing is left of the vector.
    """

    cosine: float
    distance: float
    jaccard: float
    top_before: np.ndarray
    top_after: np.ndarray


def concept_change(
    model: GPT2,
    before: Params,
    after: Params,
    *,
    layer: int,
    dimension: int,
    tokens: int = TOP_TOKENS,
) -> ConceptChange:
    """Return how one concept vector and the tokens it raises changed.

    The intrinsic tests ``cos(v, v')``, ``|v - v'|`` and the Jaccard similarity of the
    k greatest entries of ``E v`` and ``E' v'``, with E each model's own head.

    Args:
      model: The family, which says where its MLPs' output weights lie.
      before: Parameters before unlearning.
      after: Parameters after.
      layer: Block, counted from 0.
      dimension: Unit of its MLP, 0 to F - 1.
      tokens: k, at most the vocabulary.

    Raises:
      ValueError: There is no such block, unit or number of tokens, or the two models
        differ in shape.

    Cost: two products of the head with a vector, 2VD flops each.

    Source: ConceptVectors, arXiv 2406.11614, whose down_proj is torch's [out, in]:
    their column is our row, see :func:`concept_vector`.
    """
    v, w = (
        concept_vector(model, params, layer=layer, dimension=dimension)
        for params in (before, after)
    )
    if v.shape != w.shape:
        raise ValueError(
            f"vectors of width {len(v)} and {len(w)}: the models differ in shape"
        )
    top, others = (
        top_tokens(model, p, vector, tokens=tokens)
        for p, vector in ((before, v), (after, w))
    )
    lengths = float(jnp.linalg.norm(v) * jnp.linalg.norm(w))
    either = len(np.union1d(top, others))
    return ConceptChange(
        cosine=float(jnp.vdot(v, w)) / lengths if lengths else 0.0,
        distance=float(jnp.linalg.norm(v - w)),
        # Two vectors of zeros raise the same tokens: none.
        jaccard=len(np.intersect1d(top, others)) / either if either else 1.0,
        top_before=top,
        top_after=others,
    )


def concept_vector(
    model: GPT2, params: Params, *, layer: int, dimension: int
) -> jax.Array:
    """Return the output weights of unit ``dimension`` of a block's MLP, float32[D].

    It is a row of the block's kernel [F,D] (GPT-2's ``mlp/c_proj/kernel``); in torch's
    ``down_proj.weight`` [D,F] it is a column.

    Raises:
      ValueError: There is no such block or unit.
    """
    kernel = model.down_projection(params)
    for name, value, size in zip(
        ("layer", "dimension"), (layer, dimension), kernel.shape, strict=False
    ):
        if not 0 <= value < size:
            raise ValueError(f"{name}={value}: 0 to {size - 1}")
    return jnp.asarray(kernel[layer, dimension], jnp.float32)


def top_tokens(
    model: GPT2, params: Params, vector: jax.Array, *, tokens: int = TOP_TOKENS
) -> np.ndarray:
    """Return the ids of the greatest entries of ``E v``, the greatest first, int32[k].

    Of equal entries the smaller ids are taken; a vector of zeros raises none.

    Args:
      model: The family, which says where the output head E [V,D] lies.
      params: Parameters.
      vector: v, float[D]; the last normalisation is not applied to it.
      tokens: k, 1 to V.

    Raises:
      ValueError: k is out of range.
    """
    head = model.head(params)
    if not 1 <= tokens <= len(head):
        raise ValueError(f"tokens={tokens}: 1 to {len(head)}, the vocabulary")
    if not jnp.any(vector):
        return np.empty(0, np.int32)
    raised = jnp.matmul(jnp.asarray(head, jnp.float32), vector, precision="highest")
    return np.asarray(jax.lax.top_k(raised, tokens)[1], np.int32)
