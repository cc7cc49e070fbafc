import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.models import GPT2, GPT2Config, tying
from jaxunlearn.tree import norm, subtract

EPS = np.finfo(np.float32).eps


def replaced(model, **changes):
    return GPT2(dataclasses.replace(model.config, **changes))


@pytest.fixture(scope="module")
def compute(tiny, value_and_gradient):
    return value_and_gradient(tiny[0])


@pytest.fixture(scope="module")
def expected(tiny, batch, compute):
    return compute(tiny[1], batch)


def relative(a, b):
    return float(norm(subtract(a, b)) / norm(b))


# --- invariances --------------------------------------------------------------------


def test_logits_and_losses_agree(tiny, batch, expected):
    model, params = tiny
    log_probabilities = jax.nn.log_softmax(jax.jit(model.logits)(params, batch))
    for b in range(3):
        places = np.flatnonzero(batch["labels"][b, 1:] != -100)
        targets = batch["labels"][b, 1:][places]
        loss = -np.mean(log_probabilities[b, places, targets])
        np.testing.assert_allclose(loss, expected[0][b], rtol=20 * EPS)


def test_the_loss_of_the_logits_is_the_loss(tiny, batch, expected):
    model, params = tiny
    losses = jax.jit(lambda p, b: model.loss_of_logits(model.logits(p, b), b))
    np.testing.assert_allclose(losses(params, batch), expected[0], rtol=20 * EPS)


def test_remat_changes_nothing(tiny, batch, expected, value_and_gradient):
    model, params = tiny
    losses, gradient = value_and_gradient(replaced(model, remat=True))(params, batch)
    np.testing.assert_allclose(losses, expected[0], rtol=20 * EPS)
    assert relative(gradient, expected[1]) < 20 * EPS


def test_longer_padding_changes_nothing(tiny, batch, expected, compute):
    def pad(x, value):
        return np.pad(x, ((0, 0), (0, 3)), constant_values=value)

    longer = batch | {
        "input_ids": pad(batch["input_ids"], 7),
        "attention_mask": pad(batch["attention_mask"], 0),
        "labels": pad(batch["labels"], -100),
    }
    losses, gradient = compute(tiny[1], longer)
    np.testing.assert_allclose(losses, expected[0], rtol=20 * EPS)
    assert relative(gradient, expected[1]) < 20 * EPS


def test_what_stands_in_the_padding_does_not_matter(tiny, batch, expected, compute):
    ids = np.where(batch["attention_mask"] == 1, batch["input_ids"], 3)
    losses, _ = compute(tiny[1], batch | {"input_ids": ids.astype(np.int32)})
    np.testing.assert_array_equal(losses, expected[0])


def test_batch_order_changes_nothing(tiny, batch, expected, compute):
    order = np.array([2, 0, 1])
    losses, gradient = compute(tiny[1], {k: v[order] for k, v in batch.items()})
    np.testing.assert_allclose(losses, expected[0][order], rtol=20 * EPS)
    assert relative(gradient, expected[1]) < 20 * EPS


def test_a_padding_row_gives_nothing(tiny, batch, expected, compute):
    """No label, no token to look at: loss 0, no NaN, and no part in the gradient."""
    model, params = tiny
    row = np.array([[False], [True], [False]])
    padding = batch | {
        "attention_mask": np.where(row, 0, batch["attention_mask"]),
        "labels": np.where(row, -100, batch["labels"]),
    }
    losses, gradient = compute(params, padding)
    assert losses[1] == 0
    np.testing.assert_array_equal(losses[0::2], expected[0][0::2])
    # Its weight may be 1: it gives nothing all the same.
    _, without = compute(params, padding | {"weight": np.float32([1, 0, 1])})
    assert relative(gradient, without) == 0
    assert np.isfinite(norm(gradient))
    alone = {k: np.repeat(v[1:2], 3, axis=0) for k, v in padding.items()}
    losses, gradient = compute(params, alone)
    assert losses.tolist() == [0, 0, 0]
    assert norm(gradient) == 0


