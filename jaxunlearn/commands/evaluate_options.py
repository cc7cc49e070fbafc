"""The options of ``jaxunlearn evaluate``, checked before anything is read."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxunlearn.commands.outputs import check_folder, check_output


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn evaluate``.

    Attributes:
      out: The .json file for the scores.
      model: Hugging Face directory of the model to evaluate. Several, of one method
        with different seeds, are compared as an ensemble with --retrain or --reference.
      forget: Records that were to be forgotten. With paraphrased_answer and
        perturbed_answer (TOFU's *_perturbed.json) truth ratios are measured too.
      retain: Records that were to be kept.
      real_authors: TOFU's real_authors_perturbed.json.
      world_facts: TOFU's world_facts_perturbed.json.
      holdout: Records like the forgotten ones that no model saw, for membership scores.
      reference: Model trained without the forgotten records; several are better.
      original: The model before unlearning.
      run: Training run of the original, from `jaxunlearn train`; what --retrain needs.
      retrain: Retrain so many models without the forgotten records and compare.
      retrained: Where those models are kept, and found again. Default: beside --out.
      from_logs: An evaluation log (of OpenUnlearning or TOFU) in place of a model.
      reference_logs: The log of a model trained without the forgotten records.
      metrics: Scores that have to be there; an error says beforehand what they lack.
      write_logs: Also write OpenUnlearning's layout, question by question, here.
      name: What the report calls the model.
      examples: How many examples of each set are kept with answers and token losses.
      gradient_norm: Also the gradient-norm membership score: a backward pass each.
      max_new_tokens: Most tokens of an answer.
      max_length: Most tokens of an example; by default what the model takes.
      batch_size: Examples at a time.
      words: What counts as a word of ROUGE: unicode, letters and digits of any script,
        or open_unlearning, a-z and 0-9, by which published numbers were made. By
        default unicode of a model, and of a log what it was written with.
    """

    out: Path
    model: tuple[str, ...] = ()
    forget: str | None = None
    retain: str | None = None
    real_authors: str | None = None
    world_facts: str | None = None
    holdout: str | None = None
    reference: tuple[str, ...] = ()
    original: str | None = None
    run: Path | None = None
    retrain: int = 0
    retrained: Path | None = None
    from_logs: Path | None = None
    reference_logs: Path | None = None
    metrics: tuple[str, ...] = ()
    write_logs: Path | None = None
    name: str | None = None
    examples: int = 8
    gradient_norm: bool = False
    max_new_tokens: int = 200
    max_length: int | None = None
    batch_size: int = 16
    words: Literal["unicode", "open_unlearning"] | None = None

    def check(self) -> None:
        """Refuse options that contradict one another."""
        if bool(self.model) == (self.from_logs is not None):
            raise ValueError(
                "name what to evaluate: --model DIR with --forget FILE and --retain "
                "FILE, or --from-logs FILE (one of the two)"
            )
        if self.from_logs is not None:
            given = [
                name
                for name in ("forget", "retain", "holdout", "original", "run")
                if getattr(self, name) is not None
            ] + [name for name in ("reference", "retrain") if getattr(self, name)]
            if given:
                raise ValueError(
                    f"--from-logs reads no model and no records: leave out --"
                    f"{', --'.join(given)}; a reference is given by --reference-logs"
                )
        elif self.forget is None:
            raise ValueError("--model needs --forget FILE, the forgotten records")
        self.check_files()

    def check_files(self) -> None:
        """Refuse outputs that are inputs, or that could not be written."""
        names = ("forget", "retain", "real_authors", "world_facts", "holdout")
        inputs = {
            name.replace("_", "-"): getattr(self, name)
            for name in (*names, "from_logs", "reference_logs")
        }
        check_output("out", self.out, ".json", inputs=inputs, kind="scores")
        logs, others = self.write_logs, inputs | {"out": self.out}
        settings = {"inputs": others, "kind": "evaluation log", "ours": is_log}
        check_output("write-logs", logs, ".json", **settings)
        if self.retrained is not None:
            check_folder("retrained", self.retrained)


def is_log(value: Any) -> bool:
    """Say whether JSON is a log as --write-logs writes it."""
    return isinstance(value, dict) and any(
        isinstance(block, dict) and "agg_value" in block for block in value.values()
    )
