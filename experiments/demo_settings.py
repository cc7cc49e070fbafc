"""What the demo's choices rest on: other layers, parts, epochs of gradients, recipes.

Command:  python experiments/demo_settings.py jaxunlearn-demo  (after jaxunlearn demo)
Time:     a minute on two idle cores, two with a recipe of its own

Takes the demo's run in DEMO, trains it again where another recipe is given (--epochs,
--learning-rate, --schedule), and unlearns at the demo's target, the trained model's
loss on people it never saw, by the gradients of other layers, parts and epochs. Prints
which facts are left and the losses; BUILD_NOTES.md has the numbers of three seeds.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import tyro

from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_measures import measures
from jaxunlearn.commands.demo_story import MAX_LENGTH
from jaxunlearn.data import prompt_and_completion, read_records, subset, tokenize
from jaxunlearn.evaluation import known_facts
from jaxunlearn.evaluation.text.greedy import answers
from jaxunlearn.files import read_json
from jaxunlearn.models import load_pretrained
from jaxunlearn.report import console_table
from jaxunlearn.training import open_run, replayed_gradient, train
from jaxunlearn.unlearning import first_epoch
from jaxunlearn.unlearning.comparison import NO_LIMITS

WAYS = {
    "output part": ("^wte/", "output"),
    "input part": ("^wte/", "input"),
    "tied embedding": ("^wte/", "tied"),
    "first block": ("^h/0/", "tied"),
    "last block": ("^h/1/", "tied"),
    "everything": (".", "tied"),
}
ROOM = 32  # tokens for an answer; the longest true one has 20


def main(
    demo: tyro.conf.Positional[Path],
    *,
    epochs: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
) -> int:
    """Print one row a way to unlearn: facts known, facts of others lost, losses."""
    run = open_run(demo / "run")
    changed = {
        name: value
        for name, value in {
            "epochs": epochs,
            "learning_rate": learning_rate,
            "schedule": schedule,
        }.items()
        if value is not None
    }
    recipe = dataclasses.replace(run.recipe, **changed)
    if changed:
        trained = train(run.model, run.start, run.data, recipe).params
    else:
        _, trained = load_pretrained(demo / "models/trained")
    _, retrained = load_pretrained(demo / "models/retrained")
    chosen = sorted(m["index"] for m in read_json(demo / "results.json")["matched"])
    others = [i for i in range(len(run.records)) if i not in chosen]
    unseen = read_records(demo / "records/unseen.json")
    sets = {
        "forget": subset(run.data, chosen),
        "retain": subset(run.data, others),
        "unseen": tokenize(unseen, run.tokenizer, max_length=MAX_LENGTH),
    }
    losses = measures(run.model, sets)

    def knows(params) -> np.ndarray:
        prompts = [prompt_and_completion(record)[0] for record in run.records]
        found = answers(run.model, params, run.tokenizer, prompts, max_new_tokens=ROOM)
        return known_facts(found, [record["value"] for record in run.records])

    before = knows(trained)

    def row(name: str, params) -> dict:
        found = knows(params)
        lost = (before & ~found)[others].sum() / before[others].sum()
        return {
            "changed": name,
            "knows": f"{found[chosen].sum()} of {len(chosen)}",
            "others": f"{found[others].sum()} of {len(others)}",
            "lost": f"{lost:.1%}",
            **{kind: loss(params) for kind, loss in losses.items()},
        }

    rows = [row("(trained)", trained), row("(retrained, the demo's)", retrained)]
    target = losses["unseen"](trained)
    for gradients, of in (("first epoch", (1,)), ("all", range(1, recipe.epochs + 1))):
        gradient, _ = replayed_gradient(
            run.model,
            recipe,
            run.data,
            run.start,
            chosen,
            epochs=of,
            weight="unit",
        )
        for name, (layers, part) in WAYS.items():
            outcome = first_epoch(
                trained,
                gradient,
                layers=layers,
                part=part,
                forget_loss=losses["forget"],
                retain_loss=losses["retain"],
                target=target,
                limits=NO_LIMITS,
            )
            rows.append(row(f"{name}, {gradients}", outcome.params))
    console.print(console_table(rows, title=f"{changed or 'the demo'}"))
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
