"""The digits: images, two networks without a language in them, and their training."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn.data.batching import epoch_order
from jaxunlearn.randomness import pinned, random_key
from jaxunlearn.tasks import ClassificationTask

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 1200
    unseen: int = 500
    random: int = 60  # images forgotten at random
    queries: int = 40
    seeds: int = 5
    epochs: int = 25
    batch: int = 60
    networks: tuple[str, ...] = ("mlp", "cnn")


SIZES = {
    "full": Size(),
    "smoke": Size(120, 60, 12, 6, 2, 12, 40, ("mlp",)),
}


class MLP(nn.Module):
    """Pixels to classes by one hidden layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(64, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES, name="out")(x)


class CNN(nn.Module):
    """Two blocks of convolution and layer normalization: no statistics of a batch."""

    @nn.compact
    def __call__(self, x):
        for i, channels in enumerate((8, 16)):
            x = nn.Conv(channels, (3, 3), name=f"conv_{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm_{i}")(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(CLASSES, name="out")(x.reshape(len(x), -1))


NETWORKS = {"mlp": MLP(), "cnn": CNN()}


class Images(NamedTuple):
    """Labelled images, and which of all images they are."""

    inputs: np.ndarray  # float32[n,8,8,1]
    labels: np.ndarray  # int32[n]
    index: np.ndarray  # int32[n]

    def take(self, rows: np.ndarray) -> "Images":
        return Images(*(x[rows] for x in self))


def load_images(size: Size) -> tuple[Images, Images]:
    """Return images to train on and images never seen."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs = (digits.images[..., None] / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(inputs))
    index = np.arange(len(inputs), dtype=np.int32)
    images = Images(inputs, digits.target.astype(np.int32), index).take(order)
    seen = np.arange(size.train)
    return images.take(seen), images.take(size.train + np.arange(size.unseen))


def in_batches(images: Images, batch_size: int) -> list[dict[str, np.ndarray]]:
    """Return batches of one shape, the last filled up with rows that do not count."""
    count = len(images.labels)
    found = []
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        real = rows < count
        part = images.take(np.minimum(rows, count - 1))
        found.append(
            {
                "inputs": part.inputs,
                "labels": part.labels,
                "index": np.where(real, part.index, -1).astype(np.int32),
                "weight": real.astype(np.float32),
            }
        )
    return found


def train_together(
    task: ClassificationTask, images: Images, size: Size, *, seed: int
) -> Any:
    """Return trained parameters of ``size.seeds`` models, each leaf [seeds, ...].

    A seed is a start and an order of the data. All models train in one program, one
    after the other: side by side their convolutions would be grouped ones, which take
    far longer on a CPU.
    """
    seeds, count = seed + np.arange(size.seeds), len(images.labels)
    steps = count // size.batch
    orders = [
        [
            epoch_order(int(one), epoch, count)[: steps * size.batch]
            for epoch in range(size.epochs)
        ]
        for one in seeds
    ]
    orders = np.array(orders, np.int32).reshape(size.seeds, -1, size.batch)
    # Outside of the program: compiling the draws takes longer than all of its steps.
    starts = [start(task, images.inputs[:1], key=random_key(int(s))) for s in seeds]
    starts = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    return trained(task, starts, orders, images.inputs, images.labels)


@pinned
def start(task: ClassificationTask, inputs: np.ndarray, *, key: jax.Array) -> Any:
    """Return parameters to train from."""
    return task.network.init(key, inputs)["params"]


@jax.jit
def trained(
    task: ClassificationTask,
    starts: Any,
    orders: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
) -> Any:
    """Return each start's parameters, trained on its batches int32[steps,B]."""
    adam = optax.adam(2e-3)

    def run(given: tuple[Any, jax.Array]) -> Any:
        params, order = given

        def step(state: tuple, rows: jax.Array) -> tuple:
            params, moments = state
            batch = {"inputs": inputs[rows], "labels": labels[rows]}
            gradient = jax.grad(lambda p: task(p, batch).mean())(params)
            change, moments = adam.update(gradient, moments, params)
            return (optax.apply_updates(params, change), moments), None

        return jax.lax.scan(step, (params, adam.init(params)), order)[0][0]

    return jax.lax.map(run, (starts, orders))
