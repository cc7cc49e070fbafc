"""A small GPT-2, ten examples of several lengths, and their gradients the slow way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.data import Example, TokenizedData, collate
from jaxunlearn.models.gpt2 import GPT2, GPT2Config
from jaxunlearn.training import Recipe, Recording, loop, train
from jaxunlearn.training.recipe import step_key

PAD = 96
# One kind of dropout stands for all: every kind more takes seconds to compile.
DROPOUT = GPT2Config(
    vocab_size=97,
    n_positions=16,
    n_embd=16,
    n_layer=2,
    n_head=2,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=96,
)
NO_DROPOUT = dataclasses.replace(DROPOUT, resid_pdrop=0.0)


@dataclasses.dataclass(frozen=True)
class Bigram:
    """Logistic regression of a token on the one before: convex, quick to compile."""

    config: GPT2Config = NO_DROPOUT
    has_dropout = False

    def per_example_loss(self, params, batch, *, key=None):
        logits = params["wte"]["embedding"][batch["input_ids"][:, :-1]]
        labels = batch["labels"][:, 1:]
        counted = labels >= 0
        picked = jnp.take_along_axis(
            logits, jnp.where(counted, labels, 0)[..., None], 2
        )
        losses = jax.nn.logsumexp(logits, axis=-1) - picked[..., 0]
        sums = jnp.sum(jnp.where(counted, losses, 0.0), axis=-1)
        return sums / jnp.maximum(counted.sum(axis=-1), 1)


@pytest.fixture(scope="session")
def bigram():
    """A convex model, and parameters for it."""
    table = np.random.default_rng(2).normal(size=(97, 97))
    return Bigram(), {"wte": {"embedding": jnp.asarray(table, jnp.float32)}}


@pytest.fixture(scope="session")
def model():
    """GPT-2 without dropout."""
    return GPT2(NO_DROPOUT)


@pytest.fixture(scope="session")
def dropout_model():
    """GPT-2 with dropout."""
    return GPT2(DROPOUT)


@pytest.fixture(scope="session")
def params(model):
    """Weights far from a start, so that every term counts."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))

    def draw(path, x):
        normal = 0.25 * rng.standard_normal(x.shape)
        return jnp.asarray(normal + (path[-1].key == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def data():
    """Ten examples of 4 to 12 tokens, most of them with a prompt that has no loss."""
    rng = np.random.default_rng(1)
    examples = []
    for i, size in enumerate((12, 4, 7, 9, 5, 12, 8, 4, 11, 6)):
        ids = rng.integers(PAD, size=size).astype(np.int32)
        labels = ids.copy()
        labels[: (i % 3) * size // 4] = -100
        examples.append(Example(ids, labels, i))
    return TokenizedData(tuple(examples), 0, 0, PAD)


@pytest.fixture(scope="session")
def slow_gradient(data):
    """The gradient of one example alone: ``jax.grad`` of a batch of one."""
    programs = {}

    def gradient(model, params, index, *, recipe=None, step=0):
        one = collate(data, [index], batch_size=1, length=12)
        key = None if recipe is None else step_key(recipe, model, step)
        if model not in programs:

            def loss(params, one, key):
                return model.per_example_loss(params, one, key=key)[0]

            programs[model] = jax.jit(jax.grad(loss))
        return programs[model](params, one, key)

    return gradient


@pytest.fixture(scope="session")
def distance():
    """The relative distance of two trees, ``|a - b| / |b|``, in float64."""

    def relative(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        pairs = [
            (np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs
        ]
        apart = sum(np.sum((x - y) ** 2) for x, y in pairs)
        return (apart / sum(np.sum(y**2) for _, y in pairs)) ** 0.5

    return relative


@pytest.fixture(scope="session")
def length():
    """The norm of a tree, in float64."""

    def norm(a):
        return (
            sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(a))
            ** 0.5
        )

    return norm


@pytest.fixture(scope="session")
def same_bits():
    """Whether two trees are equal bit for bit."""

    def same(a, b):
        equal = jax.tree.map(
            lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b
        )
        return all(jax.tree.leaves(equal))

    return same


@pytest.fixture(scope="session", autouse=True)
def compile_once():
    """Hand ``jax.jit`` the same recording step where a run is trained again."""
    known, make = {}, loop.make_recording_step

    def remembered(model, recipe, transform, layers, **options):
        key = (model, recipe, layers, *options.items())
        if key not in known:
            known[key] = make(model, recipe, transform, layers, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_recording_step", remembered)
        yield


@dataclasses.dataclass
class RecordedRun:
    """A run that stored its gradients, and the parameters around each step."""

    model: GPT2
    recipe: Recipe
    recording: Recording
    directory: object
    path: list

    @property
    def gradients(self):
        return self.directory / "gradients"


@pytest.fixture(scope="session")
def train_recorded(params, data):
    """Train with recording and keep the parameters on the way."""

    def run(model, recipe, recording, directory):
        path = []

        def keep(params):
            path.append(jax.tree.map(lambda x: x.copy(), params))
            return {"norm": float(tree.norm(params))}

        train(
            model,
            params,
            data,
            recipe,
            directory=directory,
            recording=recording,
            evaluate=keep,
            evaluate_every=1,
        )
        return RecordedRun(model, recipe, recording, directory, path)

    return run


@pytest.fixture(scope="session")
def everything_run(train_recorded, dropout_model, tmp_path_factory):
    """All leaves, two of three epochs, nothing left out; all of a step but Adam."""
    recipe = Recipe(
        epochs=3,
        batch_size=4,
        learning_rate=0.05,
        optimizer="momentum",
        schedule="linear",
        warmup_steps=2,
        clip_norm=1.0,
        seed=3,
    )
    recording = Recording(layers=".", epochs=(1, 2), head_entries=97)
    return train_recorded(
        dropout_model, recipe, recording, tmp_path_factory.mktemp("everything")
    )


@pytest.fixture(scope="session")
def truncated_run(train_recorded, model, tmp_path_factory):
    """The embedding, six entries a row; AdamW in microbatches."""
    recipe = Recipe(
        epochs=1,
        batch_size=4,
        learning_rate=0.01,
        weight_decay=0.1,
        schedule="cosine",
        reduction="example",
        microbatch_size=2,
        seed=4,
    )
    recording = Recording(head_entries=6)
    return train_recorded(
        model, recipe, recording, tmp_path_factory.mktemp("truncated")
    )
