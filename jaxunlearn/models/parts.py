"""The parts of a model, by the names of its layers, on the way forward."""

FORWARD = {"wte": 0, "wpe": 1, "ln_f": 3, "lm_head": 4}
"""Where a part stands on the way forward; blocks and all others are 2."""


def part_of(name: str) -> str:
    """Return the part of a model to which a layer's name belongs.

    >>> part_of("h/11/attn/c_attn/kernel"), part_of("wte/embedding")
    ('h/11', 'wte')
    """
    parts = name.split("/")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return "/".join(parts[: numbers[0] + 1 if numbers else 1])


def place_of(part: str) -> tuple[int, str, int]:
    """Return what sorts the parts of a model in the order of the way forward."""
    name, _, number = part.rpartition("/")
    if not number.isdigit():
        name, number = part, "0"
    return FORWARD.get(name, 2), name, int(number)