def test_a_later_token_does_not_reach_an_earlier_one(tiny, batch, compute):
    model, params = tiny
    logits = jax.jit(model.logits)
    changed = batch["input_ids"].copy()
    changed[:, 6] = (changed[:, 6] + 1) % 96
    before = logits(params, batch)
    after = logits(params, batch | {"input_ids": changed})
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert (before[:, 6] != after[:, 6]).any()


def test_position_ids_move_the_text(tiny, batch):
    """Left padding with its own positions gives what right padding gives."""
    model, params = tiny
    logits = jax.jit(model.logits)
    ids, size = batch["input_ids"][:1], 5
    right = logits(params, {"input_ids": ids[:, :size]})
    left = logits(
        params,
        {
            "input_ids": np.concatenate([ids[:, -3:], ids[:, :size]], axis=1),
            "attention_mask": np.int32([[0] * 3 + [1] * size]),
            "position_ids": np.int32([[0] * 3 + list(range(size))]),
        },
    )
    scale = float(np.abs(right).max())
    np.testing.assert_allclose(left[:, 3:], right, rtol=0, atol=20 * EPS * scale)


# --- the two parts of the tied embedding's gradient ----------------------------------


def test_head_and_lookup_gradients_sum_to_the_embeddings(tiny, batch, expected):
    model, params = tiny
    embedding = params["wte"]["embedding"]

    @jax.jit
    def parts(head, rows):
        def loss(head, rows):
            apart = {**params, "lm_head": {"kernel": head}}
            apart, numbered = tying.with_token_rows(apart, batch, rows)
            return model.per_example_loss(apart, numbered).sum()

        return jax.grad(loss, argnums=(0, 1))(head, rows)

    head, offset = parts(embedding, tying.token_rows(params, batch))
    total = np.array(head)
    np.add.at(total, batch["input_ids"], np.asarray(offset))
    whole = expected[1]["wte"]["embedding"]
    assert np.linalg.norm(total - whole) < 50 * EPS * np.linalg.norm(whole)
    assert np.linalg.norm(offset) > 1e-3


# --- dropout ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dropped(tiny):
    model, params = tiny
    return jax.jit(lambda batch, key: model.per_example_loss(params, batch, key=key))


def test_dropout_follows_the_example_not_the_batch(dropped, batch):
    key = jax.random.key(3)
    together = dropped(batch, key)
    order = np.array([1, 2, 0])
    np.testing.assert_allclose(
        dropped({k: v[order] for k, v in batch.items()}, key),
        together[order],
        rtol=20 * EPS,
    )
    alone = [
        dropped({k: v[i : i + 1] for k, v in batch.items()}, key)[0] for i in range(3)
    ]
    np.testing.assert_allclose(alone, together, rtol=20 * EPS)


def test_dropout_is_a_function_of_key_and_index(dropped, batch, expected):
    key = jax.random.key(3)
    once = dropped(batch, key)
    np.testing.assert_array_equal(dropped(batch, key), once)
    assert (dropped(batch, jax.random.key(4)) != once).all()
    moved = dropped(batch | {"index": np.int32([6, 0, 12])}, key)
    assert (moved != once).tolist() == [True, False, True]
    assert (once != expected[0]).all()


def test_dropout_is_unbiased_and_differs_from_place_to_place():
    from jaxunlearn.models.noise import dropout, example_keys

    size, rate = 64, 0.25
    keys = example_keys(jax.random.key(0), {}, size)
    ones = jnp.ones((size, 30, 10))
    drop = jax.jit(lambda layer, site: dropout(ones, rate, keys, layer, site))
    kept = drop(0, 0)
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    # Four standard deviations of the mean of 19,200 draws.
    assert abs(kept.mean() - 1) < 4 * (rate / (1 - rate) / ones.size) ** 0.5
    places = [drop(layer, site) for layer in (0, 1) for site in range(4)]
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            # Independent masks agree in 5/8 of the entries, not in all.
            assert abs((a == b).mean() - 0.625) < 0.02
    assert dropout(ones, rate, None, 0, 0) is ones
    assert dropout(ones, 0.0, keys, 0, 0) is ones


