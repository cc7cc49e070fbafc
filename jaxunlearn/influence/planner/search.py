"""Choosing sizes and parts: the largest that fits, from few tries."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxunlearn import tree
from jaxunlearn.gradients.kronecker.fit import LARGEST_FACTOR
from jaxunlearn.gradients.kronecker.layout import Matrix


def batch_sizes(most: int, largest: int) -> list[int]:
    """Return the sizes to try: powers of two, and all there is.

    >>> batch_sizes(6, 256), batch_sizes(100, 8)
    ([1, 2, 4, 6], [1, 2, 4, 8])
    """
    powers = [2**i for i in range(min(most, largest).bit_length())]
    return powers + [most] if powers[-1] < most <= largest else powers


def largest_fitting(
    sizes: Sequence[int], need: Callable[[int], int], limit: int
) -> int | None:
    """Return the position of the largest size that fits; None if none does.

    Bisection, but at the place where a line through the two largest sizes that are
    known meets the limit. The size after the one returned was seen not to fit.

    >>> largest_fitting([1, 2, 4, 8, 16, 32], lambda size: 100 + 10 * size, 200)
    3
    """
    known: list[tuple[int, int]] = []

    def fits(position: int) -> bool:
        size = sizes[position]
        known.append((size, need(size)))
        return known[-1][1] <= limit

    if not fits(0):
        return None
    low, high = 0, len(sizes)
    guess = 1
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        if fits(guess):
            low = guess
        else:
            high = guess
        (first, less), (second, more) = sorted(known)[-2:]
        slope = (more - less) / (second - first)
        room = less + slope * (np.array(sizes) - first) <= limit
        guess = int(np.flatnonzero(room).max(initial=0))
    return low


def split_evenly(matrices: Sequence[Matrix], count: int) -> list[list[Matrix]]:
    """Return the matrices in ``count`` parts whose factors are about as large."""

    def weight(matrix: Matrix) -> int:
        sides = matrix.rows, matrix.columns
        factors = sum(n * n if n <= LARGEST_FACTOR else n for n in sides)
        return math.prod(matrix.stack) * (factors + math.prod(sides))

    parts: list[list[Matrix]] = [[] for _ in range(count)]
    for matrix in sorted(matrices, key=weight, reverse=True):
        min(parts, key=lambda part: sum(map(weight, part))).append(matrix)
    return parts


def expression(matrices: Sequence[Matrix], stacked: tuple[str, ...]) -> str:
    """Return the expression that selects these matrices' leaves and no others.

    ``stacked`` names the folders of stacked layers, as for ``tree.select``.
    """
    names = []
    for matrix in matrices:
        for leaf in matrix.leaves:
            prefix = tree.stacked_prefix(leaf, stacked) if matrix.stack else None
            if prefix is None:
                names.append(re.escape(leaf))
            else:
                chosen = "|".join(map(str, matrix.chosen))
                rest = re.escape(leaf.removeprefix(prefix))
                names.append(f"{re.escape(prefix)}/({chosen}){rest}")
    return f"^({'|'.join(names)})$"
