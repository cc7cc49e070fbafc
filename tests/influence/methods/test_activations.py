import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.influence.methods.activations import activation_scores
from jaxunlearn.models import GPT2, GPT2Config

EPS = np.finfo(np.float32).eps
CONFIG = GPT2Config(
    vocab_size=97,
    n_positions=8,
    n_embd=16,
    n_layer=2,
    n_head=2,
    activation_function="relu",
)
LAYERS = [
    f"h/{layer}/{name}/kernel"
    for layer in range(CONFIG.n_layer)
    for name in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj")
]


def assert_close(found, expected):
    limit = 200 * EPS * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


def assert_all_close(found, expected):
    assert list(found.by_layer) == LAYERS
    for layer in LAYERS:
        assert_close(found.by_layer[layer], expected[layer])
    assert_close(found.scores, sum(expected.values()))


def normal(x, leaves):
    centred = x - x.mean(-1, keepdims=True)
    scale = jnp.sqrt((centred**2).mean(-1, keepdims=True) + CONFIG.layer_norm_epsilon)
    return centred / scale * leaves["scale"] + leaves["bias"]


def written_out(params, ids, added):
    """GPT-2's loss of one text, without padding, and the inputs of its matrices.

    ``added`` is what to add to each of these inputs.
    """
    seen = {}

    def dense(name, x):
        layer, rest = name.split("/")[1], name.split("/")[2:]
        seen[f"{name}/kernel"] = x
        leaves = params["h"]
        for part in rest:
            leaves = leaves[part]
        x = x + added.get(f"{name}/kernel", 0.0)
        return x @ leaves["kernel"][int(layer)] + leaves["bias"][int(layer)]

    length, width = len(ids), CONFIG.n_embd // CONFIG.n_head
    x = params["wte"]["embedding"][ids] + params["wpe"]["embedding"][:length]
    for layer in range(CONFIG.n_layer):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["h"])
        qkv = dense(f"h/{layer}/attn/c_attn", normal(x, block["ln_1"]))
        q, k, v = (
            part.reshape(length, CONFIG.n_head, width)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        scores = jnp.einsum("thk,shk->hts", q, k) / width**0.5
        scores = jnp.where(jnp.tril(jnp.ones((length, length))), scores, -jnp.inf)
        heads = jnp.einsum("hts,shk->thk", jax.nn.softmax(scores), v)
        x = x + dense(f"h/{layer}/attn/c_proj", heads.reshape(length, -1))
        units = jax.nn.relu(
            dense(f"h/{layer}/mlp/c_fc", normal(x, block["ln_2"])),
        )
        x = x + dense(f"h/{layer}/mlp/c_proj", units)
    logits = normal(x, params["ln_f"]) @ params["wte"]["embedding"].T
    log_probability = jax.nn.log_softmax(logits[:-1])
    losses = -jnp.take_along_axis(log_probability, ids[1:, None], axis=1)
    return losses.mean(), seen


def padded(texts, length):
    ids = np.zeros((len(texts), length), np.int32)
    mask = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    labels = np.where(mask == 1, ids, -100).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.fixture(scope="module")
def problem():
    """A GPT-2, five training texts and three queries, and their scores written out."""
    rng = np.random.default_rng(0)
    model = GPT2(CONFIG)
    params = jax.tree.map(
        lambda x: jnp.float32(rng.normal(0.0, 0.2, x.shape)),
        jax.eval_shape(lambda: model.init(key=jax.random.key(0))),
    )
    train, query = (
        [rng.integers(97, size=n).astype(np.int32) for n in lengths]
        for lengths in [(6, 3, 3, 6, 6), (3, 6, 6)]
    )

    @jax.jit
    def slow(params, ids, added):
        (value, seen), gradient = jax.value_and_grad(
            lambda added: written_out(params, ids, added), has_aux=True
        )(added)
        return value, seen, gradient

    zeros = {
        n: {
            name: jnp.zeros((n, CONFIG.n_embd * (4 if "mlp/c_proj" in name else 1)))
            for name in LAYERS
        }
        for n in (3, 6)
    }

    def means(ids):
        seen = slow(params, ids, zeros[len(ids)])[1]
        return {name: x.mean(axis=0) for name, x in seen.items()}

    def descents(ids):
        gradient = slow(params, ids, zeros[len(ids)])[2]
        return {name: -x.sum(axis=0) for name, x in gradient.items()}

    own = [means(ids) for ids in train]
    expected = {}
    for kind, of_query in (("act_act", means), ("act_grad", descents)):
        asked = [of_query(ids) for ids in query]
        expected[kind] = {
            layer: np.array([[q[layer] @ i[layer] for i in own] for q in asked])
            for layer in LAYERS
        }
    return types.SimpleNamespace(
        loss=model.per_example_loss,
        params=params,
        train=train,
        query=query,
        expected=expected,
        slow=slow,
        zeros=zeros,
    )


def test_scores_are_those_of_the_model_written_out(problem):
    compute = jax.jit(functools.partial(activation_scores, problem.loss))
    found = compute(problem.params, padded(problem.train, 6), padded(problem.query, 6))
    assert found.scores.dtype == jnp.float32
    assert_all_close(found, problem.expected["act_act"])


@pytest.mark.slow
def test_so_are_those_of_padded_batches_taken_in_parts(problem):
    # Longer texts' worth of padding on both sides, an empty text, batches of two.
    longer = padded([*problem.train, []], 8)
    batches = [
        jax.tree.map(lambda x, i=i: x[i : i + 2], longer) for i in range(0, 6, 2)
    ]
    query = padded(problem.query, 8)
    found = activation_scores(
        problem.loss, problem.params, batches, query, kind="act_grad", batch_size=2
    )
    np.testing.assert_array_equal(found.scores[:, 5], 0.0)
    assert_all_close(
        jax.tree.map(lambda x: x[:, :5], found), problem.expected["act_grad"]
    )


def test_layers_pick_blocks_and_matrices(problem):
    found = jax.jit(
        functools.partial(
            activation_scores, problem.loss, layers="h/1/mlp|wte|h/0/attn/c_proj/bias"
        )
    )(problem.params, padded(problem.train, 6), padded(problem.query, 6))
    chosen = LAYERS[-2:]
    assert list(found.by_layer) == chosen
    assert_close(found.scores, sum(problem.expected["act_act"][k] for k in chosen))


def test_a_small_step_along_an_activation_lowers_the_loss_by_its_score(problem):
    layer = LAYERS[3]
    scores = problem.expected["act_grad"][layer]
    q, i = np.unravel_index(np.argmax(np.abs(scores)), scores.shape)
    query, train = problem.query[q], problem.train[i]
    zeros = problem.zeros[len(train)]
    mean = problem.slow(problem.params, train, zeros)[1][layer].mean(axis=0)
    zeros, step = problem.zeros[len(query)], 1e-2
    # A central difference, so that rounding and not curvature limits it.
    above, below = (
        problem.slow(
            problem.params, query, zeros | {layer: zeros[layer] + sign * step * mean}
        )[0]
        for sign in (1, -1)
    )
    fall = float(below - above) / (2 * step)
    np.testing.assert_allclose(fall, scores[q, i], rtol=0.01)


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="VALID", name="conv")(x))
        x = nn.LayerNorm(name="norm")(x).reshape(len(x), -1)
        return nn.Dense(3, use_bias=False, name="out")(x) * self.param(
            "kernel", nn.initializers.ones, (3,)
        )


