"""Whatever takes a loss takes a task, whose arrays are arguments of its programs."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import gradients, tree
from jaxunlearn.gradients.arguments import as_argument, is_tree, stacked_folders
from jaxunlearn.gradients.difficulty import el2n, grand
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.tasks import classification_task, language_task

EPS = 2.0**-23
TRACES = []


class Network(nn.Module):
    """A convolution between frozen statistics and a dense layer."""

    @nn.compact
    def __call__(self, x):
        TRACES.append(1)
        x = nn.Conv(3, (2, 2))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(x.mean((1, 2)))


def setup():
    rng = np.random.default_rng(0)
    batches = [
        {
            "inputs": rng.normal(size=(4, 3, 3, 2)).astype(np.float32),
            "labels": rng.integers(3, size=4).astype(np.int32),
            "index": np.arange(4, dtype=np.int32) + start,
            "weight": np.ones(4, np.float32),
        }
        for start in (0, 4)
    ]
    variables = Network().init(jax.random.key(0), batches[0]["inputs"])
    statistics = {"batch_stats": variables["batch_stats"]}
    task = classification_task(Network(), variables=statistics)
    return task, variables["params"], batches


TASK, PARAMS, BATCHES = setup()
OTHER = jax.tree.map(lambda x: x + 0.3, TASK)
VECTOR = jax.tree.map(lambda x: 0.1 + x**2, PARAMS)


def outputs(params, batch):
    return TASK.outputs(params, batch)


def loss(params, batch):
    """The same as a function, which has its statistics inside."""
    return TASK(params, batch)


CALLS = {
    "norms": lambda f, data: gradients.per_example_norms(f, PARAMS, data),
    "fisher": lambda f, data: gradients.fisher_diagonal(f, PARAMS, data),
    "products": lambda f, data: gradients.directional_scores(f, PARAMS, data, VECTOR),
    "hvp": lambda f, data: gradients.hvp(f, PARAMS, data, VECTOR),
    "fisher_vp": lambda f, data: gradients.fisher_vp(f, PARAMS, data, VECTOR),
    "grand": lambda f, data: grand(f, PARAMS, data),
    "ekfac": lambda f, data: gradients.fit_ekfac(f, PARAMS, data).eigenvalues,
    "gauss_newton": lambda f, data: gradients.gauss_newton_vp(
        f,
        PARAMS,
        data,
        VECTOR,
        **({} if is_tree(f) else GIVEN),
    ),
}
GIVEN = {"logits": outputs, "loss_of_logits": TASK.loss_of_outputs}


def close(found, expected):
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for (name, x), (_, y) in zip(
        tree.named_leaves(found), tree.named_leaves(expected), strict=True
    ):
        np.testing.assert_allclose(
            x, y, rtol=0, atol=500 * EPS * max(1, scale), err_msg=name
        )


@pytest.mark.parametrize("name", CALLS)
def test_a_task_is_a_loss_and_its_arrays_are_arguments(name):
    call = CALLS[name]
    found = call(TASK, BATCHES)
    close(found, call(loss, BATCHES))
    TRACES.clear()
    again = jax.tree.map(lambda x: x + 0, TASK)
    close(call(again, BATCHES), found)
    traced = len(TRACES)
    other = call(OTHER, BATCHES)
    # Other statistics are other numbers in the same program.
    assert len(TRACES) == 2 * traced
    flat, before = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (other, found)
    )
    assert np.abs(flat - before).max() > 1e-3 * np.abs(before).max()


def test_a_task_says_which_outputs_and_labels_an_error_is_between():
    own = el2n(TASK, PARAMS, BATCHES)
    close(own, el2n(outputs, PARAMS, BATCHES))
    relabelled = [{**b, "y": b["labels"]} for b in BATCHES]
    for batch in relabelled:
        del batch["labels"]
    named = classification_task(Network(), variables=TASK.variables, labels="y")
    close(el2n(named, PARAMS, relabelled), own)
    assert np.all(np.asarray(own) > 0)


def test_a_decoder_and_its_task_give_the_same():
    model = GPT2(
        GPT2Config(vocab_size=11, n_positions=6, n_embd=4, n_layer=2, n_head=2)
    )
    params = jax.tree.map(lambda x: 5 * x, model.init(key=jax.random.key(0)))
    ids = np.random.default_rng(0).integers(11, size=(3, 6)).astype(np.int32)
    batch, task = {"input_ids": ids, "labels": ids}, language_task(model)
    product = functools.partial(gradients.gauss_newton_vp, params=params, vector=params)
    bound = product(model.per_example_loss, batch_or_batches=[batch])
    close(product(task, batch_or_batches=[batch]), bound)
    given = {"logits": task.outputs, "loss_of_logits": task.loss_of_outputs}
    plain = product(lambda p, b: task(p, b), batch_or_batches=[batch], **given)
    close(plain, bound)
    assert np.asarray(bound["wte"]["embedding"]).any()
    close(el2n(task, params, [batch]), el2n(model.logits, params, [batch]))


def test_what_a_task_has_not_is_asked_for():
    class Bare:
        def __call__(self, params, batch):
            return batch["x"] * params

    with pytest.raises(ValueError, match="neither a task that has loss_of_outputs"):
        gradients.gauss_newton_vp(
            Bare(), jnp.ones(()), {"x": jnp.ones(2)}, jnp.ones(())
        )


def test_a_method_of_a_task_is_a_tree_too():
    method = as_argument(OTHER.outputs)
    assert len(jax.tree.leaves(method)) == len(jax.tree.leaves(OTHER)) > 0
    close(jax.jit(method)(PARAMS, BATCHES[0]), OTHER.outputs(PARAMS, BATCHES[0]))
    assert not jax.tree.leaves(as_argument(outputs))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.tanh(nn.Dense(4, name="mlp")(x)), None


class Scanned(nn.Module):
    """Three blocks in one, which are called neither ``h`` nor ``layers``."""

    @nn.compact
    def __call__(self, x):
        blocks = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(3, name="h")(x)


def test_one_block_of_a_task_is_addressed_by_its_number():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    batch = {"inputs": x, "labels": np.int32([0, 1, 2, 1, 0])}
    params = Scanned().init(jax.random.key(0), x)["params"]
    task = classification_task(Scanned(), stacked=("blocks",))
    every = gradients.fisher_diagonal(task, params, [batch])
    one = gradients.fisher_diagonal(task, params, [batch], layers="^blocks/1/")
    kernel = one["blocks"]["mlp"]["kernel"]
    close(kernel[1], every["blocks"]["mlp"]["kernel"][1])
    assert np.asarray(kernel[1]).any()
    assert not np.asarray(kernel[::2]).any()
    # An ordinary layer called h is one layer.
    assert not np.asarray(one["h"]["kernel"]).any()
    whole = gradients.fisher_diagonal(task, params, [batch], layers="^h/")
    close(whole["h"], every["h"])
    untold = classification_task(Scanned())
    with pytest.raises(ValueError, match="no folder is said to be stacked"):
        gradients.fisher_diagonal(untold, params, [batch], layers="^blocks/1/")


def test_stacked_folders_are_told_by_whoever_knows():
    class Model:
        stacked = ("blocks",)

        def loss(self, params, batch):
            return batch["x"]

    assert stacked_folders(Model().loss, {}) == ("blocks",)
    assert stacked_folders(as_argument(Model().loss), {}) == ("blocks",)
    gpt2 = {"h": {"attn": {"c_attn": {"kernel": np.zeros((2, 3, 9))}}}}
    for function in (loss, as_argument(loss)):
        assert stacked_folders(function, {"h": {"kernel": np.zeros((2, 3))}}) == ()
        assert stacked_folders(function, gpt2) == ("h",)
    # A task that has no stacked folder says so, whatever they are called.
    assert stacked_folders(TASK.outputs, gpt2) == ()
