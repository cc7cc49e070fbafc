"""A claim's part of the page that says how the paper's claims fared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper.summary_texts import TEXTS

NOT_RUN = "not run"
TINY = {"size": {"name": "tiny"}, "seed": 0, "verdicts": {}}
"""What an experiment that was not run would have noted, as far as its command goes."""


def section(claim: str, value: Mapping[str, Any] | None, figures: str) -> str:
    """Return a claim's part of the page."""
    text, number = TEXTS[claim], list(TEXTS).index(claim) + 1
    parts = [
        f'<a id="{claim}"></a>',
        f"## {number}. {text.title}",
        f"**The abstract, in our words.** {text.abstract}",
    ]
    if value is None:
        told = f"**{NOT_RUN.capitalize()}.** `{command(claim, TINY)}`"
        return "\n\n".join([*parts, told])
    numbers = [
        f"- *{setting}*: **{verdict['verdict']}**. {verdict['because']}"
        for setting, verdict in value["verdicts"].items()
    ]
    versions = value["versions"]
    parts += [
        f"![{text.title}]({figures}/{claim}.png)",
        f"**What was run.** {text.run}",
        "**The numbers.**\n\n" + "\n".join(numbers),
        *tables(claim, value["results"]),
        f"**What it does not show.** {text.limits}",
        f"`{command(claim, value)}` took {value['seconds'] / 60:.0f} minutes (less "
        f"where models were found made) on {versions.get('device', 'one device')} with "
        f"jax {versions.get('jax', 'of unknown version')}; all values, by seed: "
        f"[{claim}.json]({figures}/{claim}.json).",
    ]
    return "\n\n".join(parts)


def command(claim: str, value: Mapping[str, Any]) -> str:
    """Return the command of an experiment, from what it noted.

    >>> told = {"size": {"name": "tiny"}, "seed": 1, "verdicts": {"tofu, sgd": ""}}
    >>> command("epochs", told)
    'JAXUNLEARN_DATA=DIR python -m experiments.paper.epochs --size tiny --seed 1 \
--worlds tofu'
    """
    worlds = sorted({parted(name)[0].split(", ")[0] for name in value["verdicts"]})
    data = "" if worlds == ["synthetic"] else "JAXUNLEARN_DATA=DIR "
    told = f"{data}python -m experiments.paper.{claim} --size {value['size']['name']}"
    if value["seed"] != 0:
        told += f" --seed {value['seed']}"
    return told + (f" --worlds {worlds[0]}" if len(worlds) == 1 else "")


def tables(claim: str, results: Mapping[str, Any]) -> list[str]:
    """Return further tables of a claim: of the scores, a verdict each."""
    if claim != "scores":
        return []
    levels = {
        f"{level} ({setting})": judged
        for setting, result in results.items()
        for level, judged in result["judged"]["of level"].items()
    }
    times = [result["steps"] for result in results.values()]
    rows = [
        [
            f"`{name}`",
            *(judged[name] for judged in levels.values()),
            f"{np.mean([time[name] for time in times]):.1f}",
        ]
        for name in times[0]
    ]
    return [table(["score", *levels, "time (training steps)"], rows)]


def parted(setting: str) -> tuple[str, str]:
    """Return world and optimiser of a verdict's name, and the part of the claim.

    >>> parted("tofu, sgd: embedding crucial"), parted("tofu, sgd")
    (('tofu, sgd', 'embedding crucial'), ('tofu, sgd', ''))
    """
    setting, _, part = setting.partition(": ")
    return setting, part


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    >>> print(table(["a"], [["x|y"]]))
    | a |
    | --- |
    | x\\|y |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(x).replace("|", "\\|") for x in line) + " |"
        for line in lines
    )
