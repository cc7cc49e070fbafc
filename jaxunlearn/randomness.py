"""Random draws that depend on their key alone, whatever JAX is set to.

A run is replayed by drawing its masks again and an index asked by drawing its
projection again, so neither may depend on the settings of a process. Two of JAX's do
change what a key gives: the default implementation (on TPU pods often ``rbg``, whose
draws under ``vmap`` depend on the size of the batch) and
``jax_threefry_partitionable``.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

GENERATOR = "threefry2x32"
Function = TypeVar("Function", bound=Callable)


def random_key(seed: int) -> jax.Array:
    """Return the key of a seed; the package's ``jax.random.key``."""
    return jax.random.key(seed, impl=GENERATOR)


def threefry(key: jax.Array) -> jax.Array:
    """Return a key of any implementation as one of threefry.

    A key of ``rbg`` is two of threefry side by side: of one seed both are the same.

    >>> bool(threefry(jax.random.key(3, impl="rbg")) == random_key(3))
    True
    """
    data = jax.random.key_data(key)
    return jax.random.wrap_key_data(data[..., :2], impl=GENERATOR)


def pinned(function: Function) -> Function:
    """Return a function that draws by its keyword ``key``, one generator for all."""

    @functools.wraps(function)
    def drawing(*arguments: Any, **options: Any) -> Any:
        if options.get("key") is not None:
            options["key"] = threefry(options["key"])
        with jax.threefry_partitionable(True):
            return function(*arguments, **options)

    pinned_function: Any = drawing
    return pinned_function
