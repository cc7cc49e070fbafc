"""One measurement in every setting (world and optimiser), worlds side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from experiments.paper.laboratory import SIZES, Lab, groups_of
from experiments.paper.results import Options, labs


def each_setting(
    options: Options, optimisers: Sequence[str], measure: Callable[[Lab], Any]
) -> dict[str, Any]:
    """Return ``measure(lab)`` by ``"world, optimiser"``.

    On a CPU the worlds are built and measured in a thread each: a small model's
    operations keep one core busy.

    Raises:
      ValueError: A world's data are missing; before anything is trained.
    """
    for world in options.worlds:
        groups_of(world, SIZES[options.size], options.seed)

    def measured(world: str) -> dict[str, Any]:
        found = labs(dataclasses.replace(options, worlds=(world,)), optimisers)
        # One world's labs have equal examples; with the same object for them they also
        # share what is compiled.
        sets = next(iter(found.values())).sets
        return {
            f"{world}, {optimiser}": measure(lab._replace(sets=sets))
            for (world, optimiser), lab in found.items()
        }

    at_once = len(options.worlds) if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(at_once) as pool:
        return {
            name: value
            for part in pool.map(measured, options.worlds)
            for name, value in part.items()
        }
