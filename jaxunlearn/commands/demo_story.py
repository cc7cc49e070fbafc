"""The demo's story: a world, a model that learns it, a person who is forgotten."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.commands.console import console, progress_bar
from jaxunlearn.commands.train import train_run
from jaxunlearn.data import (
    Match,
    TokenizedData,
    match,
    record_text,
    subset,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.data.synthetic import people, question_answers
from jaxunlearn.report import console_table
from jaxunlearn.unlearning.comparison import Comparison

MAX_LENGTH = 64
VOCABULARY = 4096


class timed:
    """Measure the seconds of a ``with`` block into ``seconds[name]``."""

    def __init__(self, seconds: dict[str, float], name: str):
        """Name what is measured."""
        self.seconds, self.name = seconds, name

    def __enter__(self):
        """Start."""
        self.start = time.perf_counter()

    def __exit__(self, *_):
        """Stop."""
        self.seconds[self.name] = time.perf_counter() - self.start


class World(NamedTuple):
    """The people, by what the model gets to know of them."""

    public: list[dict]  # taught first; anybody's
    private: list[dict]  # taught second, recorded; one of them wants to be forgotten
    unseen: list[dict]  # never taught: what not knowing somebody looks like
    subject: str


class Story(NamedTuple):
    """What the demo has made by the time it unlearns."""

    run: Any
    base: Any  # parameters before the private people
    trained: Any
    retrained: Any
    sets: dict[str, TokenizedData]  # forget, retain, unseen
    matches: list[Match]
    training: Any
    retraining: Any


def make_world(seed: int, public: int, private: int, facts: int) -> World:
    """Make three groups of people that share no name."""

    def group(n: int, start: int) -> list[dict]:
        persons = people(n, seed=seed, start=start)
        return question_answers(persons, questions_per_person=facts, seed=seed)

    private_records = group(private, public)
    return World(
        group(public, 0),
        private_records,
        group(30, public + private),
        private_records[0]["subject"],
    )


def tell(world: World, out: Path, seed: int, seconds: dict) -> Story:
    """Pretrain, fine-tune with recording, find the person, retrain without them."""

    from jaxunlearn import training
    from jaxunlearn.models import GPT2, GPT2Config, save_pretrained
    from jaxunlearn.randomness import random_key

    tokenizer = train_tokenizer(
        [record_text(r) for r in world.public], vocab_size=VOCABULARY
    )
    model = GPT2(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=MAX_LENGTH,
            n_embd=128,
            n_layer=2,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    pretraining = training.Recipe(
        epochs=1,
        batch_size=32,
        learning_rate=2e-3,
        warmup_steps=20,
        schedule="linear",
        seed=seed,
    )
    recipe = training.Recipe(
        epochs=7, batch_size=16, learning_rate=1e-3, schedule="linear", seed=seed
    )

    def run_of(name: str, records: list[dict], params, recipe, recording=None):
        return training.create_run(
            out / name,
            model=model,
            params=params,
            records=records,
            tokenizer=tokenizer,
            recipe=recipe,
            max_length=MAX_LENGTH,
            recording=recording,
        )

    with timed(seconds, "pretraining"):
        fresh = model.init(key=random_key(seed))
        public = run_of("pretraining", world.public, fresh, pretraining)
        base = train_run(public, fresh, title="Learn the public world").params
    recording = training.Recording(layers="^wte/", head_entries=256)
    run = run_of("run", world.private, base, recipe, recording)

    request = request_of(world)
    matches = match(request, world.private, how="fuzzy")
    console.print(f"\nA request arrives: {request}", style="bold")
    rows = [
        {"record": m.index, "score": f"{m.score:.2f}", "text": shortened(m.text)}
        for m in matches
    ]
    console.print(console_table(rows, title="What it means in the training data"))
    chosen = sorted(m.index for m in matches)
    keep = [i for i in range(len(world.private)) if i not in set(chosen)]
    sets = {
        "forget": subset(run.data, chosen),
        "retain": subset(run.data, measured_part(keep)),
        "unseen": tokenize(
            measured_part(world.unseen), tokenizer, max_length=MAX_LENGTH
        ),
    }
    losses = measures(model, sets, run.pad_id)

    def evaluate(params):
        return {name: loss(params) for name, loss in losses.items()}

    with timed(seconds, "training"):
        trained = train_run(run, base, evaluate=evaluate, title="Learn private people")
    with timed(seconds, "retraining"):
        records = [world.private[i] for i in keep]
        again = run_of("retrained", records, base, recipe)
        retrained = train_run(again, base, evaluate=evaluate, title="Retrain for truth")
    save_pretrained(model, trained.params, out / "models/trained", tokenizer)
    save_pretrained(model, retrained.params, out / "models/retrained", tokenizer)
    return Story(
        run,
        base,
        trained.params,
        retrained.params,
        sets,
        matches,
        trained,
        retrained,
    )


def measured_part(items: Sequence) -> Sequence:
    """Return the third of those to keep, or of the unseen, that is measured.

    It is enough to tell a change of a percent, and is measured some fifty times.
    """
    return items[::3]


def shortened(text: str, size: int = 58) -> str:
    """Return ``text``, cut to one line."""
    return text if len(text) <= size else text[: size - 1] + "…"


def request_of(world: World) -> str:
    """Return the request for removal, in words."""
    return f"Please delete everything about {world.subject}"


def measures(model, sets: dict[str, TokenizedData], pad_id: int) -> dict[str, Callable]:
    """Return the mean loss of each set, as functions of parameters."""
    from jaxunlearn.training import mean_loss_of

    # One length for all, so that one program serves all.
    length = max(data.length for data in sets.values())
    return {
        name: mean_loss_of(model, data, pad_id=pad_id, length=length)
        for name, data in sets.items()
    }


def remove(story: Story, seconds: dict) -> tuple[Comparison, dict]:
    """Unlearn by each method to the same forget loss.

    Returns what the methods came to, and what recording cost and lost.
    """
    from jaxunlearn import training, tree
    from jaxunlearn.models import save_pretrained
    from jaxunlearn.training import gradient_store
    from jaxunlearn.unlearning.comparison import FIRST_EPOCH, compare

    run = story.run
    losses = measures(run.model, story.sets, run.pad_id)
    indices = sorted(m.index for m in story.matches)
    gradients = run.directory / "gradients"
    gradient, _ = gradient_store.stored_gradient(
        gradients, story.trained, indices, weight="unit"
    )
    with console.status("Unlearning") as status:
        comparison = compare(
            story.trained,
            gradient,
            mean_gradient=training.mean_gradient_of(
                run.model, story.sets["forget"], pad_id=run.pad_id
            ),
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            # Who was never seen shows what not knowing looks like to this very model.
            target=losses["unseen"](story.trained),
            on_method=lambda name: status.update(f"Unlearning: {name}"),
        )
    seconds |= comparison.seconds
    last = training.last_exposure(run.recipe, run.data, indices)
    with (
        timed(seconds, "replaying the first epoch"),
        progress_bar("Replay the first epoch", last + 1) as update,
    ):
        replayed, _ = training.replayed_gradient(
            run.model,
            run.recipe,
            run.data,
            story.base,
            indices,
            pad_id=run.pad_id,
            weight="unit",
            on_step=lambda step: update(step + 1),
        )
    mask = tree.select(story.trained, run.recording.layers)
    difference = relative_difference(
        tree.masked(training.combine(gradient), mask),
        tree.masked(training.combine(replayed), mask),
    )
    unlearned = comparison.outcomes[FIRST_EPOCH].params
    directory = run.directory.parent / "models/unlearned"
    save_pretrained(run.model, unlearned, directory, run.tokenizer)
    stored = gradient_store.summary(gradients)
    recorded = {
        "stored gradients": stored["gradients"],
        "bytes of stored gradients": stored["bytes"],
        "largest truncation error of a stored gradient": stored["largest_truncation"],
        "stored against replayed gradient, relative difference": difference,
    }
    return comparison, recorded


def relative_difference(a, b) -> float:
    """Return ``|a - b| / |b|``."""
    from jaxunlearn import tree

    return float(tree.norm(tree.subtract(a, b)) / tree.norm(b))
