"""``jaxunlearn report``: any number of runs on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxunlearn.commands.arguments import listed
from jaxunlearn.commands.console import say, working
from jaxunlearn.commands.outputs import check_folder

if TYPE_CHECKING:
    from jaxunlearn.report import ComparedRun


def report(
    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")
    ],
    /,
    *,
    out: Path = Path("jaxunlearn-report"),
    names: tuple[str, ...] = (),
) -> int:
    """Compare unlearning runs with one another and with retraining, on one HTML page.

    Writes OUT/report.html, which needs nothing but itself, and the same as files:
    OUT/figures (PNG, SVG) and OUT/tables (CSV, LaTeX). What was not measured is said,
    with the command that measures it.

    Args:
      runs: Directories with scores.json (`jaxunlearn evaluate`), attack.json
        (`jaxunlearn attack`), unlearning.json (`jaxunlearn unlearn`), losses.jsonl or
        influence_track.npz (`jaxunlearn train`, the second by `--track`), or such files
        under any name. Files of different forms with one name are one run.
      out: Directory for the page; files of the same names there are replaced.
      names: What to call the runs: one a run.
    """
    from jaxunlearn.report import read_runs, write_comparison

    check_folder("out", out)
    found = read_runs(runs, names=listed(names) or None)
    with working("Drawing"):
        page = write_comparison(found, out)
    tell(found)
    say(f"Report: {page}")
    return 0


def tell(runs: "list[ComparedRun]") -> None:
    """Print what the scores and attacks say of each run."""
    from jaxunlearn.report import sentence_of

    for run in runs:
        sentence = sentence_of(run) or "Nothing to compare with a retrained model."
        say(f"{run.name}: {sentence}")
