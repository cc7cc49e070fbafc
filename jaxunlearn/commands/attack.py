"""``jaxunlearn attack``: try to bring back what a model was made to forget."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxunlearn.commands.arguments import listed
from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.display import display_of, typed_command
from jaxunlearn.commands.outputs import check_output
from jaxunlearn.evaluation.attacks.inputs import Settings
from jaxunlearn.evaluation.attacks.judgement import LEAST_EXCESS
from jaxunlearn.evaluation.attacks.series import NOT_ASKED
from jaxunlearn.evaluation.attacks.series import attack as attack_model
from jaxunlearn.evaluation.display import Display
from jaxunlearn.report import console_table

READ = "forget related unrelated holdout context paraphrases prefixes".split()
MODELS = ("model", "reference", "original")


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
    steps: int = Settings.steps
    learning_rate: float = Settings.learning_rate
    relearning_batch_size: int = Settings.relearning_batch_size
    samples: int = Settings.samples
    temperature: float = Settings.temperature
    offset_steps: int = Settings.offset_steps
    max_length: int | None = None
    batch_size: int = Settings.batch_size
    seed: int = Settings.seed


def attack(options: Options) -> int:
    """Attack a model that was made to forget, beside one that never knew.

    Every attack is run on the model and on the reference; what it gets from the model
    beyond what it gets from the reference had not been forgotten. Writes the results
    after each attack, so that the same command goes on where it was interrupted;
    `jaxunlearn report` draws them.
    """
    given = {name: getattr(options, name) for name in (*READ, *MODELS)}
    numbers = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: getattr(options, name) for name in numbers})
    inputs = {name: given[name] for name in READ}
    check_output("out", options.out, ".json", inputs=inputs, kind="attack")
    display = display_of(attack)
    found = attack_model(
        **given,
        attacks=listed(options.attacks),
        settings=settings,
        out=options.out,
        about={
            "model": options.model,
            "reference": ", ".join(options.reference),
            "command": typed_command(),
        },
        display=display,
    )
    show(found, display)
    say(f"Attacks: {options.out}")
    return 0


def show(found: dict[str, Any], display: Display) -> None:
    """Print what came back, and what could not be run."""
    rows = [
        {
            "attack": entry["name"],
            "excess": entry["excess"]["value"],
            "interval": "{low:.3g} to {high:.3g}".format(**entry["excess"]),
            "added": (entry["added"] or {}).get("value"),
            "recovers": entry["recovers"],
        }
        for entry in found["attacks"]
    ]
    if rows:
        title = "What comes back beyond what the retrained model gives"
        console.print(console_table(rows, title=title))
        console.print(
            f"Intervals hold for all attacks together, with 95 %; it recovers "
            f"where one lies above {LEAST_EXCESS}."
        )
    for name, reason in found["not_run"].items():
        if reason != display.spelled(NOT_ASKED):
            say(f"not run: {name}: {reason}")
