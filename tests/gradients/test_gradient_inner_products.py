"""Inner products of per-example gradients, on a GPT-2 with a tied head and two layers.

Everything is compared with gradients by vmap(grad), all leaves in one flat vector.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import tree
from jaxunlearn.gradients import (
    directional_scores,
    fisher_diagonal,
    gradient_products,
    per_example_gradients,
    per_example_norms,
    products_with,
    token_contributions,
)
from jaxunlearn.gradients.gradient_inner_products import leaf_products
from jaxunlearn.gradients.taps import heads
from jaxunlearn.gradients.taps.listening import UntappedWarning
from jaxunlearn.models import GPT2, GPT2Config

EPS = 2.0**-23
SHAPE = dict(vocab_size=97, n_positions=8, n_embd=16, n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(lambda key: GPT2(GPT2Config(**SHAPE)).init(key=key), key())
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    values = [0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(structure, values)


def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def texts():
    """Six texts; one is padding, one has a label only at its end."""
    rng = np.random.default_rng(1)
    ids = rng.integers(97, size=(6, 7)).astype(np.int32)
    mask = (np.arange(7) < np.array([[7], [5], [7], [0], [6], [7]])).astype(np.int32)
    labels = np.where(mask == 1, ids, -100).astype(np.int32)
    labels[4, :5] = -100
    ids[5] = ids[5, 0]  # one token again and again
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "weight": np.float32([1, 2, 0.5, 0, 1, 1]),
    }


def loss_of(**options):
    return GPT2(GPT2Config(**SHAPE, **options)).per_example_loss


@pytest.fixture(scope="module")
def plain():
    return loss_of()


@pytest.fixture(scope="module")
def exact(params, texts, plain, fast, one_by_one):
    """The slow way, once for all: name -> [B,...]."""
    gradients = fast(functools.partial(one_by_one, plain))(params, texts)
    return {name: np.asarray(g) for name, g in tree.named_leaves(gradients)}


@pytest.fixture(scope="module")
def directions(exact, params):
    """The gradients of the first two texts, the queries."""
    structure = jax.tree.structure(params)
    return jax.tree.unflatten(structure, [g[:2] for g in exact.values()])


def flat(leaves):
    return np.concatenate([x.reshape(len(x), -1) for x in leaves.values()], axis=1)


def close(found, expected, eps=EPS):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    atol = 200 * eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def close_fisher(found, exact, texts):
    for name, leaf in tree.named_leaves(found):
        mean = np.average(exact[name] ** 2, axis=0, weights=texts["weight"])
        close(leaf, mean)


def test_on_gpt2_all_agree(exact, directions, params, texts, plain, fast):
    queries = jax.tree.map(lambda x: x[:2], texts)

    @fast
    def everything(params, texts, queries, directions):
        given = plain, params, texts, directions
        return {
            "norms": per_example_norms(plain, params, texts),
            "fisher": fisher_diagonal(plain, params, texts),
            "of gradients": gradient_products(plain, params, texts, queries),
            "of tokens": token_contributions(*given),
            "of leaves": leaf_products(*given),
            "along": directional_scores(*given),
            "along one": directional_scores(
                *given[:3], jax.tree.map(lambda x: x[1], directions)
            ),
        }

    found = everything(params, texts, queries, directions)
    rows = flat(exact)
    expected = rows[:2] @ rows.T
    close(found["norms"], np.linalg.norm(rows, axis=1))
    close_fisher(found["fisher"], exact, texts)
    close(found["of gradients"], expected)
    close(found["along"], expected)
    close(found["along one"], expected[1])
    assert found["of tokens"].shape == (2, 6, 7)
    close(found["of tokens"].sum(axis=-1), expected)
    close(sum(found["of leaves"].values()), expected)
    for i in range(2):
        own = flat({"": exact["h/attn/c_attn/kernel"][:, i]})
        of_layer = found["of leaves"][f"h/{i}/attn/c_attn/kernel"]
        close(of_layer, own[:2] @ own.T)


def test_a_selection_of_layers_counts_alone(
    exact, directions, params, texts, plain, fast
):
    @fast
    def everything(params, texts, directions):
        given, block = (plain, params, texts), "h/1/attn"
        return {
            "norms": per_example_norms(*given, layers=block),
            "fisher": fisher_diagonal(*given, layers=block),
            "gradients": per_example_gradients(*given, layers=block),
            "along": directional_scores(*given, directions, layers=block),
            "wte": products_with(*given, directions, layers="wte"),
            "wpe|ln_f": token_contributions(*given, directions, layers="wpe|ln_f"),
        }

    found = everything(params, texts, directions)

    def kept(layers):
        masks = dict(tree.named_leaves(tree.select(params, layers)))
        return {name: g * masks[name] for name, g in exact.items()}

    block = kept("h/1/attn")
    rows = flat(block)
    close(found["norms"], np.linalg.norm(rows, axis=1))
    close(found["along"], rows[:2] @ rows.T)
    close_fisher(found["fisher"], block, texts)
    given = dict(tree.named_leaves(found["gradients"]))
    assert set(given) == {name for name in block if "attn" in name}
    for name, leaf in given.items():
        close(leaf, block[name])
    rows = flat(kept("wte"))
    close(found["wte"], rows[:2] @ rows.T)
    rows = flat(kept("wpe|ln_f"))
    close(found["wpe|ln_f"].sum(axis=-1), rows[:2] @ rows.T)


def test_the_head_in_parts_and_examples_in_microbatches(
    exact, directions, params, texts, plain, fast, monkeypatch
):
    """Room for the logits of two examples: groups of two, and no logits kept."""
    monkeypatch.setattr(heads, "HEAD_BYTES", 4 * 7 * 97 * 2)

    @fast
    def everything(params, texts, directions):
        given = plain, params, texts
        return {
            "norms": per_example_norms(*given),
            "fisher": fisher_diagonal(*given),
            "products": products_with(*given, directions, batch_size=4),
        }

    found = everything(params, texts, directions)
    rows = flat(exact)
    close(found["norms"], np.linalg.norm(rows, axis=1))
    close_fisher(found["fisher"], exact, texts)
    close(found["products"], rows[:2] @ rows.T)


def test_remat_and_a_loss_of_the_logits(exact, params, texts, fast):
    model = GPT2(GPT2Config(**SHAPE))

    def of_logits(params, batch):
        return model.loss_of_logits(model.logits(params, batch), batch)

    @fast
    def norms(params, texts):
        losses = of_logits, loss_of(remat=True)
        return [per_example_norms(loss, params, texts) for loss in losses]

    for found in norms(params, texts):
        close(found, np.linalg.norm(flat(exact), axis=1))


def test_half_precision_is_as_good_as_its_bits(exact, params, texts, fast):
    """bfloat16 computes in 2^-8; sums stay in float32."""
    loss = loss_of(dtype="bfloat16")

    @fast
    def everything(params, texts):
        given = loss, params, texts
        return per_example_gradients(*given), per_example_norms(*given)

    gradients, norms = everything(params, texts)
    rows, reference = flat(dict(tree.named_leaves(gradients))), flat(exact)
    coarse = 2.0**-8
    error = np.linalg.norm(rows - reference, axis=1)
    assert (error <= 5 * coarse * np.linalg.norm(reference, axis=1)).all()
    # Whatever bfloat16 did to the factors, the norms are made of the same ones.
    close(norms, np.linalg.norm(rows, axis=1), eps=coarse / 200)


def test_queries_may_have_a_loss_of_their_own(fast, one_by_one):
    """A leaf without taps in one loss, and with them in the other, lies otherwise."""
    module = nn.Sequential([nn.Dense(3), nn.tanh, nn.Dense(2)])
    batch = {"x": np.float32(np.random.default_rng(0).normal(size=(4, 5, 3)))}
    params = module.init(key(), batch["x"])["params"]

    def loss(params, batch):
        out = module.apply({"params": params}, batch["x"])
        return jnp.sum(out**3, axis=(1, 2))

    def decayed(params, batch):
        return loss(params, batch) + jnp.sum(params["layers_0"]["kernel"] ** 2)

    @fast
    def everything(params, batch):
        slow = [one_by_one(each, params, batch) for each in (loss, decayed)]
        either = [
            gradient_products(a, params, batch, batch, query_loss=b)
            for a, b in ((loss, decayed), (decayed, loss))
        ]
        return slow, either

    with pytest.warns(UntappedWarning, match="layers_0/kernel"):
        slow, either = everything(params, batch)
    plain, decay = (
        flat({name: np.asarray(g) for name, g in tree.named_leaves(gradients)})
        for gradients in slow
    )
    close(either[0], decay @ plain.T)
    close(either[1], plain @ decay.T)


def test_a_tokens_share_is_the_derivative_by_weights_of_its_own(fast):
    """Give every position a copy of the weights: their gradients are the shares."""
    rng = np.random.default_rng(0)
    module = nn.Dense(3)
    x = rng.normal(size=(2, 5, 4)).astype(np.float32)
    params = {"params": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}}
    params = jax.tree.map(np.float32, params)
    mixing = rng.normal(size=(5, 5)).astype(np.float32)
    direction = jax.tree.map(lambda p: rng.normal(size=(1, *p.shape)), params)

    def loss_of_outputs(y):
        return jnp.sum(jnp.tanh(jnp.einsum("st,btd->bsd", mixing, y)) ** 2, axis=(1, 2))

    def loss(params, batch):
        return loss_of_outputs(module.apply(params, batch["x"]))

    def own_weights(copies):
        own = copies["params"]
        y = jnp.einsum("btd,tdf->btf", x, own["kernel"]) + own["bias"]
        return loss_of_outputs(y)

    found = fast(functools.partial(token_contributions, loss))(
        params, {"x": x}, direction
    )
    copies = jax.tree.map(lambda p: jnp.broadcast_to(p, (5, *p.shape)), params)
    gradients = jax.jacrev(own_weights)(copies)  # [B,T,...]
    expected = sum(
        np.einsum("btp,p->bt", g.reshape(2, 5, -1), np.ravel(d))
        for g, d in zip(
            jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True
        )
    )
    close(found[0], expected)


# Refusals.


def test_directions_that_do_not_fit_are_refused(params, texts, plain):
    wrong = jax.tree.map(lambda x: x[None], params)
    wrong["wte"] = {"embedding": params["wte"]["embedding"]}
    with pytest.raises(ValueError, match="wte/embedding is .97, 16.*one direction"):
        products_with(plain, params, texts, wrong)
    with pytest.raises(ValueError, match="shapes of params"):
        directional_scores(plain, params, texts, wrong)
    some = {"wpe": jax.tree.map(lambda x: x[None], params["wpe"])}
    with pytest.raises(ValueError, match="h/attn/c_attn/bias is None"):
        products_with(plain, params, texts, some)
    uneven = jax.tree.map(lambda x: x[None], params)
    uneven["ln_f"] = jax.tree.map(lambda x: np.stack([x, x]), params["ln_f"])
    with pytest.raises(ValueError, match=r"different Q: \[1, 2\]"):
        products_with(plain, params, texts, uneven)


def test_tokens_that_cannot_be_told_apart_are_refused():
    module = nn.Sequential([nn.Dense(4), lambda x: x.mean(axis=1), nn.Dense(2)])
    x = np.ones((2, 3, 4), np.float32)
    params = jax.eval_shape(module.init, key(), x)
    params = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), params)
    direction = jax.tree.map(lambda p: p[None], params)

    def loss(params, batch):
        return module.apply(params, batch["x"]).sum(axis=-1)

    def shape(layers):
        contributions = functools.partial(token_contributions, loss, layers=layers)
        return jax.eval_shape(contributions, params, {"x": x}, direction).shape

    with pytest.raises(ValueError, match="no shares of single tokens for .*layers_2"):
        shape(None)
    assert shape("layers_0") == (1, 2, 3)
