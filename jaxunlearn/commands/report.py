"""``jaxunlearn report``: any number of runs on one page."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxunlearn.commands.arguments import listed
from jaxunlearn.commands.console import say, working
from jaxunlearn.commands.outputs import check_folder
from jaxunlearn.report import ComparedRun, read_runs, sentence_of, write_comparison


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn report``.

    Attributes:
      runs: Directories with scores.json (`jaxunlearn evaluate`), attack.json
        (`jaxunlearn attack`), unlearning.json (`jaxunlearn unlearn`), losses.jsonl or
        influence_track.npz (`jaxunlearn train`, the second by `--track`), or such files
        under any name. Files of different forms with one name are one run.
      out: Directory for the page; files of the same names there are replaced.
      names: What to call the runs: one a run.
    """

    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")
    ]
    out: Path = Path("jaxunlearn-report")
    names: tuple[str, ...] = ()


def report(options: Options) -> int:
    """Compare unlearning runs with one another and with retraining, on one HTML page.

    Writes OUT/report.html, which needs nothing but itself, and the same as files:
    OUT/figures (PNG, SVG) and OUT/tables (CSV, LaTeX). What was not measured is said,
    with the command that measures it.
    """
    check_folder("out", options.out)
    found = read_runs(options.runs, names=listed(options.names) or None)
    with working("Drawing"):
        page = write_comparison(found, options.out)
    tell(found)
    say(f"Report: {page}")
    return 0


def tell(runs: list[ComparedRun]) -> None:
    """Print what the scores and attacks say of each run."""
    for run in runs:
        sentence = sentence_of(run) or "Nothing to compare with a retrained model."
        say(f"{run.name}: {sentence}")