def test_without_rates_a_key_changes_nothing(tiny, batch, expected):
    model, params = tiny
    still = replaced(model, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    assert model.without_dropout() == still
    assert not still.has_dropout
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        assert replaced(still, **{name: 0.1}).has_dropout
    losses = jax.jit(still.per_example_loss)(params, batch, key=jax.random.key(0))
    np.testing.assert_allclose(losses, expected[0], rtol=20 * EPS)


# --- dtypes, initialisation, misuse -------------------------------------------------


def test_bfloat16_computes_in_bfloat16_and_sums_in_float32(tiny, batch, expected):
    model, params = tiny
    low = replaced(model, dtype="bfloat16")
    hidden = jax.eval_shape(low.hidden_states, params, batch)
    assert hidden.dtype == jnp.bfloat16
    losses = jax.jit(low.per_example_loss)(params, batch)
    assert losses.dtype == jnp.float32
    assert np.abs(losses / expected[0] - 1).max() < 30 * float(
        jnp.finfo(jnp.bfloat16).eps
    )
    assert not np.array_equal(losses, expected[0])


def test_fresh_parameters_have_gpt2s_spread():
    config = GPT2Config(vocab_size=400, n_positions=40, n_embd=40, n_layer=8, n_head=2)
    params = jax.jit(lambda key: GPT2(config).init(key=key))(jax.random.key(0))
    spread = {
        ("wte", "embedding"): 0.02,
        ("h", "attn", "c_attn", "kernel"): 0.02,
        ("h", "mlp", "c_fc", "kernel"): 0.02,
        ("h", "attn", "c_proj", "kernel"): 0.02 / 4,
        ("h", "mlp", "c_proj", "kernel"): 0.02 / 4,
        ("h", "mlp", "c_proj", "bias"): 0,
    }
    for path, stddev in spread.items():
        leaf = params
        for part in path:
            leaf = leaf[part]
        assert leaf.dtype == jnp.float32
        # Five standard deviations of a standard deviation of n draws.
        assert abs(leaf.std() - stddev) <= 5 * stddev / (2 * leaf.size) ** 0.5, path
    kernel = params["h"]["mlp"]["c_fc"]["kernel"]
    assert kernel.shape == (8, 40, 160)
    assert (kernel[0] != kernel[1]).all()


def test_attention_cudnn_says_what_it_needs(tiny, batch, monkeypatch):
    model, params = tiny
    fused = replaced(model, attention="cudnn")

    def message(model, **options):
        with pytest.raises(ValueError, match="attention=") as caught:
            jax.eval_shape(
                lambda p: model.per_example_loss(p, batch, **options), params
            )
        assert 'attention="xla"' in str(caught.value)
        return str(caught.value)

    assert "needs an NVIDIA GPU, the backend is 'cpu'" in message(fused)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "bfloat16 or float16, not float32" in message(fused)
    low = replaced(fused, dtype="bfloat16")
    assert "attn_pdrop=0.1" in message(low, key=jax.random.key(0))


def test_a_text_longer_than_the_model_is_refused(tiny):
    model, params = tiny
    with pytest.raises(ValueError, match="25 tokens.*n_positions=24.*max_length"):
        model.logits(params, {"input_ids": np.zeros((1, 25), np.int32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(n_layer=0), "n_layer=0"),
        (dict(n_embd=10, n_head=3), "n_embd=10 is not a multiple of n_head=3"),
        (dict(activation_function="softplus"), "activation_function='softplus'"),
        (dict(attention="flash"), "attention='flash'"),
    ],
)
def test_a_shape_that_no_gpt2_has_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GPT2Config(**options)
