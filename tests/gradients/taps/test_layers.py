"""Every kind of layer: its outer products make the gradients of vmap(grad)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree

SIZE = 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def squares(outputs):
    """A loss to which every output matters in its own way."""
    outputs = outputs.astype(jnp.float32)
    weight = jnp.sin(jnp.arange(1.0, outputs[0].size + 1)).reshape(outputs.shape[1:])
    return jnp.sum(weight * jnp.tanh(outputs) ** 2, axis=tuple(range(1, outputs.ndim)))


class Compact(nn.Module):
    """A module written as a function of itself and its input."""

    body: Callable

    @nn.compact
    def __call__(self, x):
        return self.body(self, x)


def network(body, x):
    """Return (loss, params, batch); what is no parameter stays in the loss."""
    module = Compact(body)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    leaves, structure = jax.tree.flatten(shapes)
    values = [0.5 * normal(*s.shape, seed=i) + 0.1 for i, s in enumerate(leaves)]
    variables = dict(jax.tree.unflatten(structure, values))
    if "batch_stats" in variables:  # variances are positive
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])

    def loss(params, batch):
        return squares(module.apply({**variables, "params": params}, batch["x"]))

    return loss, variables["params"], {"x": x}


def residual_network(self, x):
    """A ResNet in little, with every way to place a window."""
    x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
    y = nn.Conv(4, (3, 2), padding=[(1, 1), (0, 1)])(x)
    y = nn.BatchNorm()(y, True)
    y = nn.Conv(4, (2, 2), kernel_dilation=2, padding="SAME")(nn.relu(y))
    x = nn.Conv(4, (1, 1), padding="VALID")(x) + nn.GroupNorm(2)(y)
    x = nn.Conv(6, (2, 2), strides=(1, 2), padding=1)(nn.relu(x))
    x = nn.avg_pool(x, (2, 2))
    return nn.Dense(3)(x.mean(axis=(1, 2)))


def lines_and_volumes(self, x):
    """Windows of one and of three dimensions."""
    x = nn.Conv(4, (3,), strides=(2,))(x)
    x = nn.InstanceNorm(epsilon=0.1)(nn.tanh(x))
    x = nn.Conv(2, (2, 1, 2), padding="VALID")(x.reshape(len(x), 4, 1, 2, 2))
    return nn.tanh(x)


def projections(self, x):
    """Dense layers of and to several axes."""
    x = nn.DenseGeneral((2, 3), axis=-1)(x)  # [B,T,2,3]
    y = nn.DenseGeneral(3, axis=(1, 2), name="over_tokens")(nn.tanh(x))
    x = nn.DenseGeneral((2, 2), axis=(-2, -1), use_bias=False)(nn.tanh(x))
    return jnp.concatenate([x.reshape(len(x), -1), y.reshape(len(x), -1)], axis=1)


def transformer(self, ids):
    """Attention, its two kinds of normalisation, and a tied head."""
    embed = nn.Embed(11, 8)
    x = embed(ids)
    normed = nn.RMSNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(2, normalize_qk=True)(normed, normed)
    x = x + nn.Dense(8)(nn.gelu(nn.Dense(8)(nn.LayerNorm(use_bias=False)(x))))
    return embed.attend(nn.LayerNorm(use_scale=False, reduction_axes=(1, 2))(x))


def half_precision(self, x):
    x = nn.Dense(4, dtype=jnp.float16)(x)
    return nn.Dense(3)(nn.LayerNorm()(nn.tanh(x)))


class Lookup(nn.Module):
    @nn.compact
    def __call__(self, x, ids):
        return x + nn.Embed(5, 4)(ids), None


def lookups(self, ids):
    """Rows counted from the end, a single row, and a table for each of two layers."""
    x = nn.Embed(7, 4)(ids - 4) * nn.Embed(1, 4)(0 * ids)
    layers = nn.scan(
        Lookup,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=2,
    )
    return layers(name="layers")(x, ids % 5)[0]


IDS = np.random.default_rng(1).integers(11, size=(SIZE, 5))
IDS[:, :2] = 0, 7  # to lookups, the same row
PIXELS = np.random.default_rng(2).integers(255, size=(SIZE, 4, 4, 1))


def pixels(self, x):
    x = nn.Conv(2, (2, 2), strides=2)(x) / 99
    return nn.Dense(2)(x) + nn.Dense(2)(jnp.int32(jnp.ones_like(x)))


TAPPED = {
    "ResNet": (residual_network, normal(SIZE, 8, 7, 2)),
    "one and three dimensions": (lines_and_volumes, normal(SIZE, 8, 3)),
    "several axes": (projections, normal(SIZE, 4, 5)),
    "transformer": (transformer, IDS),
    "half precision": (half_precision, normal(SIZE, 2, 4).astype(np.float16)),
    "lookups": (lookups, IDS),
    "integers": (pixels, PIXELS.astype(np.uint8)),
}


@pytest.mark.parametrize("name", TAPPED)
def test_standard_layers_are_tapped(compared, name):
    eps = 2.0**-10 if name == "half precision" else 2.0**-23
    passes = name in ("ResNet", "transformer", "lookups")
    assert compared(*network(*TAPPED[name]), eps=eps, passes=passes) == set()


def unusual_windows(self, x):
    x = nn.Conv(4, (3, 3), feature_group_count=2, name="grouped")(x)
    x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="circular")(nn.tanh(x))
    x = nn.ConvTranspose(2, (2, 2), name="transposed")(nn.tanh(x))
    x = nn.tanh(x)
    x = nn.Conv(2, (2, 2), input_dilation=2, padding=0, name="dilated")(x)
    x = nn.ConvLocal(1, (2, 2), name="local")(nn.tanh(x))
    x = x[:, None]  # two leading axes
    return nn.Dense(2, name="dense")(nn.Conv(2, (2, 2), name="leading")(x))


def unusual_layers(self, x):
    def doubled(*args, **kwargs):
        return 2 * jax.lax.dot_general(*args, **kwargs)

    x = nn.Dense(4, dot_general=doubled, name="doubled")(x)
    x = nn.LayerNorm(feature_axes=(1, 2), name="features")(x)
    x = nn.LayerNorm(name="masked")(x, mask=jnp.ones_like(x, dtype=bool))
    x = nn.BatchNorm(True, axis=1, name="by_token")(x)
    x = nn.RNN(nn.LSTMCell(4), name="recurrent")(x)
    x = nn.RNN(nn.GRUCell(4), name="gated")(x)
    x = nn.PReLU(name="slope")(x)
    return nn.Einsum((4, 2), "btd,df->btf", name="einsum")(nn.Dense(4, name="dense")(x))


@pytest.mark.parametrize("body", [unusual_windows, unusual_layers])
def test_other_layers_fall_back(compared, body):
    x = normal(SIZE, 4, 4, 4) if body is unusual_windows else normal(SIZE, 3, 4)
    loss, params, batch = network(body, x)
    names = {name for name, _ in tree.named_leaves(params)}
    standard = {name for name in names if name.startswith("dense/")}
    assert compared(loss, params, batch) == names - standard


def test_a_stranger_among_a_layers_parameters_is_not_tapped(compared):
    """As an adapter's matrices are kept beside the kernel they are added to."""

    def body(self, x):
        return nn.Dense(2, name="dense")(x)

    inner, params, batch = network(body, normal(SIZE, 2, 4))

    def loss(params, batch):
        own = params["dense"]
        kernel = own["kernel"] + own["low"] @ own["high"]
        return inner({"dense": {**own, "kernel": kernel}}, batch) * own["gain"]

    dense = params["dense"] | {"low": normal(4, 1), "high": normal(1, 2)}
    dense["gain"] = np.float32(0.5)
    found = compared(loss, {"dense": dense}, batch)
    assert found == {f"dense/{name}" for name in dense}

    idle = {"dense": params["dense"] | {"idle": np.float32(0.5)}}
    assert compared(inner, idle, batch) == {"dense/idle"}
