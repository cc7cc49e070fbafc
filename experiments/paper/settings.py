"""One measurement in each setting, a world and an optimiser, while others build."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from experiments.paper.laboratory import SIZES, Lab, build, groups_of
from experiments.paper.results import Options, difference, number, sign_of, summary

AT_ONCE = 2  # a small model's operations keep one core of a CPU busy


def each_setting(
    options: Options, optimisers: Sequence[str], measure: Callable[[Lab], Any]
) -> dict[str, Any]:
    """Return ``measure(lab)`` by ``"world, optimiser"``.

    The labs are built one after the other; on a CPU each is measured in a thread while
    the next ones are built.

    Raises:
      ValueError: The data of a world are missing; before anything is trained.
    """
    sizes = SIZES[options.size]
    for world in options.worlds:
        groups_of(world, sizes, options.seed)

    def measured(name: str, lab: Lab) -> Any:
        print(f"{name}: measuring", flush=True)
        return measure(lab)

    on_cpu, sets, running = jax.default_backend() == "cpu", {}, {}
    with ThreadPoolExecutor(AT_ONCE if on_cpu else 1) as pool:
        for optimiser in optimisers:
            # The last lab is measured while nothing builds: the quicker world's.
            for world in reversed(options.worlds):
                lab = build(
                    world, optimiser, sizes, seed=options.seed, cache=options.cache
                )
                # A world's labs have equal examples; with the same object for them
                # they also share what is compiled.
                lab = lab._replace(sets=sets.setdefault(world, lab.sets))
                name = f"{world}, {optimiser}"
                running[name] = pool.submit(measured, name, lab)
                if not on_cpu:
                    running[name].result()  # one at a time on the device
        return {
            f"{world}, {optimiser}": running[f"{world}, {optimiser}"].result()
            for world in options.worlds
            for optimiser in optimisers
        }


def summarised(value: Any) -> Any:
    """Return a tree with each array over seeds as its summary; [n, seeds] gives n."""
    if isinstance(value, Mapping):
        return {str(key): summarised(inner) for key, inner in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    return summary(value) if value.ndim == 1 else [summarised(row) for row in value]


def paired(ours: Any, theirs: Any) -> dict[str, Any]:
    """Return ``ours - theirs`` over seeds as JSON: value, low, high and sign.

    The sign is 1 or -1 where the interval lies on one side of 0, else 0. Seeds where
    one of both is not finite are left out; without two pairs all is None and 0.
    """
    interval = difference(ours, theirs)
    ends = {
        end: None if interval is None else number(getattr(interval, end))
        for end in ("value", "low", "high")
    }
    return {**ends, "sign": sign_of(interval)}
