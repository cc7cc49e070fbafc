import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import Example, TokenizedData, in_order, tokenize
from jaxunlearn.data.text.examples import TruncationWarning
from jaxunlearn.evaluation.text.memorization import (
    answer_tokens,
    exact_memorization,
    extraction_likelihoods,
    extraction_strength,
    memorization_accuracy,
    ngram_overlap,
    perplexity,
)
from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    mean_losses,
    token_statistics,
)


def of_correct(*correct, token=None):
    """Statistics of one example, of which only correctness matters."""
    zeros = np.zeros(len(correct), np.float32)
    token = np.arange(len(correct)) if token is None else np.array(token)
    return TokenStatistics(token, zeros, np.array(correct, bool), zeros, zeros)


@pytest.fixture(scope="module")
def greedy(small):
    """Continue one prompt by running the whole text again for each token."""

    @jax.jit
    def next_token(ids, length):
        logits = small.model.logits(small.params, {"input_ids": ids[None]})
        return jnp.argmax(logits[0, length - 1])

    def run(prompt, count):
        ids = np.zeros(64, np.int32)
        ids[: len(prompt)] = prompt
        for at in range(len(prompt), len(prompt) + count):
            ids[at] = next_token(ids, at)
        return ids[len(prompt) : len(prompt) + count].tolist()

    return run


def test_strength_is_the_shortest_start_after_which_all_is_right():
    for length in range(1, 6):
        for correct in itertools.product([0, 1], repeat=length):
            starts = [k for k in range(length + 1) if all(correct[k:])]
            (found,) = extraction_strength([of_correct(*correct)])
            assert found == pytest.approx(1 - min(starts) / length)
            # OpenUnlearning's loop ends at length - 1.
            k = next((k for k in range(length) if all(correct[k:])), length - 1)
            (found,) = extraction_strength(
                [of_correct(*correct)], compat="openunlearning"
            )
            assert found == pytest.approx(1 - k / length)


def test_strength_from_all_wrong_to_all_right():
    examples = [of_correct(0, 0, 0, 0), of_correct(1, 1, 1), of_correct(1, 1, 0)]
    assert extraction_strength(examples).tolist() == [0, 1, 0]
    compat = extraction_strength(examples, compat="openunlearning")
    np.testing.assert_allclose(compat, [1 / 4, 1, 1 / 3])
    np.testing.assert_allclose(exact_memorization(examples), [0, 1, 2 / 3])
    np.testing.assert_array_equal(
        memorization_accuracy(examples), exact_memorization(examples)
    )


def test_only_an_end_of_text_that_is_there_is_left_out():
    whole, cut = of_correct(1, 0, 1, token=[5, 6, 9]), of_correct(0, 1, token=[5, 6])
    kept = answer_tokens([whole, cut], drop_last=True, end_of_text=9)
    assert [one.token.tolist() for one in kept] == [[5, 6], [5, 6]]
    kept = answer_tokens([whole, cut], drop_last=True)
    assert [one.token.tolist() for one in kept] == [[5, 6], [5]]
    options = {"drop_last": True, "end_of_text": 9}
    assert exact_memorization([whole, cut], **options).tolist() == [0.5, 0.5]
    assert extraction_strength([whole, cut], **options).tolist() == [0, 0.5]
    assert exact_memorization([whole, cut], drop_last=True).tolist() == [0.5, 0]


def test_the_end_of_a_real_example_that_was_cut_stays(small):
    with pytest.warns(TruncationWarning):
        data = tokenize(small.records[:3], small.tokenizer, max_length=26)
    end = small.tokenizer.eos_token_id
    assert {int(e.input_ids[-1] == end) for e in data.examples} == {0, 1}
    statistics = token_statistics(
        small.model, small.params, in_order(data, batch_size=3)
    )
    kept = answer_tokens(statistics, drop_last=True, end_of_text=end)
    for before, after, example in zip(statistics, kept, data.examples, strict=True):
        lost = example.input_ids[-1] == end
        assert len(after.token) == len(before.token) - lost


def test_strength_under_teacher_forcing_is_that_of_free_continuation(small, greedy):
    rng = np.random.default_rng(0)
    prompt = rng.integers(290, size=6).tolist()
    start = rng.integers(290, size=4).tolist()
    ids = np.array(prompt + start + greedy(prompt + start, 5), np.int32)
    labels = np.where(np.arange(len(ids)) < 6, -100, ids)
    data = TokenizedData((Example(ids, labels, 0),), 0, 0)
    statistics = token_statistics(small.model, small.params, in_order(data))
    needed = min(
        k for k in range(10) if greedy(ids[: 6 + k], 9 - k) == ids[6 + k :].tolist()
    )
    assert 0 < needed <= 4
    assert extraction_strength(statistics)[0] == pytest.approx(1 - needed / 9)


