"""Write the page that says how the paper's claims fared, from the JSON files alone.

Command:  python -m experiments.paper.summary [--results DIR] [--out DIR]
Time:     a second

Reads RESULTS/CLAIM.json of each experiment that was run, and writes OUT/README.md. No
number of the page is typed: run the experiments again and then this.
"""

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments.paper.summary_claims import (
    NOT_RUN,
    TINY,
    command,
    parted,
    section,
    table,
)
from experiments.paper.summary_texts import LIMITS, PAPER, TEXTS, TOFU_LIMIT
from jaxunlearn.files import write_text
from jaxunlearn.intervals import LEVEL

HERE = Path(__file__).parent
NEEDED = ("verdicts", "size", "seed", "seconds", "versions", "results")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the page.

    Attributes:
      results: Folder of CLAIM.json and CLAIM.png.
      out: Folder that gets README.md.
    """

    results: Path = HERE / "results"
    out: Path = HERE


def main(options: Options) -> Path:
    """Write the page and return its path."""
    found = read(options.results)
    figures = os.path.relpath(options.results, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "README.md"
    write_text(path, page(found, figures=Path(figures).as_posix()))
    missing = [claim for claim in TEXTS if claim not in found]
    print(f"{path}: {len(found)} claims; {NOT_RUN}: {', '.join(missing) or 'none'}")
    return path


def read(folder: Path) -> dict[str, dict]:
    """Return what the experiments wrote, by claim; those not run are absent.

    Raises:
      FileNotFoundError: There is no such folder.
      ValueError: A file is not what an experiment writes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"results={folder}: no such folder; `python -m experiments.paper.CLAIM` "
            f"makes it, for CLAIM in {', '.join(TEXTS)}"
        )
    found = {}
    for claim in TEXTS:
        path = folder / f"{claim}.json"
        if not path.is_file():
            continue
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON ({error}): run it again") from error
        lacking = [name for name in NEEDED if name not in value]
        if lacking:
            raise ValueError(f"{path} has no {', '.join(lacking)}: run it again")
        found[claim] = value
    return found


def page(found: Mapping[str, Mapping], *, figures: str) -> str:
    """Return the page in Markdown.

    Args:
      found: Claim -> what its experiment wrote; those not run are absent.
      figures: Path of the folder of figures, relative to the page.
    """
    sections = [section(claim, found.get(claim), figures) for claim in TEXTS]
    parts = [
        "# The paper's claims, put to the test",
        introduction(found),
        "## Verdicts",
        verdict_table(found),
        "## The laboratory",
        laboratory(found),
        *sections,
        "## Limits",
        limits(found),
        "## To run it again, and to cite it",
        again(found),
    ]
    return wrapped("\n\n".join(part for part in parts if part)) + "\n"


def introduction(found: Mapping[str, Mapping]) -> str:
    """Say what was tested, and that this page is made."""
    return (
        f'Zagardo, ["A More Practical Approach to Machine Unlearning"]({PAPER}), adds '
        f"the gradients of unwanted examples, recorded in the first epoch, back to "
        f"GPT-2's parameters. Its abstract makes {len(TEXTS)} claims; here each is an "
        f"experiment that can fail, judged beside models that were really retrained "
        f"without the examples and, where ways to unlearn are compared, at the forget "
        f"loss of those. {len(found)} of {len(TEXTS)} were run. "
        f"`python -m experiments.paper.summary` writes this page from `results/*.json`."
    )


# --- verdicts -----------------------------------------------------------------------


def settings_of(found: Mapping[str, Mapping]) -> list[str]:
    """Return every world and optimiser that occurs, in order of appearance."""
    names = [parted(name)[0] for value in found.values() for name in value["verdicts"]]
    worlds = list(dict.fromkeys(name.split(", ")[0] for name in names))
    unique = dict.fromkeys(names)
    return sorted(unique, key=lambda name: worlds.index(name.split(", ")[0]))


def verdict_table(found: Mapping[str, Mapping]) -> str:
    """Return claim by setting; the reasons stand with each claim's numbers."""
    settings = settings_of(found)
    rows = []
    for number, (claim, text) in enumerate(TEXTS.items(), 1):
        name = f"[{number}](#{claim})."
        if claim not in found:
            rows.append([f"{name} {text.title}", *[NOT_RUN] * len(settings)])
            continue
        by_part: dict[str, dict[str, Mapping]] = {}
        for setting, verdict in found[claim]["verdicts"].items():
            own, part = parted(setting)
            by_part.setdefault(part, {})[own] = verdict
        for part, verdicts in by_part.items():
            cells = [verdicts[s]["verdict"] if s in verdicts else "" for s in settings]
            title = part[:1].upper() + part[1:] if part else text.title
            rows.append([f"{name} {title}", *(f"**{c}**" if c else "–" for c in cells)])
    return table(["Claim", *settings], rows)


