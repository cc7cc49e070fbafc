import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import in_order
from jaxunlearn.data.text.examples import Example, TokenizedData
from jaxunlearn.evaluation.internals.depth import (
    counted_batches,
    depth_score,
    layer_gaps,
    unlearning_depth,
)
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.types import IGNORED_LABEL

TINY = GPT2Config(vocab_size=97, n_positions=24, n_embd=16, n_layer=2, n_head=2)
END = 96


@pytest.fixture(scope="module")
def model():
    return GPT2(TINY)


@pytest.fixture(scope="module")
def models(model):
    """Three sets of parameters: full, retained and unlearned, none near another."""

    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))

    def draw(seed):
        rng = np.random.default_rng(seed)

        def leaf(path, x):
            normal = 0.2 * rng.standard_normal(x.shape)
            return jnp.asarray(normal + (path[-1].key == "scale"), jnp.float32)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return [draw(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def data():
    """Five examples with prompts; all but the second end with the end of text."""
    rng = np.random.default_rng(4)
    examples = []
    for i, (size, prompt) in enumerate([(9, 3), (6, 0), (12, 7), (5, 2), (8, 4)]):
        ids = rng.integers(END, size=size).astype(np.int32)
        if i != 1:
            ids[-1] = END
        labels = np.where(np.arange(size) < prompt, IGNORED_LABEL, ids)
        examples.append(Example(ids, labels.astype(np.int32), i))
    return TokenizedData(tuple(examples), 0, 0, END)


@pytest.fixture(scope="module")
def gaps(model, models, data):
    """By reading and source: gaps in batches of 2."""
    return {
        read: [
            layer_gaps(
                model,
                source,
                in_order(data, batch_size=2),
                full=models[0],
                end_id=END,
                read=read,
            )
            for source in models
        ]
        for read in ("patching", "lens")
    }


@pytest.mark.parametrize("read", ["patching", "lens"])
def test_the_full_model_is_intact_and_the_retained_one_erased(gaps, read):
    own, retained, unlearned = gaps[read]
    assert (retained > 0.05).any(axis=1).any(), "nothing to measure"
    assert depth_score(own, retained).score == pytest.approx(0, abs=1e-4)
    assert depth_score(retained, retained).score == 1.0
    np.testing.assert_allclose(own, 0, atol=1e-5)
    between = depth_score(unlearned, retained)
    scored = between.kept.any(axis=1)
    assert np.isnan(between.per_example[~scored]).all()
    assert between.score == pytest.approx(between.per_example[scored].mean())


def test_patching_the_last_layer_is_the_sources_state_through_the_full_head(gaps):
    # Behind the last block nothing looks at another place: patching is the lens there.
    for patched, read in zip(gaps["patching"], gaps["lens"], strict=True):
        np.testing.assert_allclose(patched[:, -1], read[:, -1], atol=2e-5)


def test_gaps_are_what_a_loop_over_examples_layers_and_tokens_gives(
    model, models, data, gaps
):
    full, source, _ = models

    def forward(params, ids, patch=None):
        """Residual streams by flax itself, block by block, with states put in."""
        from jaxunlearn.models.decoder import Places
        from jaxunlearn.models.gpt2 import Block

        x = params["wte"]["embedding"][ids] + params["wpe"]["embedding"][: len(ids)]
        mask = jnp.tril(jnp.ones((1, len(ids), len(ids)), bool))
        places = Places(jnp.arange(len(ids))[None], mask)
        found = []
        for i in range(2):
            block = jax.tree.map(lambda a, i=i: a[i], params["h"])
            x = Block(TINY).apply(
                {"params": block}, x.reshape(1, -1, 16), places, i, None
            )[0][0]
            if patch is not None and patch[0] == i:
                x = x.at[patch[1]].set(patch[2][patch[1]])
            found.append(x)
        return found

    def log_p(params, x, ids):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        norm = params["ln_f"]
        h = (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
        logits = jax.nn.log_softmax(h @ params["wte"]["embedding"].T)
        return np.asarray(logits)[np.arange(len(ids) - 1), ids[1:]]

    for row in (0, 1):
        example = data.examples[row]
        ids, size = example.input_ids, len(example.input_ids)
        last = size - (row != 1)  # without the end of text
        tokens = np.arange(max(1, np.sum(example.labels == IGNORED_LABEL)), last)
        own, theirs = forward(full, ids), forward(source, ids)
        base = log_p(full, own[-1], ids)[tokens - 1]
        for layer in range(2):
            patched = forward(full, ids, (layer, tokens - 1, theirs[layer]))
            by_hand = base - log_p(full, patched[-1], ids)[tokens - 1]
            assert gaps["patching"][1][row, layer] == pytest.approx(
                by_hand.mean(), abs=2e-5
            )
            by_lens = log_p(full, own[layer], ids) - log_p(full, theirs[layer], ids)
            assert gaps["lens"][1][row, layer] == pytest.approx(
                by_lens[tokens - 1].mean(), abs=2e-5
            )


@pytest.mark.parametrize("read", ["patching", "lens"])
def test_nothing_depends_on_padding_or_batch_size(model, models, data, gaps, read):
    fewer = TokenizedData(
        data.examples[:2], 0, 0, pad_id=3
    )  # shorter padding, one batch
    found = layer_gaps(
        model,
        models[2],
        in_order(fewer, batch_size=3),
        full=models[0],
        end_id=END,
        read=read,
    )
    np.testing.assert_allclose(found, gaps[read][2][:2], atol=2e-5)


def test_the_score_is_made_of_the_gaps(model, models, data, gaps):
    full, retained, unlearned = models
    batches = in_order(data, batch_size=2)
    found = unlearning_depth(
        model, unlearned, batches, full=full, retained=retained, end_id=END
    )
    np.testing.assert_array_equal(found.gap, gaps["patching"][2])
    np.testing.assert_array_equal(found.gap_retained, gaps["patching"][1])
    for row in range(5):
        top = bottom = 0.0
        for mine, theirs in zip(found.gap[row], found.gap_retained[row], strict=True):
            if theirs > 0.05:
                top += theirs * min(max(mine / theirs, 0), 1)
                bottom += theirs
        if bottom > 0:
            assert found.per_example[row] == pytest.approx(top / bottom)


def test_a_closed_form():
    nan = float("nan")
    found = depth_score(
        [[0.1, 0.5, 9.0], [-2.0, 0.2, 0.0], [1.0, 1.0, 1.0]],
        [[0.4, 0.1, 0.05], [0.5, 0.5, -3.0], [0.0, 0.05, -1.0]],
    )
    np.testing.assert_allclose(found.per_example, [0.4, 0.2, nan])
    assert found.score == pytest.approx(0.3)
    np.testing.assert_array_equal(found.kept.sum(axis=1), [2, 2, 0])
    assert depth_score([[0.3]], [[0.0]]).score is None
    assert depth_score([[0.3]], [[0.01]], threshold=0.0).score == 1.0


def test_tokens_that_count(model, models, data):
    batches = in_order(data, batch_size=3)
    labels = [row for x in counted_batches(batches, END, None) for row in x["labels"]]
    assert len(labels) == 6
    assert (labels[5] == IGNORED_LABEL).all()  # of padding
    for i, (before, after) in enumerate(zip(data.examples, labels, strict=False)):
        expected = before.labels.copy()
        if i != 1:
            expected[-1] = IGNORED_LABEL
        np.testing.assert_array_equal(after[: len(expected)], expected)
        assert (after[len(expected) :] == IGNORED_LABEL).all()
    # One counted token alone: the gap is that token's, even of the prompt.
    masks = [np.zeros(len(one.input_ids), bool) for one in data.examples]
    for mask in masks:
        mask[1] = True
    one = layer_gaps(
        model, models[1], batches, full=models[0], counted=masks, read="lens"
    )
    for mask in masks:
        mask[1], mask[2] = False, True
    two = layer_gaps(
        model, models[1], batches, full=models[0], counted=masks, read="lens"
    )
    for mask in masks:
        mask[1] = True
    both = layer_gaps(
        model, models[1], batches, full=models[0], counted=masks, read="lens"
    )
    np.testing.assert_allclose(both, (one + two) / 2, atol=2e-5)
    assert np.abs(one - two).max() > 0.01


def test_misuse(model, models, data):
    def run(data=data, **options):
        layer_gaps(model, models[1], in_order(data), full=models[0], **options)

    masks = [np.ones(len(one.input_ids), bool) for one in data.examples]
    short = [*masks[:3], masks[3][1:], masks[4]]
    numbers = [mask.astype(int) for mask in masks]
    nothing = [*masks[:2], np.arange(12) == 0, *masks[3:]]
    only_end = TokenizedData(
        (Example(np.array([3, END]), np.array([IGNORED_LABEL, END]), 0),), 0, 0
    )
    cases = [
        ({}, "give end_id"),
        ({"data": TokenizedData((), 0, 0), "end_id": END}, "data is empty"),
        ({"counted": masks[:4]}, "4 masks for 5 examples"),
        ({"counted": short}, r"counted\[3\] is bool\[4\]: bool\[5\]"),
        ({"counted": numbers}, r"counted\[0\] is int64\[9\]"),
        ({"counted": nothing}, r"examples\[2\] has no token that counts"),
        ({"data": only_end, "end_id": END}, r"examples\[0\] has no token that counts"),
        ({"end_id": END, "read": "probe"}, "read='probe': one of patching, lens"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            run(**options)
    with pytest.raises(TypeError, match="retained"):
        unlearning_depth(model, models[1], in_order(data), full=models[0])
    for arguments, options, message in [
        (([[1.0]], [[1.0, 2.0]]), {}, "of one shape"),
        ((np.zeros((0, 2)), np.zeros((0, 2))), {}, "not empty"),
        (([[np.nan]], [[1.0]]), {}, "not finite"),
        (([[1.0]], [[1.0]]), {"threshold": -1.0}, "threshold=-1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            depth_score(*arguments, **options)
