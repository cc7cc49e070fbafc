"""The layers of a GPT-2 in the groups that are compared, and the bytes of each."""

from typing import Any

import jax
import numpy as np

from jaxunlearn import tree
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.types import Params

EVERYTHING, EMBEDDING, POSITIONS = "everything", "token embedding", "position embedding"
INPUT, OUTPUT = "its input part", "its output part"
BLOCKS, LAST, NORM = "the blocks", "last two blocks", "last norm"
WITHOUT = "all but "


def groups(layers: int) -> dict[str, tuple[str, str]]:
    """Return the groups by name: a pattern of parameters, a part of the embedding.

    >>> groups(12)["last two blocks"], groups(12)["all but token embedding"]
    (('^h/(10|11)/', 'tied'), ('^(?!wte/)', 'tied'))
    """
    last = f"h/({layers - 2}|{layers - 1})/"
    paths = {EMBEDDING: "wte/", POSITIONS: "wpe/", BLOCKS: "h/", LAST: last}
    paths[NORM] = "ln_f/"
    return {
        EVERYTHING: (".", "tied"),
        EMBEDDING: ("^wte/", "tied"),
        INPUT: ("^wte/", "input"),
        OUTPUT: ("^wte/", "output"),
        POSITIONS: ("^wpe/", "tied"),
        **{block(i): (f"^h/{i}/", "tied") for i in range(layers)},
        LAST: (f"^{last}", "tied"),
        BLOCKS: ("^h/", "tied"),
        NORM: ("^ln_f/", "tied"),
        **{WITHOUT + name: (f"^(?!{path})", "tied") for name, path in paths.items()},
    }


def disjoint(layers: int) -> list[str]:
    """Return the names of groups that hold every parameter once."""
    return [EMBEDDING, POSITIONS, *map(block, range(layers)), NORM]


def block(number: int) -> str:
    """Return the name of the block ``h.<number>``, counted from 1 as in the claim."""
    return f"block {number + 1}"


def stored(stacked: Params, mask: Params) -> dict[str, int]:
    """Return the bytes of the masked arrays in one seed's recorded gradient.

    Args:
      stacked: Gradients [seeds, ...]; those of the first seed are looked at.
      mask: From ``tree.select``.

    Returns:
      ``bytes``, and ``nonzero_bytes``: of the entries that are not 0, which a sparse
      store would keep beside their places.
    """
    first = jax.tree.map(lambda x: np.asarray(x)[0], stacked)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(mask), strict=True)
    arrays = [x[np.broadcast_to(m, x.shape)] for x, m in pairs]
    return {
        "bytes": sum(x.nbytes for x in arrays),
        "nonzero_bytes": sum(int(np.count_nonzero(x)) * x.itemsize for x in arrays),
    }


def gpt2_shares() -> dict[str, Any]:
    """Return how many parameters GPT-2 124M has in each group, and their share.

    >>> gpt2_shares()["token embedding"]
    {'parameters': 38597376, 'share': 0.310...}
    """
    config = GPT2Config()
    shapes = jax.eval_shape(lambda: GPT2(config).init(key=jax.random.key(0)))
    sizes = {
        name: tree.selected_size(shapes, tree.select(shapes, layers))
        for name, (layers, part) in groups(config.n_layer).items()
        if part == "tied"
    }
    return {
        name: {"parameters": size, "share": size / sizes[EVERYTHING]}
        for name, size in sizes.items()
    }
