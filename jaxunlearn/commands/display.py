"""How the work of a subcommand is told in the words of its options."""

import functools
import shlex
import sys
from collections.abc import Callable
from typing import Any

from jaxunlearn.commands.arguments import option_names
from jaxunlearn.commands.console import progress_bar, say, working
from jaxunlearn.commands.wording import in_options
from jaxunlearn.evaluation.display import Display


def display_of(command: Callable[..., Any]) -> Display:
    """Return the display of a subcommand: the console, arguments told as options."""
    names = option_names(command)
    return Display(
        say,
        working,
        lambda text: in_options(text, names),
        functools.partial(progress_bar, total=1),
    )


def typed_command() -> str:
    """Return the command as it was typed."""
    return shlex.join(["jaxunlearn", *sys.argv[1:]])
