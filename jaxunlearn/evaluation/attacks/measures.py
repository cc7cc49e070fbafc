"""What counts as recovered: numbers of each example, higher = more of it is there."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    mean_losses,
    token_statistics,
)
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Batch, Params

Measure = Callable[[Params], np.ndarray]
Score = Callable[[Sequence[TokenStatistics]], np.ndarray]


def probability(statistics: Sequence[TokenStatistics]) -> np.ndarray:
    """Return ``exp(-L)``, the geometric mean probability of the tokens, float64[n]."""
    return np.exp(-mean_losses(statistics))


def measure_of(model: GPT2, batches: Iterable[Batch], score: Score) -> Measure:
    """Return the function ``params -> score of each example of batches``."""

    def measure(params: Params) -> np.ndarray:
        return score(token_statistics(model, params, batches))

    return measure
