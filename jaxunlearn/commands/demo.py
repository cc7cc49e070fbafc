"""``jaxunlearn demo``: the whole story on a small model, in minutes, without a network.

A language model is taught a public world and then the records of private people. One of
them asks to be forgotten. What the request means is found, the person is unlearned by
first-epoch gradients, and the result is held against whole-model gradient ascent at the
same forget loss, and against a model really retrained without that person.
"""

import dataclasses
import shutil
from pathlib import Path

from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_ending import tell_results
from jaxunlearn.commands.demo_removal import remove
from jaxunlearn.commands.demo_results import collect, write_records
from jaxunlearn.commands.demo_story import tell
from jaxunlearn.commands.demo_world import World, make_world
from jaxunlearn.files import read_json, write_json
from jaxunlearn.locks import LOCK, locked
from jaxunlearn.ranges import check_number
from jaxunlearn.report import write_report

MOST_PEOPLE = 40_000
"""Public or private: one world has 100,000 people, and some are seen by no model."""

MARKER = ".jaxunlearn-demo"
MADE = (
    *("results.json", "report.html", "figures", "next-steps.sh"),
    *("models", "records", "run", "retrained", "pretraining"),
)
"""What a demo makes in its folder; results.json says that it is whole."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn demo``.

    Attributes:
      out: Directory for everything that is made. An unfinished demo there is taken
        up, a finished one replaced.
      seed: Of the world, the model and the order of training.
      public_people: People taught in pretraining.
      private_people: People taught in fine-tuning; the first one is forgotten.
      facts: Facts a person, 3 to 12.
    """

    out: Path = Path("jaxunlearn-demo")
    seed: int = 0
    public_people: int = 900
    private_people: int = 16
    facts: int = 10

    def check(self) -> None:
        """Refuse numbers out of their range."""
        check_number("facts", self.facts, 3, 12)
        check_number("seed", self.seed, 0, 2**32 - 1)
        for name in ("private_people", "public_people"):
            check_number(name, getattr(self, name), 2, MOST_PEOPLE)


def demo(options: Options) -> int:
    """Train a small GPT-2, forget one person, compare with retraining; write a report.

    Takes minutes on two cores and needs nothing but this package. Writes
    OUT/report.html, OUT/results.json, figures, the training run, the models and the
    records.
    """
    options.check()
    out = options.out
    settings = {
        "seed": options.seed,
        "public_people": options.public_people,
        "private_people": options.private_people,
        "facts": options.facts,
    }
    world = make_world(**settings)
    check_room(out)
    with locked(out):
        make_room(out, settings)
        tell_all(world, out, settings)
    return 0


def tell_all(world: World, out: Path, settings: dict) -> None:
    """Run the story and write what came of it."""
    console.print(
        f"A world of made-up people: {len(world.public)} public records to learn the "
        f"language from, {len(world.private)} private ones, and {len(world.unseen)} "
        f"that no model sees.\n"
    )
    seconds: dict[str, float] = {}
    story = tell(world, out, settings["seed"], seconds)
    comparison = remove(story, seconds)
    results = collect(world, story, comparison, seconds)
    results["settings"] |= settings
    write_records(world, story, out)
    page = write_report(results, out)
    tell_results(results, page, out)
    # Last, since it says that the folder is whole.
    write_json(out / "results.json", results)


def check_room(out: Path) -> None:
    """Refuse a folder that holds something else than a demo.

    Raises:
      ValueError: It does; choose another.
    """
    held = [path for path in out.iterdir() if path.name != LOCK] if out.exists() else []
    if held and not (out / MARKER).exists():
        raise ValueError(
            f"out={out} exists and is no earlier demo: choose another --out"
        )


def make_room(out: Path, settings: dict) -> None:
    """Prepare ``out``: an unfinished demo is taken up, a finished one makes way.

    Only what a demo made is removed; what else lies there, such as an evaluation of
    its models, stays.
    """
    marker = out / MARKER
    if marker.exists():
        finished = (out / "results.json").exists()
        if not finished and read_json(marker) == settings:
            console.print(f"Taking up the unfinished demo in {out}.")
            return
        write_json(marker, None)  # a half-removed demo is not taken up
        for name in MADE:
            made = out / name
            if made.is_dir() and not made.is_symlink():
                shutil.rmtree(made)
            else:
                made.unlink(missing_ok=True)
        stay = {path.name for path in out.iterdir()} - {MARKER, LOCK}
        if stay:
            console.print(f"Kept from earlier in {out}: {', '.join(sorted(stay))}.")
    write_json(marker, settings)
