"""Parameter trees: algebra in float32, names of leaves, selection by expression.

A leaf's name is its path joined by ``/``. A leaf that ``nn.scan`` stacked over layers
(``h/attn/c_attn/kernel`` with a leading axis N) has one name a layer,
``h/0/attn/c_attn/kernel`` and so on, so that one expression picks blocks. Which folders
hold such leaves is told by ``stacked=``, from a model or a task that has ``stacked``:
an ordinary layer may be called ``h`` too.
"""

import difflib
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.patterns import matcher, one_pattern
from jaxunlearn.randomness import pinned, random_key
from jaxunlearn.types import Params

TELLTALES = {"h": ("h/attn/c_attn/kernel", 3)}
"""Folder -> a leaf and how many axes it has if, and only if, the folder is stacked."""


def leaf_name(path: tuple) -> str:
    """Join a JAX key path by ``/``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Params) -> list[tuple[str, jax.Array]]:
    """Return ``(name, leaf)`` for every leaf, stacked leaves whole.

    >>> named_leaves({"wte": {"embedding": 1.0}, "h": {"mlp": {"bias": 2.0}}})
    [('h/mlp/bias', 2.0), ('wte/embedding', 1.0)]
    """
    return [
        (leaf_name(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def stacked_folders(params: Params) -> tuple[str, ...]:
    """Return the folders of which a tree itself tells that they are stacked.

    GPT-2's does: a ``c_attn/kernel`` has two axes, so a third in front is the layers'.
    That is no guess, and no other tree is taken for it.

    >>> kernel = np.zeros((12, 4, 12))
    >>> stacked_folders({"h": {"attn": {"c_attn": {"kernel": kernel}}}})
    ('h',)
    >>> stacked_folders({"h": {"kernel": kernel}})
    ()
    """
    axes = {name: np.ndim(leaf) for name, leaf in named_leaves(params)}
    return tuple(k for k, (name, n) in TELLTALES.items() if axes.get(name) == n)


def stacked_prefix(name: str, stacked: tuple[str, ...]) -> str | None:
    """Return the folder after which a layer number belongs in ``name``, or None.

    >>> stacked_prefix("h/attn/c_attn/kernel", ("h",))
    'h'
    >>> stacked_prefix("h/0/ln_1/scale", ("h",)) is None
    True
    """
    for folder in stacked:
        rest = name.removeprefix(f"{folder}/")
        if rest != name and not rest.partition("/")[0].isdigit():
            return folder
    return None


def layer_names(
    name: str,
    leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct,
    stacked: tuple[str, ...] = (),
) -> list[str]:
    """Return the names by which ``leaf`` is addressed: one, or one a stacked layer."""
    prefix = stacked_prefix(name, stacked)
    if prefix is None:
        return [name]
    rest = name[len(prefix) + 1 :]
    return [f"{prefix}/{i}/{rest}" for i in range(leaf.shape[0])]


def select(
    params: Params,
    layers: str | Sequence[str],
    *,
    stacked: tuple[str, ...] | None = None,
) -> Params:
    """Return the tree of masks of the parameters whose names match ``layers``.

    Args:
      params: Parameters, or any tree of arrays or ``ShapeDtypeStruct`` of their shapes.
      layers: A regular expression, searched for anywhere in each name (anchor it with
        ``^`` and ``$``): ``"wte"``, ``"^h/(10|11)/"``, ``"mlp/.*kernel"``, ``"."``; or
        several, one of which has to match.
      stacked: Folders whose leaves are stacked over layers, such as ``model.stacked``:
        ``("blocks",)``. None takes what the tree itself tells
        (:func:`stacked_folders`): GPT-2's does, others do not.

    Returns:
      A tree like ``params`` of boolean NumPy arrays that broadcast to the leaves: shape
      () for an ordinary leaf, (N, 1, ...) for one stacked over N layers.

    Raises:
      ValueError: ``layers`` is no regular expression, takes too long, or matches
        nothing; the message lists the nearest names.

    >>> params = {"wte": jnp.ones((5, 2)), "h": {"bias": jnp.ones((3, 2))}}
    >>> mask = select(params, "h/(0|2)/", stacked=("h",))
    >>> jax.tree.map(lambda m: m.tolist(), mask)
    {'h': {'bias': [[True], [False], [True]]}, 'wte': False}
    """
    pattern = one_pattern(layers)
    matches = matcher(pattern)
    folders = stacked_folders(params) if stacked is None else stacked
    seen: list[str] = []
    found = False

    def mask(path: tuple, leaf: jax.Array) -> np.ndarray:
        nonlocal found
        name = leaf_name(path)
        names = layer_names(name, leaf, folders)
        seen.extend(names)
        hits = np.array([matches(n) for n in names])
        found = found or bool(hits.any())
        if stacked_prefix(name, folders) is None:
            return hits.reshape(())
        return hits.reshape((-1,) + (1,) * (leaf.ndim - 1))

    masks = jax.tree_util.tree_map_with_path(mask, params)
    if not found:
        near = difflib.get_close_matches(pattern, seen, n=5, cutoff=0.0)
        blocks = ", ".join(f"{folder}/<number>/..." for folder in folders)
        raise ValueError(
            f"layers={pattern!r} matches no parameter. Nearest names: "
            f"{', '.join(near)}. Names run from {seen[0]} to {seen[-1]}; "
            + (
                f"a block is addressed as {blocks}, counted from 0."
                if blocks
                else "no folder is said to be stacked over layers: where one is, say "
                'stacked=("its name",), and a block is <its name>/<number>/...'
            )
        )
    return masks


def masked(tree: Params, mask: Params) -> Params:
    """Return ``tree`` with zeros where ``mask`` is False."""
    return jax.tree.map(lambda x, m: jnp.where(m, x, jnp.zeros_like(x)), tree, mask)


def selected_size(params: Params, mask: Params) -> int:
    """Return how many single parameters ``mask`` selects."""
    sizes = jax.tree.map(
        lambda x, m: int(np.sum(np.broadcast_to(m, x.shape))), params, mask
    )
    return sum(jax.tree.leaves(sizes))


def bytes_of(tree: Params) -> int:
    """Return the bytes that arrays, or arrays of these shapes, take."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def selected_slices(
    tree: Params, mask: Params, *, stacked: tuple[str, ...] | None = None
) -> Iterator[tuple[str, jax.Array | np.ndarray]]:
    """Yield ``(name, array)`` of each selected leaf, stacked leaves layer by layer.

    ``stacked`` is that of :func:`select`.
    """
    folders = stacked_folders(tree) if stacked is None else stacked
    for (name, leaf), chosen in zip(
        named_leaves(tree), jax.tree.leaves(mask), strict=True
    ):
        names = layer_names(name, leaf, folders)
        if len(names) == 1 and names[0] == name:
            if bool(chosen):
                yield name, leaf
        else:
            for i, layer in enumerate(names):
                if bool(np.ravel(chosen)[i]):
                    yield layer, leaf[i]


