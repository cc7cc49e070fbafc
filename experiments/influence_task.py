"""The task of ``influence_quality.py``: real text, a small GPT-2, one fixed recipe.

A GPT-2 learns some text, once; what is attributed is its fine-tuning on other text, as
in the published comparisons of GPT-2 and WikiText.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn.data import (
    TruncationWarning,
    collate,
    epoch_order,
    read_records,
    record_text,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.data.synthetic.made_up import world
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.training.weighted import (
    RunState,
    initial_state,
    make_weighted_run,
    make_weighted_step,
    take_batch,
)
from jaxunlearn.types import Batch, Params

AUTHOR = 20  # questions an author of TOFU


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the task is.

    Attributes:
      examples: N, of the fine-tuning.
      queries: Q, of other text.
      length: Tokens an example; longer ones are cut.
      width: Of the model, which has 2 layers and 2 heads.
      vocabulary: Tokens, at most.
      pretraining_steps: Of 32 examples.
      epochs: Of the fine-tuning.
      batch_size: Of the fine-tuning.
      subsets: Random halves of the data, each trained on.
      seeds: Orders of the data in which each half is trained on.
      left_out: Examples left out one by one.
      steps: Of conjugate gradients and LiSSA, at most.
      scores: The names of those that are compared; none is all.
    """

    examples: int = 192
    queries: int = 16
    length: int = 32
    width: int = 32
    vocabulary: int = 512
    pretraining_steps: int = 600
    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-3
    subsets: int = 96
    seeds: int = 2
    left_out: int = 48
    steps: int = 25
    scores: tuple[str, ...] = ()


SIZES = {
    "smoke": Size(
        examples=24,
        queries=4,
        length=16,
        width=16,
        vocabulary=320,
        pretraining_steps=20,
        epochs=1,
        batch_size=8,
        subsets=8,
        left_out=4,
        steps=3,
        scores=("unrolled (MAGIC)", "EK-FAC", "gradient dot", "BM25", "random"),
    ),
    "default": Size(),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A model, its data, and its training as a function of the examples' weights."""

    size: Size
    model: GPT2
    start: Params  # after pretraining
    train: Batch  # N examples as one batch, with index
    query: Batch  # Q examples as one batch
    orders: np.ndarray  # int32[seeds, steps, batch size]

    @property
    def steps(self) -> int:
        """Steps of one fine-tuning."""
        return self.orders.shape[1]

    @functools.cached_property
    def transform(self) -> optax.GradientTransformation:
        """AdamW, warmed up and then falling to 0."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.size.learning_rate, max(1, self.steps // 10), self.steps
        )
        return optax.adamw(rate, weight_decay=0.01, eps_root=1e-30)

    @functools.cached_property
    def step(self):
        """The training step; see ``weighted_training``."""
        return make_weighted_step(self.model.per_example_loss, self.transform)

    @functools.cached_property
    def first_state(self) -> RunState:
        """The state before the first step."""
        return initial_state(self.start, self.transform)

    def state(self, seed: jax.Array | int = 0) -> RunState:
        """Return the state before the first step, the same for all seeds."""
        del seed
        return self.first_state

    def batches(self, seed: int = 0) -> list[Batch]:
        """Return the batches of the run with this seed's order."""
        return [take_batch(self.train, rows) for rows in self.orders[seed]]

    def query_losses(self, state: RunState) -> jax.Array:
        """Return the queries' losses, float32[Q]."""
        return self.model.per_example_loss(state.params, self.query)

    def run(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """Return ``(weights, seed) -> query losses``."""
        orders = jnp.asarray(self.orders)
        return make_weighted_run(
            self.step,
            self.state,
            {k: jnp.asarray(v) for k, v in self.train.items()},
            lambda seed: orders[seed],
            self.query_losses,
        )

    @functools.cached_property
    def jitted_step(self):
        """The step, compiled once for all runs."""
        return jax.jit(self.step)

    @functools.cache  # noqa: B019, a task lives as long as its process
    def checkpoints(self, seed: int = 0) -> list[Params]:
        """Return the parameters after each epoch of the run with this seed's order."""
        step, state, kept = self.jitted_step, self.state(), []
        per_epoch = self.steps // self.size.epochs
        for t, batch in enumerate(self.batches(seed)):
            state = step(state, batch, jnp.ones(self.size.batch_size))
            if (t + 1) % per_epoch == 0:
                kept.append(state.params)
        return kept


class Texts(NamedTuple):
    """What the model learns first, what is attributed, and the queries."""

    pretraining: list[str]
    train: list[str]
    query: list[str]


def make_task(size: Size, source: str, *, seeds: int) -> Task:
    """Return the task; pretrains the model."""
    texts = SOURCES[source](size)
    tokenizer = train_tokenizer(texts.pretraining, vocab_size=size.vocabulary)
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=size.length,
            n_embd=size.width,
            n_layer=2,
            n_head=2,
            **dropout,
        )
    )

    def batch_of(lines: list[str]) -> Batch:
        with warnings.catch_warnings():
            # Cut on purpose: the first tokens of a longer text are the example.
            warnings.simplefilter("ignore", TruncationWarning)
            data = tokenize(
                [{"text": line} for line in lines], tokenizer, max_length=size.length
            )
        return collate(
            data,
            np.arange(len(lines)),
            batch_size=len(lines),
            length=size.length,
        )

    orders = [
        np.concatenate(
            [epoch_order(seed, epoch, size.examples) for epoch in range(size.epochs)]
        )
        for seed in range(seeds)
    ]
    return Task(
        size,
        model,
        pretrained(model, batch_of(texts.pretraining), size),
        batch_of(texts.train),
        batch_of(texts.query),
        np.stack(orders).reshape(seeds, -1, size.batch_size).astype(np.int32),
    )


