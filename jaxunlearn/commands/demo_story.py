"""The demo's story: a world, a model that learns it, a person who is forgotten."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.commands.console import console, progress_bar, working
from jaxunlearn.commands.train_bar import train_run
from jaxunlearn.data import (
    Match,
    TokenizedData,
    in_order,
    match,
    record_text,
    subset,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.data.synthetic.world import people, question_answers
from jaxunlearn.report import console_table
from jaxunlearn.unlearning.comparison import Comparison

MAX_LENGTH = 64
VOCABULARY = 4096
UNSEEN_PEOPLE = 12
EPOCHS = 40
EVALUATIONS = 5


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


def make_world(
    *, seed: int, public_people: int, private_people: int, facts: int
) -> World:
    """Make three groups of people that share no name."""

    def group(n: int, start: int) -> list[dict]:
        persons = people(n, seed=seed, start=start)
        return question_answers(persons, questions_per_person=facts, seed=seed)

    private = group(private_people, public_people)
    return World(
        group(public_people, 0),
        private,
        group(UNSEEN_PEOPLE, public_people + private_people),
        private[0]["subject"],
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
    # Long enough that the facts are known by heart.
    recipe = training.Recipe(
        epochs=EPOCHS, batch_size=16, learning_rate=1e-3, schedule="linear", seed=seed
    )

    def run_of(name: str, records: list[dict], params, recipe):
        return training.create_run(
            out / name,
            model=model,
            params=params,
            records=records,
            tokenizer=tokenizer,
            recipe=recipe,
            max_length=MAX_LENGTH,
        )

    with timed(seconds, "pretraining"):
        fresh = model.init(key=random_key(seed))
        public = run_of("pretraining", world.public, fresh, pretraining)
        base = train_run(public, fresh, title="Learn the public world").params
    run = run_of("run", world.private, base, recipe)

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
        "retain": subset(run.data, keep),
        "unseen": tokenize(world.unseen, tokenizer, max_length=MAX_LENGTH),
    }
    losses = measures(model, sets)

    def evaluate(params):
        return {name: loss(params) for name, loss in losses.items()}

    def taught(name: str, run: training.Run, title: str):
        every = len(run.data.examples) * EPOCHS // (recipe.batch_size * EVALUATIONS)
        with timed(seconds, name):
            return train_run(
                run, base, evaluate=evaluate, evaluate_every=max(1, every), title=title
            )

    trained = taught("training", run, "Learn private people")
    again = run_of("retrained", [world.private[i] for i in keep], base, recipe)
    retrained = taught("retraining", again, "Retrain for truth")
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


def shortened(text: str, size: int = 58) -> str:
    """Return ``text``, cut to one line."""
    return text if len(text) <= size else text[: size - 1] + "…"


def request_of(world: World) -> str:
    """Return the request for removal, in words."""
    return f"Please delete everything about {world.subject}"


def measures(model, sets: dict[str, TokenizedData]) -> dict[str, Callable]:
    """Return the mean loss of each set, as functions of parameters."""
    from jaxunlearn.training import mean_loss_of

    # One length for all, so that one program serves all.
    length = max(data.length for data in sets.values())
    return {
        name: mean_loss_of(model.per_example_loss, in_order(data, length=length))
        for name, data in sets.items()
    }


def remove(story: Story, seconds: dict) -> Comparison:
    """Unlearn by each method to the same forget loss."""
    from jaxunlearn import training
    from jaxunlearn.models import save_pretrained
    from jaxunlearn.unlearning.comparison import FIRST_EPOCH, TIED, compare

    run = story.run
    losses = measures(run.model, story.sets)
    indices = sorted(m.index for m in story.matches)
    last = training.last_exposure(run.recipe, run.data, indices)
    with (
        timed(seconds, "replaying"),
        progress_bar("Replay the first epoch", last + 1) as update,
    ):
        gradient, _ = training.replayed_gradient(
            run.model,
            run.recipe,
            run.data,
            story.base,
            indices,
            weight="unit",
            on_step=lambda step: update(step + 1),
        )
    with working("Unlearning") as update:
        comparison = compare(
            story.trained,
            gradient,
            mean_gradient=training.mean_gradient_of(
                run.model.per_example_loss, in_order(story.sets["forget"])
            ),
            forget_loss=losses["forget"],
            retain_loss=losses["retain"],
            # Who was never seen shows what not knowing looks like to this very model.
            target=losses["unseen"](story.trained),
            on_method=lambda name: update(f"Unlearning: {name}"),
        )
    # A gradient is taken once, and each first-epoch method would have to take it.
    taking = seconds.pop("replaying")
    seconds |= {
        method: value + (taking if method in (FIRST_EPOCH, TIED) else 0.0)
        for method, value in comparison.seconds.items()
    }
    unlearned = comparison.outcomes[FIRST_EPOCH].params
    directory = run.directory.parent / "models/unlearned"
    save_pretrained(run.model, unlearned, directory, run.tokenizer)
    return comparison