def test_layers_of_any_linen_model_by_what_they_see():
    model = Images()
    draw = np.random.default_rng(1)
    train, query = (
        {"x": draw.normal(size=(n, 5, 4, 2)).astype(np.float32)} for n in (4, 2)
    )
    params = jax.jit(model.init)(jax.random.key(0), train["x"])["params"]

    def loss(params, batch):
        return (model.apply({"params": params}, batch["x"]) ** 2).sum(axis=1)

    found = jax.jit(functools.partial(activation_scores, loss))(params, train, query)
    # "kernel" by itself is no layer of a standard kind, and has no activation.
    assert list(found.by_layer) == ["conv/kernel", "out/kernel"]

    def patches(x):
        seen = [x[:, i : i + 3, j : j + 3] for i in range(3) for j in range(2)]
        return np.stack(seen).mean(axis=0).reshape(len(x), -1)

    assert_close(
        found.by_layer["conv/kernel"], patches(query["x"]) @ patches(train["x"]).T
    )


def test_what_cannot_be_scored_is_refused(problem):
    data = padded(problem.train, 6), padded(problem.query, 6)
    with pytest.raises(ValueError, match="kind='cosine': one of act_act, act_grad"):
        activation_scores(problem.loss, problem.params, *data, kind="cosine")
    with pytest.raises(ValueError, match="layers='ln_1' matches no weight matrix"):
        activation_scores(problem.loss, problem.params, *data, layers="ln_1")
    with pytest.raises(ValueError, match="holds no batch"):
        activation_scores(problem.loss, problem.params, [], data[1])
    with pytest.raises(ValueError, match="layers=None matches no weight matrix"):
        activation_scores(
            lambda params, batch: params["w"] * batch["x"],
            {"w": jnp.float32(1.0)},
            {"x": jnp.ones(3)},
            {"x": jnp.ones(2)},
        )
