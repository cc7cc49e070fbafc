"""Numbers that make sense: refused by name where they do not."""

MOST = 2**31 - 1
"""No count of ours is larger: such a number was not meant."""


def check_number(
    name: str, value: float | None, low: float, high: float | None = None
) -> None:
    """Refuse a number out of its range; None, which was not given, is in it.

    Raises:
      ValueError: Names the argument, its value and the range.

    >>> check_number("steps", 0, 1, 10)
    Traceback (most recent call last):
    ValueError: steps=0: at least 1 and at most 10
    """
    high = MOST if high is None else high
    if value is not None and not low <= value <= high:  # nor is NaN
        upto = "" if high == MOST and value < low else f" and at most {high:,}"
        raise ValueError(f"{name}={value}: at least {low}{upto}")
