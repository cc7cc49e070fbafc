"""Every unlearning method on the demo's person, at one forget loss.

Command:  python experiments/unlearn_methods.py jaxunlearn-demo  (after jaxunlearn demo)
Time:     minutes on two idle cores

Takes the demo's run in DEMO and unlearns its person by every row of METHODS, all to the
demo's target, the trained model's loss on people it never saw, without limits on the
price. Prints the losses, which facts are left, and the time beside that of training the
run once more; the first rows are the trained model and one really retrained without the
person. With --write FILE the table also takes the place of the one in a Markdown file.

SETTINGS holds what is not a method's default: on 60,000 times fewer parameters than
those that published rates were set for, a rate of 1e-5 does nothing.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from markdown_table import write_table

from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_story import MAX_LENGTH
from jaxunlearn.data import prompt_and_completion, read_records, subset, tokenize
from jaxunlearn.data.batching import batches
from jaxunlearn.evaluation import known_facts
from jaxunlearn.evaluation.text.greedy import answers
from jaxunlearn.files import read_json
from jaxunlearn.models import load_pretrained
from jaxunlearn.report import console_table
from jaxunlearn.tasks import language_task
from jaxunlearn.training import Recipe, open_run, train
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.measuring import losses_of_sets
from jaxunlearn.unlearning.methods import METHODS, Sets
from jaxunlearn.unlearning.runner import unlearn
from jaxunlearn.unlearning.wrappers.decoders import offset_decoder

ROOM = 32  # tokens for an answer; the longest true one has 20
NO_LIMITS = Limits(max_retain_nats=None, max_relative_step=None)
DESCENT = {"recipe": Recipe(epochs=200, learning_rate=1e-3), "evaluate_every": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "grad_diff": DESCENT,
    "npo": DESCENT,
    "simnpo": DESCENT,
    "ssd": {"alpha": 8.0},  # of at most n / n_F = 16
    "task_vector": {"learning_rate": 1e-3},
    "whp": {"learning_rate": 1e-3, "alpha": 20.0},
}
"""By method; what is not its default."""


def main(demo: tyro.conf.Positional[Path], *, write: Path | None = None) -> int:
    """Print one row a method."""
    run = open_run(demo / "run")
    _, trained = load_pretrained(demo / "models/trained")
    _, retrained = load_pretrained(demo / "models/retrained")
    chosen = sorted(m["index"] for m in read_json(demo / "results.json")["matched"])
    others = [i for i in range(len(run.records)) if i not in chosen]
    unseen = read_records(demo / "records/unseen.json")
    task = language_task(run.model)

    def batched(data):
        return batches(data, run.tokenizer, batch_size=32, max_length=MAX_LENGTH)

    sets = Sets(
        batched(subset(run.data, chosen)),
        batched(subset(run.data, others)),
        batched(tokenize(unseen, run.tokenizer, max_length=MAX_LENGTH)),
    )

    def knows(model, params) -> np.ndarray:
        prompts = [prompt_and_completion(record)[0] for record in run.records]
        found = answers(model, params, run.tokenizer, prompts, max_new_tokens=ROOM)
        return known_facts(found, [record["value"] for record in run.records])

    def row(name: str, params, status: str, seconds: float, wrapped=None) -> dict:
        losses = losses_of_sets(wrapped or task, sets)
        told = {
            "method": name,
            "ended": status,
            "forget": f"{losses.forget(params):.3f}",
            "retain": f"{losses.retain(params):.3f}",
            "unseen": f"{losses.unseen(params):.3f}",
        }
        model = run.model
        if wrapped is not None:
            model, params = offset_decoder(wrapped, params)
        found = knows(model, params)
        return told | {
            "knows": f"{found[chosen].sum()} of {len(chosen)}",
            "others": f"{found[others].sum()} of {len(others)}",
            "of training": f"{seconds / again:.1%}" if seconds else "",
        }

    started = time.perf_counter()
    train(run.model, run.start, run.data, run.recipe)
    again = time.perf_counter() - started
    target = losses_of_sets(task, sets).unseen(trained)
    rows = [
        row("(trained)", trained, "", 0.0),
        row("(retrained)", retrained, "", again),
    ]
    for name, method in METHODS.items():
        settings: dict[str, Any] = dict(SETTINGS.get(name, {}))
        if method.form != "exact":
            settings |= {"target": target, "limits": NO_LIMITS}
        if method.form == "exact" or "run" in method.needs:
            settings |= {"run": run, "indices": chosen}
        console.print(f"{name} ...")
        started = time.perf_counter()
        outcome = unlearn(task, trained, sets, name, **settings)
        seconds = time.perf_counter() - started
        status = str(outcome.status)
        kept = status if method.removes else f"{status}, suppressed"
        rows.append(row(name, outcome.params, kept, seconds, outcome.task))
    console.print(console_table(rows, title=f"Forget loss to {target:.3f}"))
    if write is not None:
        write_table(write, "unlearn_methods", rows)
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
