"""The console script ``jaxunlearn``: one subcommand a file of ``commands/``."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

COMMANDS = (
    "demo",
    "train",
    "unlearn",
    "influence",
    "index",
    "evaluate",
    "attack",
    "report",
    "parity",
)

DESCRIPTION = """Remove the influence of chosen training examples from a trained model,
measure what is left, and find which examples matter.

jaxunlearn COMMAND --help says what a command takes; jaxunlearn --version tells the
version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; exit with its status.

    Exit status: 0 done; 1 refused or beyond tolerance; 2 bad input, with one line that
    says what to do; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        import jaxunlearn

        print(f"jaxunlearn {jaxunlearn.__version__}")
        sys.exit(0)
    # tokenizers forks no workers here, and would warn of it at every exit.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = show_warning
    import tyro

    from jaxunlearn.commands.arguments import REGISTRY, as_command, option_names
    from jaxunlearn.commands.config import with_config

    # Only the command that was asked for is imported, where one was.
    asked = given[0] if given and given[0] in COMMANDS else None
    functions = {name: command_of(name) for name in COMMANDS if asked in (None, name)}
    try:
        if asked == "unlearn":
            # Its options depend on the method, which is named before or among them.
            from jaxunlearn.commands.unlearn_arguments import (
                for_arguments,
                named_method,
            )

            given = with_config(named_method(given))
            functions[asked], given = for_arguments(functions[asked], given)
        else:
            given = with_config(given)
        status = tyro.extras.subcommand_cli_from_dict(
            {
                name: as_command(function, brief=asked is None)
                for name, function in functions.items()
            },
            prog="jaxunlearn",
            description=DESCRIPTION,
            args=given,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.OmitSubcommandPrefixes,
                tyro.conf.FlagCreatePairsOff,
            ),
            registry=REGISTRY,
        )
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        sys.exit(fail(error, option_names(functions[asked]) if asked else {}))
    except KeyboardInterrupt:
        print("\njaxunlearn: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def command_of(name: str) -> Callable[..., int]:
    """Return the function of a subcommand."""
    return getattr(importlib.import_module(f"jaxunlearn.commands.{name}"), name)


def fail(error: Exception, names: Mapping[str, str]) -> int:
    """Print an error of the input as one message, without a traceback."""
    from jaxunlearn.commands.wording import in_options

    if os.environ.get("JAXUNLEARN_TRACEBACK"):
        raise error
    print(f"jaxunlearn: error: {in_options(str(error), names)}", file=sys.stderr)
    return 2


def show_warning(message, category, *_args, **_kwargs) -> None:
    """Print our warnings as one line, and no library's."""
    if category.__module__.startswith("jaxunlearn"):
        print(f"jaxunlearn: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