def test_overlap_counts_every_gram_of_the_text():
    assert ngram_overlap([1, 2, 3], [1, 2, 3], n=3) == 1
    assert ngram_overlap([1, 2, 3], [4, 5, 6], n=1) == 0
    assert ngram_overlap([1, 1, 1, 2], [2, 1], n=1) == 1
    assert ngram_overlap([1, 1, 1, 2], [1, 1], n=2) == pytest.approx(2 / 3)
    assert ngram_overlap([2, 1], [1, 2], n=2) == 0


def test_likelihood_is_the_mean_overlap_of_continuations(small, greedy):
    rng = np.random.default_rng(1)
    texts = [rng.integers(290, size=size) for size in (12, 9)]
    texts.append(np.array(greedy(texts[0][:3], 14)))  # what the model itself says
    expected = [
        np.mean(
            [
                ngram_overlap(greedy(text[:m], len(text) - m), text[m:], n=2)
                for m in range(1, len(text) - 1)
            ]
        )
        for text in texts
    ]
    for batch_size in (5, 40):
        found = extraction_likelihoods(
            small.model, small.params, texts, n=2, batch_size=batch_size
        )
        np.testing.assert_allclose(found, expected)
    assert max(expected) > 0
    few = extraction_likelihoods(
        small.model, small.params, texts[:1], n=2, prefixes=[4, 7]
    )
    np.testing.assert_allclose(
        few,
        np.mean(
            [
                ngram_overlap(greedy(texts[0][:m], 12 - m), texts[0][m:], n=2)
                for m in (4, 7)
            ]
        ),
    )


def test_recited_text_has_likelihood_1(small, greedy):
    start = [7, 8, 9]
    text = start + greedy(start, 12)
    found = extraction_likelihoods(
        small.model, small.params, [text], n=4, prefixes=[3, 5, 11]
    )
    assert found.tolist() == [1]


def test_perplexity_weighs_tokens_not_examples(small):
    data = tokenize(small.records, small.tokenizer, max_length=64)
    statistics = token_statistics(small.model, small.params, in_order(data))
    sizes = [len(one.token) for one in statistics]
    assert len(set(sizes)) > 1
    expected = np.exp(np.average(mean_losses(statistics), weights=sizes))
    assert perplexity(statistics) == pytest.approx(expected)
    zeros = np.zeros(2, np.float32)
    lost = TokenStatistics(zeros, np.float32([0, -1e30]), zeros, zeros, zeros)
    assert perplexity([lost]) == np.inf


def test_bad_input_is_refused():
    one = of_correct(1)
    for function in (exact_memorization, extraction_strength):
        with pytest.raises(ValueError, match="no example"):
            function([])
        with pytest.raises(ValueError, match=r"statistics\[1\] has no labelled"):
            function([one, of_correct()])
        with pytest.raises(ValueError, match="beside its last"):
            function([one], drop_last=True)
        with pytest.raises(ValueError, match="pass both"):
            function([one], end_of_text=0)
    with pytest.raises(ValueError, match="compat='mimir'"):
        extraction_strength([one], compat="mimir")
    for function in (memorization_accuracy, perplexity):
        with pytest.raises(ValueError, match="no example"):
            function([])
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"n={n}"):
            ngram_overlap([1, 2], [1, 2, 3], n=n)


def test_prefixes_that_cannot_be_continued_are_refused(small):
    def run(texts, **options):
        extraction_likelihoods(small.model, small.params, texts, **{"n": 2, **options})

    with pytest.raises(ValueError, match="texts is empty"):
        run([])
    for text, options in (
        ([1, 2], {}),
        ([1, 2, 3, 4], {"prefixes": [3]}),
        ([1, 2, 3, 4], {"prefixes": [0]}),
        ([1, 2, 3, 4], {"prefixes": []}),
        ([1, 2, 3, 4], {"n": 0}),
    ):
        with pytest.raises(ValueError, match=rf"has {len(text)} tokens: n="):
            run([text], **options)
    with pytest.raises(ValueError, match=r"texts\[1\] has 2 tokens"):
        run([[1] * 9, [1, 2]])
    with pytest.raises(ValueError, match="exceed n_positions=64 together"):
        run([[1] * 60])
