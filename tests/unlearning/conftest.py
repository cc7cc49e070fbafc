"""Losses with closed forms in place of a model, and two tiny worlds with a task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.unlearning.forms import Sets


@pytest.fixture(scope="session")
def point():
    """Parameters whose squared norm is 1, in two leaves."""
    return {
        "h": {"kernel": jnp.array([0.6, 0.0])},
        "wte": {"embedding": jnp.array([[0.8]])},
    }


@pytest.fixture(scope="session")
def square():
    """``|theta|^2`` in float64, of parameters."""

    def loss(params):
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(params)]
        return float(sum((x**2).sum() for x in leaves))

    return loss


@pytest.fixture(scope="session")
def same_bits():
    """Whether two trees are equal bit for bit."""

    def same(a, b):
        equal = jax.tree.map(
            lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b
        )
        return all(jax.tree.leaves(equal))

    return same


class World(NamedTuple):
    """A task with examples in sets, and the run that made it, where there is one."""

    task: Any
    params: Any
    sets: Sets
    run: Any = None
    indices: Any = None


RECORDS = [
    {"question": f"Where is {name}?", "answer": f"In {name}ville."}
    for name in ("Mara", "Odo", "Lin", "Tove", "Bram", "Ida", "Sol", "Pia")
]


@pytest.fixture(scope="session")
def language(tmp_path_factory):
    """A tiny GPT-2 trained on eight records, two of which are to be forgotten."""
    from jaxunlearn.data import in_order, subset, tokenize, train_tokenizer
    from jaxunlearn.models import GPT2, GPT2Config
    from jaxunlearn.tasks import language_task
    from jaxunlearn.training import Recipe, create_run, train

    tokenizer = train_tokenizer([str(r) for r in RECORDS], vocab_size=270)
    model = GPT2(
        GPT2Config(
            vocab_size=270,
            n_positions=64,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    start = model.init(key=jax.random.key(0))
    run = create_run(
        tmp_path_factory.mktemp("runs") / "run",
        model=model,
        params=start,
        records=RECORDS,
        tokenizer=tokenizer,
        recipe=Recipe(epochs=6, batch_size=4, learning_rate=1e-2),
        max_length=64,
    )
    trained = train(model, start, run.data, run.recipe, directory=run.directory)
    others = [
        {"question": f"Where is {name}?", "answer": f"In {name}ville."}
        for name in ("Zoe", "Kai")
    ]
    unseen = tokenize(others, tokenizer, max_length=64)

    def batches(data):
        return in_order(data, batch_size=4, length=run.data.length)

    sets = Sets(
        batches(subset(run.data, [1, 6])),
        batches(subset(run.data, [0, 2, 3, 4, 5, 7])),
        batches(unseen),
    )
    return World(language_task(model), trained.params, sets, run, [1, 6])


@pytest.fixture(scope="session")
def classification():
    """Two dense layers and three classes, one of which is to be forgotten."""
    from jaxunlearn.tasks import classification_task

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 4).astype(np.int32)
    inputs = (rng.normal(size=(12, 5)) + 3 * np.eye(5)[labels]).astype(np.float32)

    def network(params, x):
        hidden = jnp.tanh(x @ params["first"]["kernel"])
        return hidden @ params["second"]["kernel"]

    task = classification_task(network)
    params = {
        "first": {"kernel": jnp.asarray(0.5 * rng.normal(size=(5, 6)), jnp.float32)},
        "second": {"kernel": jnp.asarray(0.5 * rng.normal(size=(6, 3)), jnp.float32)},
    }

    def batches(rows):
        size = len(rows)
        chosen = np.pad(rows, (0, 8 - size), "edge")
        real = np.arange(8) < size
        return [
            {
                "inputs": inputs[chosen],
                "labels": labels[chosen],
                "index": np.where(real, chosen, -1).astype(np.int32),
                "weight": real.astype(np.float32),
            }
        ]

    everything = batches(np.arange(12)[::2]) + batches(np.arange(12)[1::2])
    slope = jax.jit(
        jax.grad(lambda p: sum(jnp.sum(b["weight"] * task(p, b)) for b in everything))
    )
    for _ in range(60):
        params = tree.add_scaled(params, -0.05, slope(params))
    sets = Sets(
        batches(np.arange(3)), batches(np.arange(4, 12)), batches(np.arange(3, 4))
    )
    return World(task, params, sets)