def pretrained(model: GPT2, data: Batch, size: Size) -> Params:
    """Return the parameters that the fine-tuning starts from."""
    steps = size.pretraining_steps
    rate = optax.warmup_cosine_decay_schedule(0.0, 5e-3, steps // 10, steps)
    transform = optax.adamw(rate)

    @jax.jit
    def step(params, opt_state, batch):
        def mean_loss(params):
            return jnp.mean(model.per_example_loss(params, batch))

        updates, opt_state = transform.update(
            jax.grad(mean_loss)(params), opt_state, params
        )
        return optax.apply_updates(params, updates), opt_state

    params = model.init(key=jax.random.key(0))
    opt_state = transform.init(params)
    draw = np.random.default_rng(0)
    for _ in range(steps):
        rows = draw.integers(len(data["index"]), size=32)
        batch = {name: x[rows] for name, x in data.items()}
        params, opt_state = step(params, opt_state, batch)
    return params


def wikitext(size: Size) -> Texts:
    """Paragraphs: of WikiText-2's test part first, then of its validation part."""

    def paragraphs(part: str) -> list[str]:
        lines = data_file(f"text/wikitext2_{part}.txt").read_text().splitlines()
        return [line for line in lines if len(line) > 200]

    pieces = [s[i : i + 160] for s in paragraphs("test") for i in range(0, len(s), 160)]
    train, query = held_out(paragraphs("valid")[: size.examples + size.queries], size)
    return Texts([piece for piece in pieces if len(piece) > 100], train, query)


def tofu(size: Size) -> Texts:
    """Questions with answers: of 100 authors first, then of others."""
    records = read_records(data_file("tofu/full.json"))
    texts = [record_text(record) for record in records]
    train, query = held_out(texts[: size.examples + size.queries], size)
    return Texts(texts[100 * AUTHOR :], train, query)


def synthetic(size: Size) -> Texts:
    """The embedded world: questions about 100 people first, then about others."""
    first = [record_text(record) for record in world(people=100)]
    later = [record_text(record) for record in world(people=100, start=100)]
    train, query = held_out(later[: size.examples + size.queries], size)
    return Texts(first, train, query)


def held_out(texts: list[str], size: Size) -> tuple[list[str], list[str]]:
    """Return texts to train on, and queries evenly spaced among them."""
    if len(texts) < size.examples + size.queries:
        raise ValueError(f"only {len(texts)} texts for {size.examples} and queries")
    gap = len(texts) // size.queries
    chosen = set(range(gap // 2, gap * size.queries, gap))
    train = [text for i, text in enumerate(texts) if i not in chosen]
    return train, [texts[i] for i in sorted(chosen)]


def data_file(name: str) -> Path:
    """Return a file of the folder of real data, or say how to bring it."""
    folder = os.environ.get("JAXUNLEARN_DATA")
    if not folder or not (Path(folder) / name).is_file():
        raise FileNotFoundError(
            f"JAXUNLEARN_DATA={folder!r} holds no {name}: CONTRIBUTING.md says what to "
            f"put there; --data synthetic needs nothing"
        )
    return Path(folder) / name


SOURCES = {"wikitext": wikitext, "tofu": tofu, "synthetic": synthetic}
