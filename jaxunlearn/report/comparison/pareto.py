"""Which runs no other run beats."""

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other point beats, where smaller is better in both.

    A point beats another that is nowhere smaller and somewhere larger. Equal points do
    not beat each other.

    Args:
      points: (x, y) of each; one that is not finite is never on the front.

    Returns:
      Positions of the front's points, in the order of x, then y, then position.
      Cost O(n log n).

    >>> pareto_front([(1.0, 3.0), (2.0, 2.0), (3.0, 2.0), (4.0, 1.0)])
    [0, 1, 3]
    """
    front: list[int] = []
    lowest = math.inf
    finite = (i for i, point in enumerate(points) if all(map(math.isfinite, point)))
    for i in sorted(finite, key=lambda i: points[i]):
        if points[i][1] < lowest or (front and points[i] == points[front[-1]]):
            front.append(i)
            lowest = points[i][1]
    return front