def wrapped(text: str) -> str:
    """Return Markdown with its paragraphs and list items in lines of 100 columns.

    Tables, figures, headings and code stay as they are.
    """
    lines, code = [], False
    for line in text.split("\n"):
        code ^= line.startswith("```")
        if code or line.startswith(("```", "|", "!", "<", "#")):
            lines.append(line)
            continue
        lines += textwrap.wrap(
            line,
            100,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


# --- the laboratory -----------------------------------------------------------------


def laboratory(found: Mapping[str, Mapping]) -> str:
    """Describe the laboratories, one for each size and seed that were used."""
    sizes: dict[str, list[str]] = {}
    for claim, value in found.items():
        key = json.dumps([value["size"], value["seed"]], sort_keys=True)
        sizes.setdefault(key, []).append(claim)
    parts = []
    for key, claims in sizes.items():
        size, seed = json.loads(key)
        name = f"Size `{size['name']}`, seed {seed}"
        told = f"{name} ({', '.join(claims)}):" if len(sizes) > 1 else f"{name}:"
        parts.append(f"{told}\n\n{described(size)}")
    return "\n\n".join(parts)


def described(size: Mapping[str, Any]) -> str:
    """Return five lines on a laboratory."""
    rates = ", ".join(f"{name} {rate:g}" for name, rate in size["learning_rates"])
    lines = [
        f"**Model**: GPT-2 with {size['layers']} blocks, width {size['width']}, "
        f"{size['heads']} heads, at most {size['vocabulary']} tokens of vocabulary, "
        f"{size['length']} tokens an example (more where a world's texts are longer).",
        f"**Worlds**: invented people (`synthetic`) and the authors of TOFU (`tofu`); "
        f"{size['pretraining_steps']} steps of pretraining on {size['public']} people "
        f"(TOFU: on all other authors), then {size['epochs']} epochs on "
        f"{size['groups']} people with {size['facts']} examples each, in batches of "
        f"{size['batch_size']} (learning rates: {rates}); {size['unseen']} people that "
        f"no model sees.",
        f"**Seeds**: {size['seeds']}; each forgets another person and has another "
        f"order of the data. Intervals are {100 * LEVEL:g} % Student-t intervals over "
        f"them, of paired differences where models are compared.",
        "**Matched**: every way to unlearn goes to the forget loss of the retrained "
        "model, seed by seed; what is compared is the price. A seed that does not get "
        "there is counted, not dropped.",
        "**Retrained**: for each seed a model really trained from the same start, "
        "without the person, stands beside.",
    ]
    return "\n".join(f"- {line}" for line in lines)


# --- the end ------------------------------------------------------------------------


def limits(found: Mapping[str, Mapping]) -> str:
    """Return how far the page reaches."""
    lines = list(LIMITS)
    if any(name.startswith("tofu") for name in settings_of(found)):
        lines.append(TOFU_LIMIT)
    devices = {value["versions"].get("device", "unknown") for value in found.values()}
    sizes = {value["size"]["name"] for value in found.values()}
    told = f" These numbers come from {', '.join(sorted(devices))}." if devices else ""
    if "small" not in sizes:
        lines.append(
            f"**Not measured on a GPU.** `--size small`, GPT-2 in full shape, is "
            f"written and untested.{told}"
        )
    if "smoke" in sizes:
        lines.append("**A claim was run at `--size smoke`**, which shows nothing.")
    return "\n".join(f"- {line}" for line in lines)


def again(found: Mapping[str, Mapping]) -> str:
    """Return the commands, and an entry for a bibliography."""
    commands = [command(claim, found.get(claim, TINY)) for claim in TEXTS]
    versions = {value["versions"].get("jaxunlearn", "") for value in found.values()}
    version = ", ".join(sorted(versions - {""})) or "of the checkout"
    return "\n".join(
        [
            "The experiments share their models (`--cache`), so the first one of a "
            "world takes longest. `--worlds synthetic` needs no data.",
            "",
            "```",
            *commands,
            "python -m experiments.paper.summary",
            "```",
            "",
            "```bibtex",
            "@software{jaxunlearn,",
            "  title = {jaxunlearn: claims of first-epoch gradient ascent, tested},",
            f"  version = {{{version}}},",
            "  note = {experiments/paper; name the commit and the size}",
            "}",
            "```",
        ]
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        print(f"summary: error: {error}", file=sys.stderr)
        sys.exit(2)
