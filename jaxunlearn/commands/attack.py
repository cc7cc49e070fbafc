"""``jaxunlearn attack``: try to bring back what a model was made to forget."""

import dataclasses
import difflib
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from jaxunlearn.commands.arguments import check_number, listed
from jaxunlearn.commands.attack_inputs import RECORDS, Inputs, prepare, read_given
from jaxunlearn.commands.console import console, say, working
from jaxunlearn.commands.outputs import check_output
from jaxunlearn.locks import locked_file
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table
from jaxunlearn.report.comparison.format import SHAPES, check
from jaxunlearn.sealed import read_sealed, write_sealed

FORMAT = "jaxunlearn attack"
LEVEL = 0.95
RESAMPLES = 5000
MOST, MOST_STEPS = 65_536, 10**6
"""Of what is held in memory at a time, and of steps: more is a slip of the finger."""
LEAST_EXCESS = 0.01
"""Of metrics that all go from 0 to 1; less is no recovery, however sure it is."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn attack``.

    Attributes:
      model: Hugging Face directory of the model that was made to forget.
      forget: The records it was made to forget.
      out: The .json file for the results.
      reference: Model retrained without these records, which is attacked alike. Several
        are better: the one that leaves the least excess counts, while beside a single
        one what two seeds make of the same data may pass for a small recovery.
      related: Text about the same things, without the forgotten; for relearn_related.
      unrelated: Text about other things; for relearn_unrelated and context.
      holdout: Records like the forgotten that no model saw; for membership_probe.
      original: The model before unlearning: its curves are drawn too.
      context: Texts told in front of the question, in place of the other forgotten
        records; for context.
      prefixes: Words to put in front of prompts, one a line, in place of the built-in.
      paraphrases: Records whose prompts stand for those of --forget, in their order.
      attacks: Which, by name: relearn_forget, relearn_related, relearn_unrelated,
        quantization, context, prefixes, paraphrases, sampling, embedding, logit_lens,
        membership_probe. By default all that the files allow.
      steps: Of relearning; measured at 0, 1, 2, 4, ... of them.
      learning_rate: Of relearning, by AdamW.
      relearning_batch_size: Examples a relearning step.
      samples: Answers drawn, and first tokens tried, a prompt.
      temperature: Of the draws.
      offset_steps: Of the search for an offset of the prompt embeddings.
      max_length: Most tokens of an example; by default what the models take.
      batch_size: Examples at a time where nothing is learned.
      seed: Of the halves, the order of relearning, the contexts and the draws.
    """

    model: str
    forget: str
    out: Path
    reference: tuple[str, ...] = ()
    related: str | None = None
    unrelated: str | None = None
    holdout: str | None = None
    original: str | None = None
    context: str | None = None
    prefixes: str | None = None
    paraphrases: str | None = None
    attacks: tuple[str, ...] = ()
    steps: int = 32
    learning_rate: float = 1e-4
    relearning_batch_size: int = 8
    samples: int = 16
    temperature: float = 1.0
    offset_steps: int = 64
    max_length: int | None = None
    batch_size: int = 32
    seed: int = 0

    def check(self) -> list[str]:
        """Refuse what cannot be run; return the attacks asked for by name."""
        from jaxunlearn.commands.attack_table import ATTACKS

        if not self.reference:
            raise ValueError(
                "--reference DIR is needed, a model retrained without the forgotten "
                "records: only what comes back beyond what it gives was ever there"
            )
        named = listed(self.attacks)
        for name in named:
            if name not in ATTACKS:
                near = difflib.get_close_matches(name, ATTACKS, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise ValueError(
                    f"--attacks {name}: unknown; {hint}one of {', '.join(ATTACKS)}"
                )
        for name in ("steps", "offset_steps"):
            check_number(name, getattr(self, name), 1, MOST_STEPS)
        for name in ("samples", "batch_size", "relearning_batch_size"):
            check_number(name, getattr(self, name), 1, MOST)
        check_number("seed", self.seed, 0, 2**32 - 1)
        check_number("max_length", self.max_length, 2)
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} {value}: a number above 0")
        read = ("forget", *RECORDS, "prefixes")
        inputs = {name: getattr(self, name) for name in read}
        check_output("out", self.out, ".json", inputs=inputs, kind="attack")
        return named


def attack(options: Options) -> int:
    """Attack a model that was made to forget, beside one that never knew.

    Every attack is run on the model and on the reference; what it gets from the model
    beyond what it gets from the reference had not been forgotten. Writes the results
    after each attack, so that the same command goes on where it was interrupted;
    `jaxunlearn report` draws them.
    """
    from jaxunlearn.commands.attack_table import ATTACKS

    named = options.check()
    records = read_given(options)
    lacking = {name: ATTACKS[name].lacks(records) for name in ATTACKS}
    for name in named:
        if lacking[name] is not None:
            raise ValueError(f"--attacks {name} {lacking[name]}")
    inputs = prepare(options, records)
    wanted = [n for n in ATTACKS if lacking[n] is None and n in (named or ATTACKS)]
    with locked_file(options.out):
        return attacked(options, inputs, wanted, lacking)


