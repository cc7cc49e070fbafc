"""Errors of the library in the words of the command line."""

import re
from collections.abc import Mapping

CALL = r"[\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\)"


def in_options(message: str, names: Mapping[str, str]) -> str:
    """Return an error message of the library in the words of the command line.

    An argument that is an option is called by the option's name: where its value
    stands behind it, and wherever its name cannot be a word of the sentence. A call in
    Python stays one.

    >>> names = {"max_steps": "--max-steps", "method": "--method"}
    >>> in_options("max_steps=-3: at least 1, or lower batch_size", names)
    '--max-steps -3: at least 1, or lower batch_size'
    >>> in_options("method='magic': call f(x, method='magic')", names)
    "--method 'magic': call f(x, method='magic')"
    """
    prose = re.split(rf"({CALL})", message)
    for name, option in sorted(names.items(), key=lambda x: len(x[0]), reverse=True):
        for i in range(0, len(prose), 2):
            part = re.sub(rf"(?<![\w.\-/'\"]){name}=(?=[^\s=])", f"{option} ", prose[i])
            if "_" in name:
                part = re.sub(rf"(?<![\w.\-/'\"]){name}(?![\w.\-/='\"(])", option, part)
            prose[i] = part
    return "".join(prose)
