"""What may be tapped, and what must not: the numbers are those of vmap(grad) anyway.

The networks and losses are written as people write them, without a thought of taps.
"""

import warnings
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from jax.flatten_util import ravel_pytree

from jaxunlearn import tree
from jaxunlearn.gradients import layer_taps, per_example_gradients, per_example_loss
from jaxunlearn.gradients.taps.listening import UntappedWarning

SIZE = WIDTH = 4  # and as many tokens: no length tells one axis from another


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def squares(outputs):
    """A loss to which every output matters in its own way."""
    weight = jnp.sin(jnp.arange(1.0, outputs[0].size + 1)).reshape(outputs.shape[1:])
    return jnp.sum(weight * jnp.tanh(outputs) ** 2, axis=tuple(range(1, outputs.ndim)))


def network(module, wrap=lambda apply: apply):
    """Return (loss, params, batch) of a module on [B,T,D]."""
    batch = {"x": normal(SIZE, WIDTH, WIDTH)}
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch["x"])["params"]
    leaves, structure = jax.tree.flatten(shapes)
    params = [0.5 * normal(*x.shape, seed=i) for i, x in enumerate(leaves)]
    apply = wrap(lambda params, x: module.apply({"params": params}, x))

    def loss(params, batch):
        return squares(apply(params, batch["x"]))

    return loss, jax.tree.unflatten(structure, params), batch


class Compact(nn.Module):
    """A module written as a function of itself and its input."""

    body: Callable

    @nn.compact
    def __call__(self, x):
        return self.body(self, x)


def mlp(self, x):
    return nn.Dense(2, name="last")(nn.gelu(nn.Dense(WIDTH, name="first")(x)))


MLP = {"first/kernel", "first/bias", "last/kernel", "last/bias"}


# Tapped throughout, in whatever way blocks are put together.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.tanh(nn.Dense(WIDTH)(nn.LayerNorm()(x))), None


def scanned(block, length, axis=0):
    return nn.scan(
        block,
        variable_axes={"params": axis},
        split_rngs={"params": True},
        length=length,
    )


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return scanned(nn.remat(Block), 2)(name="inner")(x, None)


def put_together(self, x):
    x = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.LayerNorm()])(x)
    x, _ = nn.remat(Block)()(x)
    x, _ = nn.jit(Block)()(x)
    at = nn.Embed(WIDTH, WIDTH, name="at")(jnp.arange(WIDTH)[None])
    x, _ = scanned(Blocks, 3)(name="outer")(x * at, None)
    return x


def test_all_leaves_are_tapped_however_blocks_are_put_together(compared):
    loss, params, batch = network(Compact(put_together))
    assert compared(loss, params, batch, passes=True) == set()
    shape = params["outer"]["inner"]["Dense_0"]["kernel"].shape
    assert shape == (3, 2, WIDTH, WIDTH)


# Not what they seem: these fall back, as a whole or in part.


def called_twice(self, x):
    dense = nn.Dense(WIDTH, name="shared")
    return nn.Dense(2, name="own")(dense(nn.gelu(dense(x))))


def called_in_vain(self, x):
    dense = nn.Dense(WIDTH, name="dense")
    dense(x[:, :1])
    return dense(x)


def own_parameters(self, x):
    """A class token and a LayerScale."""
    token = self.param("token", nn.initializers.normal(), (1, 1, WIDTH))
    scale = self.param("scale", nn.initializers.ones, (WIDTH,))
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, WIDTH)), x], axis=1)
    return nn.Dense(2, name="dense")(scale * x)


