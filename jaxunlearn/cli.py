"""The console script ``jaxunlearn``: one subcommand a file of ``commands/``."""

import os
import sys
import warnings
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; exit with its status.

    Exit status: 0 done; 1 refused or beyond tolerance; 2 bad input, with one line that
    says what to do; 130 interrupted.
    """
    # tokenizers forks no workers here, and would warn of it at every exit.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tyro

    from jaxunlearn.commands.attack import attack
    from jaxunlearn.commands.demo import demo
    from jaxunlearn.commands.evaluate import evaluate
    from jaxunlearn.commands.index import index
    from jaxunlearn.commands.influence import influence
    from jaxunlearn.commands.parity import parity
    from jaxunlearn.commands.report import report
    from jaxunlearn.commands.train import train
    from jaxunlearn.commands.unlearn import unlearn

    warnings.showwarning = show_warning
    commands = {
        "demo": demo,
        "train": train,
        "unlearn": unlearn,
        "influence": influence,
        "index": index,
        "evaluate": evaluate,
        "attack": attack,
        "report": report,
        "parity": parity,
    }
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="jaxunlearn",
            description="Remove the influence of chosen training examples from a "
            "trained model, measure what is left, and find which examples matter.",
            args=arguments,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.OmitSubcommandPrefixes,
                tyro.conf.FlagCreatePairsOff,
            ),
        )
    except (ValueError, OSError, ImportError) as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        print("\njaxunlearn: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def fail(error: Exception) -> int:
    """Print an error of the input as one message, without a traceback."""
    if os.environ.get("JAXUNLEARN_TRACEBACK"):
        raise error
    print(f"jaxunlearn: error: {error}", file=sys.stderr)
    return 2


def show_warning(message, category, *_args, **_kwargs) -> None:
    """Print our warnings as one line, and no library's."""
    if category.__module__.startswith("jaxunlearn"):
        print(f"jaxunlearn: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