def cast(tree: Params, dtype: jnp.dtype | str) -> Params:
    """Return ``tree`` with every floating leaf in ``dtype``."""

    def cast_leaf(x: jax.Array) -> jax.Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast_leaf, tree)


def master_weights(params: Params) -> Params:
    """Return a copy of parameters that steps can be added up in: float32 or wider.

    A step of 1e-5 is lost beside a weight of 1 in 16 bits, Adam's epsilon and squared
    gradients are 0 in float16. So whatever moves parameters moves these, and measures
    and hands back what is :func:`rounded` from them. Always a copy, which a compiled
    step may be given for good.
    """
    return jax.tree.map(
        lambda x: jnp.array(x, jnp.promote_types(x.dtype, jnp.float32)), params
    )


@pinned
def rounded(tree: Params, like: Params) -> Params:
    """Return ``tree`` in the dtypes of ``like``, as it is stored.

    Stochastic rounding: a number between two of the dtype's becomes the upper one with
    the chance that keeps its mean. Fine-tuning moves many weights by less than half of
    a bfloat16's last bit, and rounding to the nearest would undo that everywhere. The
    draws are fixed, one a place, so that the same numbers give the same bits; what the
    dtype holds exactly stays as it is.
    """

    def round_leaf(x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        if x.dtype == y.dtype:
            return x
        near = x.astype(y.dtype)
        beyond = jnp.copysign(jnp.inf, x - near.astype(x.dtype)).astype(y.dtype)
        other = jnp.nextafter(near, beyond)
        low, high = jnp.minimum(near, other), jnp.maximum(near, other)
        below, above = low.astype(x.dtype), high.astype(x.dtype)
        chance = (x - below) / (above - below)
        drawn = jax.random.uniform(key, x.shape, x.dtype)
        chosen = jnp.where(drawn < chance, high, low)
        return jnp.where(jnp.isfinite(near), chosen, near)

    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(random_key(0), len(leaves))
    new = map(round_leaf, leaves, jax.tree.leaves(like), keys)
    return jax.tree.unflatten(structure, new)


def zeros_like(tree: Params) -> Params:
    """Return float32 zeros in the shape of ``tree``: the start of a sum."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def add_scaled(tree: Params, scale: jax.Array | float, direction: Params) -> Params:
    """Return ``tree + scale * direction``: a float32 sum, in the dtypes of ``tree``.

    Where ``direction`` is 0 the bits stay as they are.
    """

    def add(x: jax.Array, d: jax.Array) -> jax.Array:
        total = x.astype(jnp.float32) + scale * d.astype(jnp.float32)
        # -0.0 + 0.0 is +0.0, and an infinite scale times 0 a NaN.
        return jnp.where(d == 0, x, total.astype(x.dtype))

    return jax.tree.map(add, tree, direction)


def scaled(scale: jax.Array | float, tree: Params) -> Params:
    """Return ``scale * tree`` in float32."""
    return jax.tree.map(lambda x: scale * x.astype(jnp.float32), tree)


def subtract(a: Params, b: Params) -> Params:
    """Return ``a - b`` in float32."""
    return jax.tree.map(
        lambda x, y: x.astype(jnp.float32) - y.astype(jnp.float32), a, b
    )


def vdot(a: Params, b: Params) -> jax.Array:
    """Return the inner product of two trees, float32[]."""
    products = jax.tree.map(
        lambda x, y: jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32)), a, b
    )
    return jax.tree.reduce(jnp.add, products, jnp.float32(0))


def norm(tree: Params, mask: Params | None = None) -> jax.Array:
    """Return the Euclidean norm of ``tree``, or of its masked part."""
    chosen = tree if mask is None else masked(tree, mask)
    return jnp.sqrt(vdot(chosen, chosen))


def non_finite_leaves(tree: Params) -> list[str]:
    """Return the names of the leaves that hold a NaN or an infinity."""
    return [
        name for name, leaf in named_leaves(tree) if not bool(jnp.isfinite(leaf).all())
    ]
