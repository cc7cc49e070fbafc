"""Random projections of gradients, drawn from a key and never stored.

Each example's gradient, a tree, becomes one row of k numbers. On average over keys
inner products stay: ``E <P g, P h> = <g, h>``.
"""

import hashlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.randomness import pinned
from jaxunlearn.tree import named_leaves
from jaxunlearn.types import Params

DISTRIBUTIONS = ("rademacher", "normal")
HADAMARD_LENGTH = 2**16
RADIX = 64


def named_keys(key: jax.Array, names: Sequence[str]) -> jax.Array:
    """Return ``key`` folded with each name, keys [n]: independent of their order."""
    digests = [hashlib.sha256(name.encode()).digest()[:4] for name in names]
    words = np.frombuffer(b"".join(digests), "<u4")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, words)


def random_rows(
    keys: jax.Array, numbers: jax.Array, dimension: int, *, distribution: str
) -> jax.Array:
    """Return rows of a random matrix with entries of mean 0 and variance 1.

    Row r depends on its matrix's key and r alone, so that a matrix is the same however
    it is cut into blocks.

    Args:
      keys: The matrix's key; or [n], a key for each row (rows of several matrices).
      numbers: Which rows, int32[n].
      dimension: Columns k.
      distribution: ``"rademacher"`` (plus or minus 1, one random bit each) or
        ``"normal"``.

    Returns:
      float32[n,k].

    Raises:
      ValueError: An unknown distribution, or a dimension below 1.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution={distribution!r}: one of {', '.join(DISTRIBUTIONS)}"
        )
    check_dimension(dimension)

    def row(key: jax.Array, number: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, number)
        if distribution == "normal":
            return jax.random.normal(own, (dimension,), jnp.float32)
        words = jax.random.bits(own, (-(-dimension // 32), 1), jnp.uint32)
        bits = (words >> jnp.arange(32, dtype=jnp.uint32)) & 1
        return 1.0 - 2.0 * bits.reshape(-1)[:dimension].astype(jnp.float32)

    return jax.vmap(row)(jnp.broadcast_to(keys, numbers.shape), numbers)


def check_dimension(dimension: int) -> None:
    """Refuse a dimension below 1."""
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: must be at least 1")


@pinned
def project_dense(
    gradients: Params,
    dimension: int,
    *,
    key: jax.Array,
    distribution: str = "rademacher",
    block_size: int = 1024,
) -> jax.Array:
    """Project each example's gradient by a dense Johnson-Lindenstrauss matrix.

    ``row_b = R^T g_b / sqrt(k)``, R of shape [P,k] with independent entries
    (Achlioptas, Database-friendly random projections, 2003). The relative error of an
    inner product is about ``sqrt(2 / k)`` of the product of the norms.

    Args:
      gradients: A tree of arrays [B,...], or one array.
      dimension: k.
      key: The projection's key; a leaf's share is ``key`` folded with its name.
      distribution: ``"rademacher"`` or ``"normal"``; the first is much cheaper.
      block_size: Rows of R in memory at a time; R is the same for any.

    Returns:
      float32[B,k].

    Raises:
      ValueError: An unknown distribution, or a dimension or block size below 1.

    Cost: 2BPk flops and Pk/32 random words (Rademacher).

    >>> one, other = project_dense(jnp.eye(2), 4096, key=jax.random.key(0))
    >>> round(float(one @ one), 3), abs(float(one @ other)) < 0.1
    (1.0, True)
    """
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: must be at least 1")

    def project_leaf(flat: jax.Array, key: jax.Array) -> jax.Array:
        examples, length = flat.shape
        size = min(block_size, length)

        def add(block: jax.Array, total: jax.Array) -> jax.Array:
            # The last block begins early rather than end late, and leaves out what the
            # one before it had.
            start = jnp.minimum(block * size, length - size)
            numbers = start + jnp.arange(size)
            rows = random_rows(key, numbers, dimension, distribution=distribution)
            rows = jnp.where((numbers >= block * size)[:, None], rows, 0.0)
            return total + jax.lax.dynamic_slice_in_dim(flat, start, size, 1) @ rows

        zeros = jnp.zeros((examples, dimension), jnp.float32)
        return jax.lax.fori_loop(0, -(-length // size), add, zeros)

    return sum_over_leaves(project_leaf, gradients, key) / jnp.sqrt(dimension)


@pinned
def project_sparse(
    gradients: Params, dimension: int, *, key: jax.Array, nonzeros: int = 1
) -> jax.Array:
    """Project each example's gradient by a sparse Johnson-Lindenstrauss matrix (SJLT).

    Every coordinate goes, with a random sign and divided by ``sqrt(s)``, to one random
    entry in each of s equal parts of the row (Kane and Nelson, Sparser
    Johnson-Lindenstrauss transforms, 2014, the block construction). With s = 1 it is
    the count sketch, poor where single coordinates dominate.

    Args:
      gradients: A tree of arrays [B,...], or one array.
      dimension: k, a multiple of s.
      key: The projection's key; a leaf's share is ``key`` folded with its name.
      nonzeros: s, nonzero entries for each coordinate.

    Returns:
      float32[B,k].

    Raises:
      ValueError: ``nonzeros`` does not divide ``dimension``.

    Cost: sBP additions, whatever k is.
    """
    check_dimension(dimension)
    if nonzeros < 1 or dimension % nonzeros:
        raise ValueError(
            f"nonzeros={nonzeros}: must be at least 1 and divide dimension={dimension}"
        )
    part = dimension // nonzeros

    def project_leaf(flat: jax.Array, key: jax.Array) -> jax.Array:
        # A sign from the lowest bit, a place from the others.
        bits = jax.random.bits(key, (nonzeros, flat.shape[1]), jnp.uint32)
        signs = 1.0 - 2.0 * (bits & 1).astype(jnp.float32)
        places = ((bits >> 1) % part).astype(jnp.int32)

        def one_part(signs: jax.Array, places: jax.Array) -> jax.Array:
            return jax.ops.segment_sum((flat * signs).T, places, num_segments=part)

        parts = jax.vmap(one_part)(signs, places)
        return parts.reshape(dimension, -1).T

    return sum_over_leaves(project_leaf, gradients, key) / jnp.sqrt(nonzeros)


@pinned
def project_hadamard(gradients: Params, dimension: int, *, key: jax.Array) -> jax.Array:
    """Project each example's gradient by subsampled Hadamard transforms (SRHT, FJLT).

    A leaf is cut into pieces of a power of two m (65,536, or less for a short leaf, or
    more for a large k); each gets random signs, a Walsh-Hadamard transform and a random
    choice of k of its m entries, scaled by ``sqrt(m / k)``; the pieces are added up
    (Ailon and Chazelle, The fast Johnson-Lindenstrauss transform, 2009; pieces keep the
    memory at one piece and the result unbiased, as signs are independent).

    Args:
      gradients: A tree of arrays [B,...], or one array.
      dimension: k.
      key: The projection's key; a leaf's share is ``key`` folded with its name.

    Returns:
      float32[B,k]; one leaf of k = m entries keeps all inner products exactly.

    Raises:
      ValueError: A dimension below 1.

    Cost: about 2BP times the sum of the transform's radices (at most 64 each).
    """
    check_dimension(dimension)

    def project_leaf(flat: jax.Array, key: jax.Array) -> jax.Array:
        longest = max(min(flat.shape[1], HADAMARD_LENGTH), dimension)
        length = 1 << (longest - 1).bit_length()
        pieces = -(-flat.shape[1] // length)
        padded = jnp.pad(flat, ((0, 0), (0, pieces * length - flat.shape[1])))

        def add(i: jax.Array, total: jax.Array) -> jax.Array:
            # A sign from the lowest bit, an order from the others.
            own = jax.random.fold_in(key, i)
            bits = jax.random.bits(own, (length,), jnp.uint32)
            signs = 1.0 - 2.0 * (bits & 1).astype(jnp.float32)
            chosen = jnp.argsort(bits >> 1)[:dimension]
            piece = jax.lax.dynamic_slice_in_dim(padded, i * length, length, axis=1)
            return total + walsh_hadamard(piece * signs)[:, chosen]

        zeros = jnp.zeros((flat.shape[0], dimension), jnp.float32)
        return jax.lax.fori_loop(0, pieces, add, zeros)

    # The transform is sqrt(m) times a rotation, which leaves sqrt(1 / k) to scale by.
    return sum_over_leaves(project_leaf, gradients, key) / jnp.sqrt(dimension)


def walsh_hadamard(x: jax.Array) -> jax.Array:
    """Return ``H x`` along the last axis, whose length m is a power of two; no scaling.

    H is symmetric with entries plus and minus 1 and ``H H = m I``. It is a Kronecker
    product of small Hadamard matrices, applied as matrix products.

    >>> walsh_hadamard(jnp.array([1.0, 0.0, 0.0, 2.0])).tolist()
    [3.0, -1.0, -1.0, 3.0]
    """
    shape, length = x.shape, x.shape[-1]
    done = 1
    while done < length:
        radix = min(RADIX, length // done)
        numbers = jnp.arange(radix, dtype=jnp.uint32)
        ones = jax.lax.population_count(numbers[:, None] & numbers)
        matrix = 1.0 - 2.0 * (ones & 1).astype(x.dtype)
        x = x.reshape(*shape[:-1], length // (done * radix), radix, done)
        x = jnp.einsum("...ard,rs->...asd", x, matrix)
        done *= radix
    return x.reshape(shape)


def sum_over_leaves(
    project_leaf: Callable[[jax.Array, jax.Array], jax.Array],
    gradients: Params,
    key: jax.Array,
) -> jax.Array:
    """Return the sum of the leaves' projections, each with its own key.

    So a tree is projected like its leaves laid end to end.
    """
    leaves = named_leaves(gradients)
    if not leaves:
        raise ValueError("gradients holds no array: select at least one parameter")
    keys = named_keys(key, [name for name, _ in leaves])
    rows = [
        project_leaf(leaf.reshape(leaf.shape[0], -1).astype(jnp.float32), own)
        for (_, leaf), own in zip(leaves, keys, strict=True)
    ]
    return sum(rows[1:], rows[0])
