"""Regular expressions from files that somebody else wrote: matching always ends."""

import time
from collections.abc import Callable, Sequence

import regex

PATTERN_LENGTH = 1000
PATTERN_SECONDS = 2.0


def one_pattern(layers: str | Sequence[str]) -> str:
    """Return one expression that matches where one of several does.

    >>> one_pattern("^wte/"), one_pattern(["^wte/", "ln_f"])
    ('^wte/', '(?:^wte/)|(?:ln_f)')

    Raises:
      ValueError: There is none.
    """
    if isinstance(layers, str):
        return layers
    if len(layers) == 0:
        raise ValueError("layers is empty: give at least one expression")
    return "|".join(f"(?:{expression})" for expression in layers)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return whether a name matches a pattern, as a function that always ends.

    A pattern may come from a file that somebody else wrote, and matching may take time
    exponential in the name's length: all calls together have ``PATTERN_SECONDS``.
    """
    refused = f"layers={pattern!r:.100} "
    if len(pattern) > PATTERN_LENGTH:
        raise ValueError(refused + f"has more than {PATTERN_LENGTH} characters")
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(refused + f"is not a regular expression: {error}") from error
    except RecursionError:
        raise ValueError(refused + "is nested too deeply") from None
    left = PATTERN_SECONDS

    def matches(name: str) -> bool:
        nonlocal left
        begun = time.monotonic()
        try:
            found = compiled.search(name, timeout=max(left, 1e-3)) is not None
        except TimeoutError:
            raise ValueError(
                refused + f"takes more than {PATTERN_SECONDS:g} seconds to match: no "
                f"repetition within a repetition, such as (a*)*"
            ) from None
        left -= time.monotonic() - begun
        return found

    return matches
