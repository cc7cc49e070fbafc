"""The demo's story: a world, a model that learns it, a person who is forgotten."""

from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn import training
from jaxunlearn.commands.console import console
from jaxunlearn.commands.demo_measures import measures, timed
from jaxunlearn.commands.demo_world import World, request_of
from jaxunlearn.commands.train_bar import train_run
from jaxunlearn.data import (
    Match,
    TokenizedData,
    match,
    record_text,
    subset,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.models import GPT2, GPT2Config, save_pretrained
from jaxunlearn.randomness import random_key
from jaxunlearn.report import console_table

MAX_LENGTH = 64
VOCABULARY = 4096
EPOCHS = 40
EVALUATIONS = 5


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


def tell(world: World, out: Path, seed: int, seconds: dict) -> Story:
    """Pretrain, fine-tune with recording, find the person, retrain without them."""
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
