"""What the demo found: the numbers, and the models' answers."""

import dataclasses
from pathlib import Path

from jaxunlearn.commands.console import working
from jaxunlearn.commands.demo_ending import next_steps
from jaxunlearn.commands.demo_measures import measures, timed
from jaxunlearn.commands.demo_story import MAX_LENGTH, Story
from jaxunlearn.commands.demo_world import World, request_of
from jaxunlearn.data import prompt_and_completion
from jaxunlearn.evaluation import known_facts
from jaxunlearn.evaluation.text.greedy import answers, prompt_ids
from jaxunlearn.files import write_json
from jaxunlearn.provenance import versions
from jaxunlearn.report.run.outcome import BEFORE, RETRAINED, TRAINED
from jaxunlearn.unlearning.comparison import (
    ASCENT,
    FIRST_EPOCH,
    Comparison,
    described,
    loss_table,
)

SHOWN = (TRAINED, FIRST_EPOCH, ASCENT, RETRAINED)
"""The models whose answers the report shows."""


def collect(world: World, story: Story, comparison: Comparison, seconds: dict) -> dict:
    """Return all results as JSON values, in the form that the report reads."""
    run = story.run
    losses = measures(run.model, story.sets)
    models = {BEFORE: story.base, TRAINED: story.trained}
    models |= {name: o.params for name, o in comparison.outcomes.items()}
    models[RETRAINED] = story.retrained
    table = loss_table(models, losses)
    with timed(seconds, "answering"), working("Asking the models"):
        answered = ask(world, story, models)
    return {
        "title": "One person forgotten",
        "request": {"text": request_of(world), "how": "fuzzy", "threshold": 0.85},
        "matched": [m._asdict() for m in story.matches],
        "losses": table,
        "facts": facts(world, story, answered),
        "target": {
            "forget_loss": comparison.target,
            "meaning": "the trained model's loss on people it never saw",
        },
        "training": story.training.losses,
        "evaluation": story.training.evaluations,
        "retraining": story.retraining.evaluations,
        **described(comparison, story.trained, table[TRAINED]["retain"]),
        "examples": examples(world, story, answered),
        "seconds": seconds,
        "versions": versions(),
        "command": "jaxunlearn demo",
        "settings": {
            "model": dataclasses.asdict(run.model.config),
            "recipe": dataclasses.asdict(run.recipe),
        },
        "next_steps": next_steps(run.directory.parent),
    }


def ask(world: World, story: Story, models: dict) -> dict[str, list[str]]:
    """Return each model's greedy answers to the questions on all private people."""
    tokenizer = story.run.tokenizer
    pairs = [prompt_and_completion(record) for record in world.private]
    prompts, completions = (list(texts) for texts in zip(*pairs, strict=True))
    # Room for the longest true answer and its end; a longer one is a wrong one.
    longest, room = (
        max(map(len, prompt_ids(tokenizer, texts))) for texts in (prompts, completions)
    )
    return {
        name: answers(
            story.run.model,
            params,
            tokenizer,
            prompts,
            max_new_tokens=min(room + 1, MAX_LENGTH - longest),
        )
        for name, params in models.items()
    }


def places(world: World, story: Story) -> dict[str, list[int]]:
    """Return where in the private records those to forget and to keep stand."""
    chosen = {m.index for m in story.matches}
    rest = [i for i in range(len(world.private)) if i not in chosen]
    return {"forget": sorted(chosen), "retain": rest}


def facts(world: World, story: Story, answered: dict) -> dict:
    """Return which facts each model answers by their value, as the report reads it."""
    values = [record["value"] for record in world.private]
    known = {name: known_facts(texts, values) for name, texts in answered.items()}
    return {
        kind: {name: found[rows].tolist() for name, found in known.items()}
        for kind, rows in places(world, story).items()
    }


def examples(world: World, story: Story, answered: dict) -> list[dict]:
    """Return questions on the forgotten and on some kept people, with answers."""
    asked = [
        (kind, i) for kind, rows in places(world, story).items() for i in rows[:10]
    ]
    return [
        {
            "kind": kind,
            "prompt": world.private[i]["question"],
            "truth": world.private[i]["answer"],
            "value": world.private[i]["value"],
            "answers": {name: answered[name][i] for name in SHOWN},
        }
        for kind, i in asked
    ]


def write_records(world: World, story: Story, out: Path) -> None:
    """Write who is forgotten, kept and unseen as record files, to go on with."""
    parts = {
        kind: [world.private[i] for i in rows]
        for kind, rows in places(world, story).items()
    }
    for name, records in {**parts, "unseen": world.unseen}.items():
        write_json(out / f"records/{name}.json", records)
