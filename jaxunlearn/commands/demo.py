"""``jaxunlearn demo``: the whole story on a small model, in minutes, without a network.

A language model is taught a public world and then the records of private people. One of
them asks to be forgotten. What the request means is found, the person is unlearned by
first-epoch gradients, and the result is held against whole-model gradient ascent at the
same forget loss, and against a model really retrained without that person.
"""

import json
import shutil
from pathlib import Path

from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_results import collect, tell_results, write_records
from jaxunlearn.commands.demo_story import make_world, remove, tell
from jaxunlearn.files import write_json
from jaxunlearn.report import write_report

MARKER = ".jaxunlearn-demo"


def demo(
    *,
    out: Path = Path("jaxunlearn-demo"),
    seed: int = 0,
    public_people: int = 900,
    private_people: int = 60,
    facts: int = 10,
) -> int:
    """Train a small GPT-2, forget one person, compare with retraining; write a report.

    Takes minutes on two cores and needs nothing but this package. Writes
    OUT/report.html, OUT/results.json, figures, the training run, the models and the
    records.

    Args:
      out: Directory for everything that is made. An unfinished demo there is taken
        up, a finished one replaced.
      seed: Of the world, the model and the order of training.
      public_people: People taught in pretraining.
      private_people: People taught in fine-tuning; the first one is forgotten.
      facts: Facts a person, 3 to 12.
    """
    if private_people < 2 or public_people < 2:
        raise ValueError(
            f"public_people={public_people}, private_people={private_people}: at "
            f"least 2 of each, so that somebody is kept"
        )
    settings = {
        "seed": seed,
        "public_people": public_people,
        "private_people": private_people,
        "facts": facts,
    }
    world = make_world(seed, public_people, private_people, facts)
    make_room(out, settings)
    console.print(
        f"A world of made-up people: {len(world.public)} public records to learn the "
        f"language from, {len(world.private)} private ones, and {len(world.unseen)} "
        f"that no model sees.\n"
    )
    seconds: dict[str, float] = {}
    story = tell(world, out, seed, seconds)
    comparison, recorded = remove(story, seconds)
    results = collect(world, story, comparison, seconds)
    results["settings"] |= settings | recorded
    write_records(world, story, out)
    page = write_report(results, out)
    write_json(out / "results.json", results)
    tell_results(results, page, out)
    return 0


def make_room(out: Path, settings: dict) -> None:
    """Prepare ``out``: an unfinished demo is taken up, a finished one makes way.

    Raises:
      ValueError: The folder holds something else.
    """
    marker = out / MARKER
    if out.exists() and any(out.iterdir()):
        if not marker.exists():
            raise ValueError(
                f"out={out} exists and is no earlier demo: choose another --out"
            )
        finished = (out / "results.json").exists()
        if not finished and json.loads(marker.read_text()) == settings:
            console.print(f"Taking up the unfinished demo in {out}.")
            return
        shutil.rmtree(out)
    write_json(marker, settings)
