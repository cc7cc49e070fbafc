"""What the demo measures at every turn: seconds and mean losses."""

import time
from collections.abc import Callable

from jaxunlearn.data import TokenizedData, in_order
from jaxunlearn.training import mean_loss_of


class timed:
    """Measure the seconds of a ``with`` block into ``seconds[name]``."""

    def __init__(self, seconds: dict[str, float], name: str):
        """Name what is measured."""
        self.seconds, self.name = seconds, name

    def __enter__(self):
        """Start."""
        self.start = time.perf_counter()

    def __exit__(self, *_):
        """Stop."""
        self.seconds[self.name] = time.perf_counter() - self.start


def measures(model, sets: dict[str, TokenizedData]) -> dict[str, Callable]:
    """Return the mean loss of each set, as functions of parameters."""
    # One length for all, so that one program serves all.
    length = max(data.length for data in sets.values())
    return {
        name: mean_loss_of(model.per_example_loss, in_order(data, length=length))
        for name, data in sets.items()
    }