def attacked(
    options: Options,
    inputs: Inputs,
    wanted: list[str],
    lacking: dict[str, str | None],
) -> int:
    """Run the attacks that are not in the file yet, and write it after each."""
    about = about_of(options, inputs)
    found = finished(options.out, about)
    done = {entry["attack"] for entry in found}
    if done:
        say(f"Taking up {options.out}, which has {', '.join(sorted(done))}.")
    for name in wanted:
        if name in done:
            continue
        found += entries_of(name, inputs, options)
        done.add(name)
        write(options.out, about, found, lacking, done)
    write(options.out, about, found, lacking, done)
    show(found, lacking)
    say(f"Attacks: {options.out}")
    return 0


def about_of(options: Options, inputs: Inputs) -> dict[str, Any]:
    """Return what the results are of; ``inputs`` decides whether they can be kept."""
    settings = dataclasses.asdict(options)
    for name in ("out", "attacks", "model", "forget", "reference", "original"):
        del settings[name]
    for name in ("related", "unrelated", "holdout", "context"):
        del settings[name]  # what is in the files counts
    del settings["prefixes"], settings["paraphrases"]
    return {
        "format": FORMAT,
        "model": options.model,
        "name": inputs.model.name,
        "reference": ", ".join(options.reference),
        "command": shlex.join(["jaxunlearn", *sys.argv[1:]]),
        "versions": versions(),
        "inputs": inputs.fingerprint | {"settings": settings},
    }


def finished(path: Path, about: dict[str, Any]) -> list[dict]:
    """Return the entries that an earlier run with the same inputs wrote."""
    if not path.exists():
        return []
    earlier = read_sealed(
        path,
        attack_file,
        remedy="name another --out, or delete it to attack again",
        unsealed=lambda found: True,  # as earlier versions wrote it
    )
    if earlier["about"].get("inputs") != json.loads(json.dumps(about["inputs"])):
        say(f"{path} is of other inputs or options and is written anew.")
        return []
    return earlier["attacks"]


def attack_file(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds, if it is one that attacks wrote."""
    about = found.get("about")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError("it is no attack file")
    check(found, SHAPES["attack"], "in it")
    return found


def entries_of(name: str, inputs: Inputs, options: Options) -> list[dict]:
    """Run one attack on every model; return what the file says of it."""
    from jaxunlearn.commands.attack_table import ATTACKS
    from jaxunlearn.evaluation.attacks import curve, recovery

    attacked = ATTACKS[name]
    runs: dict[str, list] = {"model": [], "reference": [], "original": []}
    for role, one in inputs.models():
        with working(f"{name}: {role} {one.name}"):
            runs[role].append((one.name, attacked.run(inputs, options, one)))
    say(f"{name}: done")
    entries = []
    for position, entry in enumerate(attacked.entries):
        ours = runs["model"][0][1][position]
        options_of = {"starts_unattacked": entry.starts_unattacked}
        together = {
            "level": family_level(),
            "resamples": RESAMPLES,
            "least": LEAST_EXCESS,
        }
        against = [
            (
                recovery(ours, found[position], **options_of, **together),
                found,
                reference,
            )
            for reference, found in runs["reference"]
        ]
        least, found, reference = min(against, key=lambda one: one[0].excess.low)
        theirs = found[position]
        # Only the verdict has to hold for all attacks together.
        alone = recovery(ours, theirs, **options_of)
        curves = {"model": ours, "reference": theirs}
        if runs["original"]:
            curves["original"] = runs["original"][0][1][position]
        entries.append(
            {
                "attack": name,
                "name": entry.name,
                "x": entry.x,
                "metric": entry.metric,
                "higher_is_recovered": True,
                "curves": {
                    of: [point._asdict() for point in curve(values)]
                    for of, values in curves.items()
                },
                "excess": least.excess._asdict(),
                "unattacked": alone.unattacked and alone.unattacked._asdict(),
                "added": alone.added and alone.added._asdict(),
                "recovers": least.recovers,
                "reference": reference,
                "note": entry.note,
            }
        )
    return entries


def family_level() -> float:
    """Return the level of one interval by which all of them together have 95 %.

    Bonferroni's, over the entries of every attack, whichever are run: a dozen verdicts
    at 95 % each would find something in every other model that never knew a thing.
    """
    from jaxunlearn.commands.attack_table import ATTACKS

    entries = sum(len(attacked.entries) for attacked in ATTACKS.values())
    return 1 - (1 - LEVEL) / entries


def write(
    path: Path,
    about: dict[str, Any],
    found: list[dict],
    lacking: dict[str, str | None],
    done: set[str],
) -> None:
    """Write the file whole."""
    not_run = {
        name: reason or "not among --attacks, or not yet run"
        for name, reason in lacking.items()
        if name not in done
    }
    write_sealed(path, {"about": about, "attacks": found, "not_run": not_run})


def show(found: list[dict], lacking: dict[str, str | None]) -> None:
    """Print what came back, and what was not run."""
    rows = [
        {
            "attack": entry["name"],
            "excess": entry["excess"]["value"],
            "interval": "{low:.3g} to {high:.3g}".format(**entry["excess"]),
            "added": (entry["added"] or {}).get("value"),
            "recovers": entry["recovers"],
        }
        for entry in found
    ]
    if rows:
        title = "What comes back beyond what the retrained model gives"
        console.print(console_table(rows, title=title))
        console.print(
            f"Intervals hold for all attacks together, with 95 %; it recovers "
            f"where one lies above {LEAST_EXCESS}."
        )
    for name, reason in lacking.items():
        if reason is not None:
            say(f"not run: {name}: {reason}")
