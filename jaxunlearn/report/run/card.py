"""The model card of an unlearned model: what was done, how and at what price.

It is written from what ``unlearning.json`` says, so it holds no forgotten text.
"""

import json
from collections.abc import Mapping
from typing import Any

KEPT = ("license", "license_name", "license_link", "language")
"""What of the front matter of the card of the model before holds for this one."""


def model_card(told: Mapping[str, Any], *, source: Mapping[str, Any]) -> str:
    """Return a README.md with the front matter that the Hugging Face hub reads.

    Args:
      told: The contents of unlearning.json.
      source: The front matter of the card of the model that it was made from, with
        ``base_model`` where that has a name on the hub.
    """
    front = {
        **{name: source[name] for name in KEPT if names_something(source.get(name))},
        "library_name": "transformers" if removes(told) else "jaxunlearn",
        "pipeline_tag": "text-generation",
        "tags": ["machine-unlearning", "jaxunlearn"],
    }
    if names_something(source.get("base_model")):
        front["base_model"] = source["base_model"]
    # JSON is YAML, and quotes what a licence's name may hold.
    matter = [f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in front.items()]
    before, after = told["losses"]["before"], told["losses"]["after"]
    losses = [
        f"| {name} | {before[name]:.4f} | {after[name]:.4f} | "
        f"{after[name] - before[name]:+.4f} |"
        for name in before
    ]
    versions = ", ".join(f"{k} {v}" for k, v in told["versions"].items())
    return "\n".join(
        [
            "---",
            *matter,
            "---",
            "",
            *what_it_is(told),
            "",
            "## What was done",
            "",
            *done(told),
            "",
            "## At what price",
            "",
            "Mean loss in nats a token: of the records to forget, of records to keep "
            "(retain), and of records like the forgotten ones that the model never saw "
            "(unseen), where they were given.",
            "",
            "| records | before | after | change |",
            "| --- | --- | --- | --- |",
            *losses,
            "",
            *([f"**{told['warning']}**", ""] if told.get("warning") else []),
            "## Beside retraining",
            "",
            "A loss says how likely the forgotten texts are, not that nothing is left. "
            "This folder was not held against a model retrained without the records; "
            "`jaxunlearn evaluate --model . --reference RETRAINED` and `jaxunlearn "
            "attack` do that.",
            "",
            "## Made with",
            "",
            f"{versions}. Seconds: {told['seconds']:.0f}. SHA-256 of the parameters "
            f"before: `{told['model']['params_sha256']}`, after: "
            f"`{told['result']['params_sha256']}`.",
            "",
        ]
    )


def what_it_is(told: Mapping[str, Any]) -> list[str]:
    """Return title and first words: what was done to the examples, or only seems so."""
    if removes(told):
        return [
            "# An unlearned model",
            "",
            f"The influence of {examples(told)} was removed from a trained model with "
            "jaxunlearn. What they say stands in no file here; `unlearning.json` "
            "holds their positions and SHA-256.",
        ]
    return [
        "# A model that withholds",
        "",
        f"What {examples(told)} taught a model is suppressed at inference, and was not "
        "removed: `own/` holds the weights as they were, `reinforced/` those of the "
        "same model trained further on these examples. Keep this folder like the "
        "training data. `jaxunlearn.unlearning.load_wrapper` reads it; "
        "`unlearning.json` holds the examples' positions and SHA-256.",
    ]


def removes(told: Mapping[str, Any]) -> bool:
    """Say whether the weights lost what was to be forgotten."""
    return told.get("removes", True)


def examples(told: Mapping[str, Any]) -> str:
    """Return how many examples were removed, of how many."""
    count, total = len(told["matched"]), told.get("data_records")
    noun = "training example" if count == 1 else "training examples"
    return (
        f"{count} {noun}" if total is None else f"{count} of {total} training examples"
    )


def done(told: Mapping[str, Any]) -> list[str]:
    """Return the method and its settings as a list."""
    settings = {"layers": told["layers"], **told["settings"], "scale": told["scale"]}
    target = told["target"]
    aim = []
    if target is not None:
        loss, meaning = target["forget_loss"], target["meaning"]
        aim = [f"* Forget loss to reach: {loss:.4f} ({meaning})."]
    return [
        f"* Method: {told['method']}; status: {told['status']}. {told['explanation']}",
        *(f"* {k}: `{json.dumps(v)}`" for k, v in settings.items() if v is not None),
        *aim,
    ]


def names_something(value: Any) -> bool:
    """Say whether a value of front matter is a text, or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and one for one in values)
