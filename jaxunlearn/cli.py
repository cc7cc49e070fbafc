"""The console script ``jaxunlearn``: one subcommand a file of ``commands/``."""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COMMANDS = {
    "demo": "Train a small GPT-2, forget one person, compare with retraining; write a "
    "report.",
    "train": "Train or fine-tune a GPT-2 into a run directory that can be unlearned "
    "from.",
    "unlearn": "Remove the influence of training examples from a model.",
    "influence": "Score how training examples moved a model's loss on queries.",
    "index": "Build or query an index of projected gradients on disk.",
    "evaluate": "Measure what a model still knows, beside one that never saw it.",
    "attack": "Attack a model that was made to forget, beside one that never knew.",
    "report": "Compare unlearning runs with one another and with retraining, on one "
    "HTML page.",
    "parity": "Compare a GPT-2 checkpoint in JAX and in torch, derivatives included.",
}
"""Name -> first sentence of its docstring, told here so that the overview waits for no
command's imports."""

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
    keep_programs()
    warnings.showwarning = show_warning
    import tyro

    options = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.FlagCreatePairsOff,
    )
    if not given or given[0] not in COMMANDS:
        stubs = {name: stub(sentence) for name, sentence in COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(  # prints, and exits
            stubs,
            prog="jaxunlearn",
            description=DESCRIPTION,
            args=given,
            config=options,
        )
    from jaxunlearn.commands.arguments import REGISTRY, as_command, option_names
    from jaxunlearn.commands.config import with_config

    asked = given[0]
    function = command_of(asked)
    try:
        if asked == "unlearn":
            # Its options depend on the method, which is named before or among them.
            from jaxunlearn.commands.unlearn_arguments import (
                for_arguments,
                named_method,
            )

            function, given = for_arguments(function, with_config(named_method(given)))
        else:
            given = with_config(given)
        status = tyro.cli(
            as_command(function),
            prog=f"jaxunlearn {function.__name__}",
            args=given[1:],
            config=options,
            registry=REGISTRY,
        )
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        names = option_names(function)
        if asked == "unlearn":
            from jaxunlearn.commands.unlearn_rows import own_names

            names = own_names() | names  # also of methods that were not asked for
        sys.exit(fail(error, names))
    except KeyboardInterrupt:
        print("\njaxunlearn: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def keep_programs() -> None:
    """Have JAX keep compiled programs for later commands, in the user's cache folder.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder; set but empty, none are kept.
    It has to be said before JAX is imported.
    """
    with contextlib.suppress(RuntimeError):  # a user without a home
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches, "jaxunlearn", "programs")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    # Ours are many and small: by default only those of a second or more are kept.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def command_of(name: str) -> Callable[..., int]:
    """Return the function of a subcommand."""
    return getattr(importlib.import_module(f"jaxunlearn.commands.{name}"), name)


def stub(sentence: str) -> Callable[[], None]:
    """Return what stands for a subcommand in the overview: its first sentence."""

    def command() -> None: ...

    command.__doc__ = sentence
    return command


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
