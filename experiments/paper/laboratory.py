"""What the paper's claims are tested on: models that learn, forget and are retrained.

Of each seed there are three runs from one pretrained model, all on the device and all
seeds together under ``vmap``: the run that is unlearned from, whose gradients on the
examples to forget are recorded epoch by epoch, and the run that never saw them. The
seeds differ in who is forgotten and in the order of the data.
"""

import dataclasses
import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import tree
from jaxunlearn.data import (
    collate,
    epoch_order,
    prompt_and_completion,
    read_records,
    record_text,
    subset,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.data.synthetic.made_up import people, question_answers
from jaxunlearn.files import write_whole
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.models.tying import untie
from jaxunlearn.training import Recipe
from jaxunlearn.training.recipe import (
    TrainingState,
    apply_gradient,
    batch_gradient,
    initial_state,
    optimizer,
)
from jaxunlearn.training.weighted import take_batch
from jaxunlearn.types import Batch, Params

WORLDS = ("synthetic", "tofu")
AUTHOR = 20  # questions an author of TOFU
LONGER = {"synthetic": 1.0, "tofu": 1.6}
"""How much longer the texts of a world are; a size's length is of the first."""
ROOM = 8  # tokens of an answer that have to fit


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the laboratory is.

    Attributes:
      seeds: Runs, all trained together.
      groups: People (or authors) in fine-tuning; each seed forgets another one.
      facts: Records of each.
      unseen: People that no model sees.
      public: People of pretraining.
      layers: Blocks of the model.
      width: Of the model.
      heads: Of the model.
      vocabulary: Tokens, at most.
      length: Tokens an example; longer ones are cut.
      pretraining_steps: Of 32 examples.
      epochs: Of fine-tuning.
      batch_size: Of fine-tuning.
      learning_rates: By optimiser.
    """

    seeds: int = 5
    groups: int = 24
    facts: int = 10
    unseen: int = 8
    public: int = 200
    layers: int = 6
    width: int = 64
    heads: int = 4
    vocabulary: int = 1024
    length: int = 40
    pretraining_steps: int = 250
    epochs: int = 8
    batch_size: int = 16
    learning_rates: tuple[tuple[str, float], ...] = (("adamw", 2e-3), ("sgd", 0.15))

    def recipe(self, optimiser: str, seed: int) -> Recipe:
        """Return the recipe of fine-tuning."""
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=dict(self.learning_rates)[optimiser],
            optimizer=optimiser,
            reduction="example",
            seed=seed,
        )


SIZES = {
    "smoke": Size(
        seeds=2,
        groups=4,
        facts=4,
        unseen=2,
        public=8,
        layers=2,
        width=16,
        heads=2,
        vocabulary=320,
        length=128,
        pretraining_steps=8,
        epochs=2,
        batch_size=4,
    ),
    "tiny": Size(),
    # GPT-2 124M in shape; for one GPU.
    "small": Size(
        groups=100,
        facts=12,
        unseen=20,
        public=4000,
        layers=12,
        width=768,
        heads=12,
        vocabulary=16384,
        length=64,
        pretraining_steps=4000,
        learning_rates=(("adamw", 5e-5), ("sgd", 0.1)),
    ),
}


class Sets(NamedTuple):
    """The examples by what they are to a model; leading axis seeds where they differ.

    Attributes:
      train: N fine-tuning examples as one batch.
      forget: int32[seeds, F], which of them each seed forgets.
      kept: int32[seeds, N - F], the others.
      unseen: U examples that no model sees.
      records: The N records.
    """

    train: Batch
    forget: np.ndarray
    kept: np.ndarray
    unseen: Batch
    records: list[dict]


class Lab(NamedTuple):
    """All runs of one world and optimiser. Trees have a leading axis of seeds.

    Attributes:
      model: The model.
      tokenizer: Its tokenizer.
      size: The size.
      recipe: Of fine-tuning.
      sets: The examples.
      start: Parameters before fine-tuning; no axis of seeds.
      trained: Parameters after it.
      checkpoints: Parameters at the start and after each epoch, [E+1, seeds, ...].
      recorded: Sum over the examples to forget of their gradients, before their step,
        in each epoch, [E, seeds, ...]. A tree like the parameters, untied:
        ``lm_head`` is the output part of the embedding's gradient, ``wte`` the input.
      applied: The same with the weights ``learning_rate / batch size`` of plain SGD.
      retrained: Parameters of the run on the kept examples alone.
      orders: int32[seeds, steps, B], the fine-tuning's examples.
    """

    model: GPT2
    tokenizer: object
    size: Size
    recipe: Recipe
    sets: Sets
    start: Params
    trained: Params
    checkpoints: Params
    recorded: Params
    applied: Params
    retrained: Params
    orders: np.ndarray


def build(
    world: str,
    optimiser: str,
    size: Size,
    *,
    seed: int = 0,
    cache: Path | None = None,
    say: Callable[[str], None] = print,
) -> Lab:
    """Return the runs of a world; found again in ``cache`` if they were made before."""
    return found_or_made(
        cache,
        (world, optimiser, size, seed),
        lambda: made(world, optimiser, size, seed, cache, say),
        say,
        f"{world}, {optimiser}: building",
    )


def found_or_made(cache, key, make, say, doing):
    """Return what ``make`` returns, found in the cache if it was made before."""
    path = None
    if cache is not None:
        told = repr((key, code_hash(), jax.__version__))
        path = Path(cache) / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.pickle"
        if path.exists():
            return pickle.loads(path.read_bytes())
    say(doing)
    value = make()
    if path is not None:
        write_whole(path, lambda temporary: temporary.write_bytes(pickle.dumps(value)))
    return value


def made(world, optimiser, size, seed, cache, say) -> Lab:
    """Train everything."""
    public, private, unseen = groups_of(world, size, seed)
    tokenizer = train_tokenizer(map(record_text, public), vocab_size=size.vocabulary)
    size = dataclasses.replace(size, length=int(size.length * LONGER[world]))
    public = fitting(public, tokenizer, size)
    private, unseen = (
        [fitting(group, tokenizer, size)[: size.facts] for group in groups]
        for groups in (private, unseen)
    )
    model = GPT2(
        GPT2Config(
            vocab_size=len(tokenizer.get_vocab()),
            n_positions=size.length,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    records = [record for group in private for record in group]
    short = [i for i, group in enumerate(private) if len(group) < size.facts]
    if short:
        raise ValueError(f"groups {short} have fewer than {size.facts} fitting records")
    forget = np.stack(
        [group_rows(private, (seed + s) % len(private)) for s in range(size.seeds)]
    )
    kept = np.stack([np.setdiff1d(np.arange(len(records)), row) for row in forget])
    sets = Sets(
        as_batch(records, tokenizer, size),
        forget.astype(np.int32),
        kept.astype(np.int32),
        as_batch([r for group in unseen for r in group], tokenizer, size),
        records,
    )
    start = found_or_made(
        cache,
        ("start", world, dataclasses.replace(size, epochs=0, learning_rates=()), seed),
        lambda: pretrained(model, as_batch(public, tokenizer, size), size, seed),
        say,
        f"{world}: pretraining on {len(public)} records",
    )
    recipe = size.recipe(optimiser, seed)
    say(f"{world}, {optimiser}: {size.seeds} runs with all {len(records)} records")
    rows = np.broadcast_to(np.arange(len(records)), (size.seeds, len(records)))
    orders = step_orders(rows, recipe, seed)
    slots = forget_slots(orders, sets.forget)
    run = jax.jit(
        jax.vmap(functools.partial(recorded_run, model, recipe, sets.train, start))
    )
    trained, checkpoints, recorded, applied = run(orders, slots)
    say(f"{world}, {optimiser}: {size.seeds} runs without what is to be forgotten")
    again = step_orders(sets.kept, recipe, seed)
    retrain = jax.jit(
        jax.vmap(functools.partial(plain_run, model, recipe, sets.train, start))
    )
    lab = Lab(
        model,
        tokenizer,
        size,
        recipe,
        sets,
        start,
        trained,
        swapped(checkpoints),
        swapped(recorded),
        swapped(applied),
        retrain(again),
        orders,
    )
    return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, lab)


def code_hash() -> str:
    """Return a hash of this file: other code makes other runs."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


# --- the worlds ---------------------------------------------------------------------


def groups_of(world: str, size: Size, seed: int) -> tuple[list, list, list]:
    """Return public records, and private and unseen records person by person."""
    if world == "synthetic":
        counts = size.public + size.groups + size.unseen
        persons = people(counts, seed=seed)
        each = [
            question_answers([person], questions_per_person=size.facts, seed=seed)
            for person in persons
        ]
    elif world == "tofu":
        root = os.environ.get("JAXUNLEARN_DATA")
        if not root:
            raise ValueError(
                "--world tofu needs JAXUNLEARN_DATA, the folder that holds tofu/ "
                "(CONTRIBUTING.md says what belongs there); --world synthetic needs "
                "nothing"
            )
        records = read_records(Path(root) / "tofu/full.json")
        authors = [records[i : i + AUTHOR] for i in range(0, len(records), AUTHOR)]
        order = np.random.default_rng(seed).permutation(len(authors))
        need = size.groups + size.unseen
        if need >= len(authors):
            raise ValueError(f"TOFU has {len(authors)} authors, this size takes {need}")
        # A tiny model reads only so far: the shortest records first.
        chosen = [sorted(authors[i], key=lambda r: len(record_text(r))) for i in order]
        each = [*chosen[need:], *chosen[:need]]
    else:
        raise ValueError(f"world={world!r}: one of {', '.join(WORLDS)}")
    public = each[: -(size.groups + size.unseen)]
    private = each[len(public) : len(public) + size.groups]
    return (
        [record for group in public for record in group],
        private,
        each[len(public) + size.groups :],
    )


def fitting(records: list[dict], tokenizer: object, size: Size) -> list[dict]:
    """Return the records whose prompts leave room for an answer."""
    prompts = [prompt_and_completion(record)[0] for record in records]
    return [
        record
        for record, ids in zip(records, tokenizer(prompts)["input_ids"], strict=True)
        if len(ids) + ROOM <= size.length
    ]


def group_rows(groups: list[list], number: int) -> np.ndarray:
    """Return the positions of one person's records among all of them."""
    begin = sum(len(group) for group in groups[:number])
    return np.arange(begin, begin + len(groups[number]))


def as_batch(records: list[dict], tokenizer: object, size: Size) -> Batch:
    """Return records as one batch, cut to the size's length."""
    import warnings

    from jaxunlearn.data import TruncationWarning

    with warnings.catch_warnings():
        # TOFU's answers are longer than a tiny model reads; the README says so.
        warnings.simplefilter("ignore", TruncationWarning)
        data = tokenize(records, tokenizer, max_length=size.length)
    count = len(data.examples)
    return collate(
        subset(data, range(count)),
        np.arange(count),
        batch_size=count,
        length=size.length,
    )


# --- training -----------------------------------------------------------------------


def pretrained(model: GPT2, data: Batch, size: Size, seed: int) -> Params:
    """Return parameters that learned the public records."""
    steps = size.pretraining_steps
    recipe = Recipe(
        epochs=1,
        batch_size=min(32, len(data["index"])),
        learning_rate=2e-3,
        schedule="linear",
        warmup_steps=min(20, steps // 4),
        seed=seed,
    )
    count = len(data["index"])
    per_epoch = -(-count // recipe.batch_size)
    rows = [
        padded_epoch(np.arange(count), recipe, seed, e)
        for e in range(-(-steps // per_epoch))
    ]
    order = np.concatenate(rows)[:steps]
    transform = optimizer(recipe, steps)
    start = model.init(key=jax.random.key(seed))
    step = functools.partial(one_step, model, recipe, transform, data)
    run = jax.jit(lambda s, o: jax.lax.scan(step, s, o)[0].params)
    return jax.tree.map(np.asarray, run(initial_state(start, transform), order))


def one_step(model, recipe, transform, data, state: TrainingState, rows):
    """Take one step on the examples of ``rows``; -1 is padding."""
    batch = take_batch(data, rows)
    batch["labels"] = jnp.where(batch["weight"][:, None] > 0, batch["labels"], -100)
    _, gradient = batch_gradient(model, recipe, state.params, batch, None)
    return apply_gradient(transform, state, gradient), None


def padded_epoch(rows: np.ndarray, recipe: Recipe, seed: int, epoch: int) -> np.ndarray:
    """Return the steps of an epoch over ``rows``, int32[steps, B], padded by -1."""
    order = rows[epoch_order(seed, epoch, len(rows))]
    steps = -(-len(rows) // recipe.batch_size)
    found = np.full(steps * recipe.batch_size, -1, np.int32)
    found[: len(order)] = order
    return found.reshape(steps, recipe.batch_size)


def step_orders(rows: np.ndarray, recipe: Recipe, seed: int) -> np.ndarray:
    """Return every step of every seed's run, int32[seeds, steps, B]."""
    return np.stack(
        [
            np.concatenate(
                [padded_epoch(r, recipe, seed + s, e) for e in range(recipe.epochs)]
            )
            for s, r in enumerate(rows)
        ]
    )


def forget_slots(orders: np.ndarray, forget: np.ndarray) -> np.ndarray:
    """Return which examples to forget stand in each step, int32[seeds, steps, K]."""
    found = [
        [[i for i in step if i in set(row)] for step in order]
        for order, row in zip(orders, forget.tolist(), strict=True)
    ]
    most = max(len(step) for order in found for step in order)
    return np.array(
        [[step + [-1] * (most - len(step)) for step in order] for order in found],
        np.int32,
    )


def plain_run(model, recipe, data, start, order) -> Params:
    """Return the parameters after fine-tuning; pure, for one seed."""
    transform = optimizer(recipe, len(order))
    step = functools.partial(one_step, model, recipe, transform, data)
    return jax.lax.scan(step, initial_state(start, transform), order)[0].params


def recorded_run(model, recipe, data, start, order, slots):
    """Fine-tune, and record what the examples to forget gave; pure, for one seed.

    Returns parameters at the end, at the start and after each epoch [E+1, ...], the
    sums of the gradients in each epoch [E, ...], and those weighted as SGD does.
    """
    total = len(order)
    transform = optimizer(recipe, total)
    rate = learning_rate_of(recipe, total)

    def total_loss(params, batch):
        losses = model.per_example_loss(params, batch)
        return jnp.sum(jnp.where(batch["weight"] > 0, losses, 0.0))

    def step(carry, at):
        state, unit, sgd = carry
        rows, slots = at
        gradient = jax.grad(total_loss)(untie(state.params), take_batch(data, slots))
        unit = tree.add_scaled(unit, 1.0, gradient)
        share = rate(state.step) / jnp.sum(rows >= 0)
        sgd = tree.add_scaled(sgd, share, gradient)
        state, _ = one_step(model, recipe, transform, data, state, rows)
        return (state, unit, sgd), None

    def epoch(state, at):
        zeros = tree.zeros_like(untie(start))
        (state, unit, sgd), _ = jax.lax.scan(step, (state, zeros, zeros), at)
        return state, (state.params, unit, sgd)

    epochs = recipe.epochs
    parts = tuple(x.reshape(epochs, total // epochs, -1) for x in (order, slots))
    state, (after, unit, sgd) = jax.lax.scan(
        epoch, initial_state(start, transform), parts
    )
    checkpoints = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, after)
    return state.params, checkpoints, unit, sgd


def learning_rate_of(recipe: Recipe, total: int):
    """Return the learning rate as a function of the steps done."""
    from jaxunlearn.training.recipe import learning_rate

    return learning_rate(recipe, total)


def swapped(found: Params) -> Params:
    """Return [seeds, E, ...] as [E, seeds, ...]."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)
