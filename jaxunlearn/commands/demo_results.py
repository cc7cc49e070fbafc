"""What the demo shows: the numbers, the models' answers, the closing table."""

import dataclasses
from pathlib import Path

from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_story import (
    MAX_LENGTH,
    Story,
    World,
    measured_part,
    measures,
    request_of,
    timed,
)
from jaxunlearn.data import prompt_and_completion
from jaxunlearn.files import write_json
from jaxunlearn.provenance import versions
from jaxunlearn.report import console_table, loss_rows, verdict
from jaxunlearn.report.outcome import BEFORE, RETRAINED, TRAINED
from jaxunlearn.unlearning.comparison import (
    ASCENT,
    FIRST_EPOCH,
    Comparison,
    described,
    loss_table,
)


def collect(world: World, story: Story, comparison: Comparison, seconds: dict) -> dict:
    """Return all results as JSON values, in the form that the report reads."""
    run = story.run
    losses = measures(run.model, story.sets, run.pad_id)
    models = {BEFORE: story.base, TRAINED: story.trained}
    models |= {name: o.params for name, o in comparison.outcomes.items()}
    models[RETRAINED] = story.retrained
    table = loss_table(models, losses)
    shown = (TRAINED, FIRST_EPOCH, ASCENT, RETRAINED)
    with timed(seconds, "answering"), console.status("Asking the models"):
        examples = ask(world, story, {name: models[name] for name in shown})
    return {
        "title": "One person forgotten",
        "request": {"text": request_of(world), "how": "fuzzy", "threshold": 0.85},
        "matched": [m._asdict() for m in story.matches],
        "losses": table,
        "target": {
            "forget_loss": comparison.target,
            "meaning": "the trained model's loss on people it never saw",
        },
        "training": story.training.losses,
        "evaluation": story.training.evaluations,
        "retraining": story.retraining.evaluations,
        **described(comparison, story.trained, table[TRAINED]["retain"]),
        "examples": examples,
        "seconds": seconds,
        "versions": versions(),
        "command": "jaxunlearn demo",
        "settings": {
            "model": dataclasses.asdict(run.model.config),
            "recipe": dataclasses.asdict(run.recipe),
            "recording": dataclasses.asdict(run.recording),
        },
        "next_steps": next_steps(run.directory.parent),
    }


def ask(world: World, story: Story, models: dict) -> list[dict]:
    """Return questions on the forgotten and on a kept person, with greedy answers."""
    from jaxunlearn.evaluation.answers import answers, prompt_ids

    tokenizer = story.run.tokenizer
    chosen = {m.index for m in story.matches}
    kept = [i for i in range(len(world.private)) if i not in chosen]
    asked = [("forget", i) for i in sorted(chosen)] + [("retain", i) for i in kept[:10]]
    prompts = [prompt_and_completion(world.private[i])[0] for _, i in asked]
    longest = max(map(len, prompt_ids(tokenizer, prompts)))
    texts = {
        name: answers(
            story.run.model,
            params,
            tokenizer,
            prompts,
            max_new_tokens=MAX_LENGTH - longest,
        )
        for name, params in models.items()
    }
    return [
        {
            "kind": kind,
            "prompt": world.private[i]["question"],
            "truth": world.private[i]["answer"],
            "answers": {name: found[row] for name, found in texts.items()},
        }
        for row, (kind, i) in enumerate(asked)
    ]


def write_records(world: World, story: Story, out: Path) -> None:
    """Write who is forgotten, kept and unseen as record files, to go on with."""
    chosen = {m.index for m in story.matches}
    keep = [record for i, record in enumerate(world.private) if i not in chosen]
    parts = {
        "forget": [world.private[i] for i in sorted(chosen)],
        "retain": measured_part(keep),
        "unseen": measured_part(world.unseen),
    }
    for name, records in parts.items():
        write_json(out / f"records/{name}.json", records)


def next_steps(out: Path) -> list[str]:
    """Return the commands to go on with: on this world, then on one's own files."""
    models, records = out / "models", out / "records"
    shared = (
        f"--model {models}/unlearned --reference {models}/retrained "
        f"--original {models}/trained --forget {records}/forget.json "
        f"--holdout {records}/unseen.json"
    )
    return [
        f"jaxunlearn evaluate {shared} --retain {records}/retain.json "
        f"--out {out}/evaluation/scores.json",
        f"jaxunlearn attack {shared} --out {out}/evaluation/attack.json",
        f"jaxunlearn report {out}/evaluation",
        "jaxunlearn train --model MODEL_OR_CONFIG --data RECORDS --out RUN",
        "jaxunlearn unlearn --method first_epoch --run RUN --model RUN/model "
        "--request 'everything about NAME' --retain KEEP --unseen LOOKALIKES "
        "--out UNLEARNED",
    ]


def tell_results(results: dict, page: Path, out: Path) -> None:
    """Print what came out, and what to do next."""
    console.print()
    console.print(console_table(loss_rows(results), title="Mean loss in nats a token"))
    found = verdict(results)
    console.print(found.headline, style="bold")
    for sentence in found.sentences:
        console.print(sentence)
    for name, outcome in results["outcomes"].items():
        if outcome["status"] not in ("reached", "already"):
            console.print(f"{name}: {outcome['explanation']}")
    console.print(f"\nReport: {page}\nNumbers: {out / 'results.json'}")
    console.print("\nGo on, first with this world, then with your own files:")
    for step in results["next_steps"]:
        console.print(f"  {step}", highlight=False, markup=False)