class Cell(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        carry = nn.tanh(nn.Dense(WIDTH, name="h")(carry) + nn.Dense(WIDTH, name="i")(x))
        return carry, carry


def over_time(self, x):
    step = nn.scan(
        Cell,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
    )
    _, out = step(name="cell")(jnp.zeros((len(x), WIDTH)), x)
    return nn.Dense(2, name="dense")(out)


def several_heads(self, x):
    heads = nn.vmap(
        nn.Dense,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=WIDTH,
    )
    return jnp.moveaxis(heads(2, name="dense")(x), 0, 1)


def mapped_by_linen(self, x):
    dense = nn.vmap(
        nn.Dense, variable_axes={"params": None}, split_rngs={"params": False}
    )
    return dense(2, name="dense")(x)


def time_first(self, x):
    return nn.Dense(2, name="dense")(x.swapaxes(0, 1)).swapaxes(0, 1)


def one_long_row(self, x):
    y = nn.Dense(WIDTH, name="dense")(x.reshape(1, -1, WIDTH))
    return y[0].reshape(x.shape)


def positions(self, x):
    return nn.Embed(WIDTH, WIDTH, name="positions")(jnp.arange(WIDTH)[None])


def positions_taken_out(self, x):
    return nn.Dense(2, name="dense")(x) * positions(self, x)[0, :, :2]


def positions_tiled(self, x):
    return x * jnp.tile(positions(self, x), (len(x), 1, 1))


def positions_without_examples(self, x):
    return x * nn.Embed(WIDTH, WIDTH, name="positions")(jnp.arange(WIDTH))


def stacked_behind(self, x):
    return scanned(Block, WIDTH, axis=1)(name="behind")(x, None)[0]


def normed_weights(self, x):
    return nn.WeightNorm(nn.Dense(2, name="dense"))(x)


DENSE = {"dense/kernel", "dense/bias"}
FALLS_BACK = [
    (called_twice, {"shared/kernel", "shared/bias"}),
    (called_in_vain, DENSE),
    (own_parameters, {"token", "scale"}),
    (over_time, {f"cell/{a}/{b}" for a in "hi" for b in ("kernel", "bias")}),
    (several_heads, DENSE),
    (mapped_by_linen, DENSE),
    (time_first, DENSE),
    (one_long_row, DENSE),
    (positions_taken_out, {"positions/embedding"}),
    (positions_tiled, {"positions/embedding"}),
    (positions_without_examples, {"positions/embedding"}),
    (
        stacked_behind,
        {
            *("behind/Dense_0/kernel", "behind/Dense_0/bias"),
            *("behind/LayerNorm_0/scale", "behind/LayerNorm_0/bias"),
        },
    ),
    (normed_weights, {*DENSE, "WeightNorm_0/dense/kernel/scale"}),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # WeightNorm's own
@pytest.mark.parametrize(
    ("body", "untapped"), FALLS_BACK, ids=lambda x: getattr(x, "__name__", "")
)
def test_what_is_no_single_call_on_the_examples_falls_back(compared, body, untapped):
    assert compared(*network(Compact(body))) == untapped


# What a loss does to parameters and network.


def changed(params, name, change):
    kernel = change(params[name]["kernel"])
    return {**params, name: {**params[name], "kernel": kernel}}


def given(change):
    """Hand the network changed parameters."""
    return lambda apply: lambda params, x: apply(change(params), x)


def adding(penalty):
    """Add a penalty on the parameters."""
    return lambda apply: lambda params, x: apply(params, x) + penalty(params)


def each_alone(apply):
    return lambda params, x: jax.vmap(lambda row: apply(params, row[None])[0])(x)


WRAPS = {
    "jit": (jax.jit, set()),
    "remat": (jax.checkpoint, set()),
    "same type": (
        given(lambda p: jax.tree.map(lambda x: x.astype(jnp.float32), p)),
        set(),
    ),
    "bfloat16": (
        given(lambda p: jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)),
        MLP,
    ),
    "doubled": (given(lambda p: jax.tree.map(lambda x: 2 * x, p)), MLP),
    "pruned": (
        given(lambda p: changed(p, "last", lambda k: k.at[::2].set(0))),
        {"last/kernel", "last/bias"},
    ),
    "frozen": (
        given(lambda p: changed(p, "last", jax.lax.stop_gradient)),
        {"last/kernel", "last/bias"},
    ),
    "transposed": (
        given(lambda p: changed(p, "first", jnp.transpose)),
        {"first/kernel", "first/bias"},
    ),
    "decay": (
        adding(lambda p: jnp.sum(p["first"]["kernel"] ** 2)),
        {"first/kernel"},
    ),
    "anchored": (
        adding(lambda p: tree.vdot(p, jax.tree.map(jnp.ones_like, p)) ** 2),
        MLP,
    ),
    "one vector": (adding(lambda p: ravel_pytree(p)[0][3] ** 2), MLP),
    "twice": (lambda apply: lambda p, x: apply(p, x) * apply(p, -x), MLP),
    "vmap": (lambda apply: jax.vmap(apply, in_axes=(None, 0)), MLP),
    "vmap of one": (each_alone, MLP),
    "map": (
        lambda apply: lambda p, x: jax.lax.map(lambda row: apply(p, row[None])[0], x),
        MLP,
    ),
    "input gradient": (
        lambda apply: lambda p, x: jax.grad(lambda x: squares(apply(p, x)).sum())(x),
        MLP,
    ),
}


@pytest.mark.parametrize("name", WRAPS)
def test_whatever_a_loss_does_with_a_network(compared, name):
    wrap, untapped = WRAPS[name]
    eps = 2.0**-7 if name == "bfloat16" else 2.0**-23
    assert compared(*network(Compact(mlp), wrap), eps=eps) == untapped


def test_the_adapter_of_a_loss_of_one_example(compared):
    """Positions are the same for all, and so look as if they were not mapped."""

    def body(self, x):
        return nn.Dense(2, name="dense")(x * positions(self, x))

    loss, params, batch = network(Compact(body))
    alone = per_example_loss(
        lambda p, row: loss(p, jax.tree.map(lambda x: x[None], row))[0]
    )
    assert compared(alone, params, batch) == {*DENSE, "positions/embedding"}


def test_parameters_may_lie_deeper_and_be_frozen(compared, fast):
    loss, params, batch = network(Compact(mlp))
    batch = {**batch, "y": normal(SIZE)}

    def deeper(params, batch):
        return batch["y"] * params["gain"] * loss(params["lm"], batch)

    whole = FrozenDict({"gain": np.float32(0.7), "lm": params})
    assert compared(deeper, whole, batch) == {"gain"}

    @fast
    def gradients(params):
        return [
            per_example_gradients(deeper, params, batch, layers=layers)
            for layers in (None, "last/kernel")
        ]

    with pytest.warns(UntappedWarning):
        found, some = gradients(whole)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    np.testing.assert_array_equal(
        some["lm"]["last"]["kernel"], found["lm"]["last"]["kernel"]
    )
    assert len(jax.tree.leaves(some)) == 1


def test_one_example_and_lengths_of_one(compared):
    loss, params, batch = network(Compact(mlp))
    assert compared(loss, params, {"x": batch["x"][:1]}) == set()
    assert compared(loss, params, {"x": batch["x"][:1, :1]}) == set()
    assert compared(loss, params, {"x": batch["x"][:, 0]}) == set()


def test_a_function_without_a_network_takes_vmap_in_silence():
    params = [{"w": normal(3, seed=i)} for i in range(11)]
    batch = {"x": normal(SIZE, 3)}

    def loss(params, batch):
        return sum((batch["x"] @ p["w"]) ** (i % 3 + 1) for i, p in enumerate(params))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = per_example_gradients(loss, params, batch, batch_size=3)
    expected = jax.jacrev(loss)(params, batch)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_no_trace_that_jit_remembers_is_listened_to():
    loss, params, batch = network(Compact(mlp))
    jitted = jax.jit(loss)
    jitted(params, batch)
    one, two = (layer_taps(jitted, params, {"x": s * batch["x"]}) for s in (1, 2))
    assert one.untapped == two.untapped == ()
    (first,), (second,) = (taps.products["first/kernel"] for taps in (one, two))
    np.testing.assert_array_equal(2 * first.left, second.left)
    assert not np.allclose(first.right, second.right)


# Refusals.


def test_a_loss_of_the_wrong_shape_is_refused():
    loss, params, batch = network(Compact(mlp))
    with pytest.raises(ValueError, match=r"float32\[4\].*per_example_loss"):
        layer_taps(lambda p, b: loss(p, b).mean(), params, batch)


def test_layers_that_match_nothing_are_refused():
    loss, params, batch = network(Compact(mlp))
    with pytest.raises(ValueError, match="'lats' matches no parameter.*last/"):
        layer_taps(loss, params, batch, layers="lats")


@pytest.mark.parametrize("affine", [True, False])
def test_normalisation_by_the_batch_is_refused(affine):
    def body(self, x):
        norm = nn.BatchNorm(False, use_scale=affine, use_bias=affine, name="norm")
        return norm(nn.Dense(2)(x))

    network, x = Compact(body), normal(SIZE, WIDTH)
    variables = network.init(jax.random.key(0), x)

    def loss(params, batch):
        now = {**variables, "params": params}
        return squares(network.apply(now, batch["x"], mutable=["batch_stats"])[0])

    with pytest.raises(ValueError, match="norm: .*depend on the others.*running_av"):
        layer_taps(loss, variables["params"], {"x": x})
