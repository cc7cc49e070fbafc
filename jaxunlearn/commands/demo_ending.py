"""How the demo ends: the closing table, and what to do next."""

import shlex
import sys
from pathlib import Path

from jaxunlearn.commands.console import console
from jaxunlearn.files import write_text
from jaxunlearn.report import console_table, loss_rows, verdict

MODELS = (
    '--model "$D"/models/unlearned --reference "$D"/models/retrained '
    '--original "$D"/models/trained --forget "$D"/records/forget.json '
    '--holdout "$D"/records/unseen.json'
)
MEASURING = (
    f'jaxunlearn evaluate {MODELS} --retain "$D"/records/retain.json '
    '--out "$D"/evaluation/scores.json',
    f'jaxunlearn attack {MODELS} --out "$D"/evaluation/attack.json',
    'jaxunlearn report "$D"/evaluation',
)
"""What to do next with the demo's folder D."""

OWN_FILES = (
    "jaxunlearn train --model MODEL_OR_CONFIG --data RECORDS --out RUN",
    "jaxunlearn unlearn --method first_epoch --run RUN --model RUN/model --request "
    "'everything about NAME' --retain KEEP --unseen LOOKALIKES --out UNLEARNED",
)


def next_steps(out: Path) -> list[str]:
    """Return the commands to go on with on this world, then on one's own files."""
    quoted = shlex.quote(str(out))
    return [
        *(command.replace('"$D"', quoted) for command in MEASURING),
        *OWN_FILES,
    ]


def write_next_steps(out: Path) -> Path:
    """Write the commands that measure this world's models as a shell script."""
    path = out / "next-steps.sh"
    lines = [
        "#!/bin/sh",
        "# Measure what is left in the unlearned model: some minutes.",
        "set -eu",
        'D=$(dirname "$0")',
        f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        *MEASURING,
    ]
    write_text(path, "\n".join(lines) + "\n")
    return path


def tell_results(results: dict, page: Path, out: Path) -> None:
    """Print what came out, and what to do next."""
    console.print()
    # Narrow enough for eighty columns; the report has the rest.
    rows = [
        {
            name: row[name]
            for name in row
            if name not in ("way to target", "retain change")
        }
        for row in loss_rows(results)
    ]
    title = "Facts answered right, and mean loss in nats a token"
    console.print(console_table(rows, title=title))
    found = verdict(results)
    console.print(found.headline, style="bold")
    for sentence in found.sentences:
        console.print(sentence)
    for name, outcome in results["outcomes"].items():
        if outcome["status"] not in ("reached", "already"):
            console.print(f"{name}: {outcome['explanation']}")
    script = write_next_steps(out)
    told = [
        f"\nReport:  {page}",
        f"Numbers: {out / 'results.json'}",
        "\nMeasure what is left in the unlearned model, some minutes:",
        f"  sh {shlex.quote(str(script))}",
        "\nThen with your own files:",
        *(f"  {command}" for command in OWN_FILES),
    ]
    # Never wrapped: these lines are there to be copied.
    for line in told:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
