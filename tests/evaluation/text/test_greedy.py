import jax
import numpy as np
import pytest

from jaxunlearn.data import prompt_and_completion
from jaxunlearn.evaluation.text.greedy import answer_ids, answers, prompt_ids
from jaxunlearn.evaluation.text.rouge_scores import rouge_l


@pytest.fixture(scope="module")
def prompts(small):
    found = [prompt_and_completion(record)[0] for record in small.records]
    return found + ["Boat?", "Question: Which boat was it that came back?\nAnswer:"]


def ids_of(small, prompts, **options):
    settings = {"max_new_tokens": 6, "batch_size": 4, "eos_token_id": None, **options}
    return answer_ids(
        small.model,
        small.params,
        prompt_ids(small.tokenizer, prompts),
        **settings,
    )


def test_greedy_answers_are_the_likeliest_next_tokens(small, prompts):
    found = ids_of(small, prompts)
    for prompt, answer in zip(prompt_ids(small.tokenizer, prompts), found, strict=True):
        ids = np.array([*prompt, *answer])[None]
        logits = np.asarray(small.model.logits(small.params, {"input_ids": ids}))[0]
        taken = np.take_along_axis(logits[:-1], ids[0, 1:, None], axis=-1)[:, 0]
        gap = logits[:-1].max(axis=-1) - taken
        assert (gap[len(prompt) - 1 :] < 1e-3).all()


def test_answers_stand_at_their_prompts_whatever_the_batch(small, prompts):
    found = ids_of(small, prompts)
    for batch_size in (1, 9):
        np.testing.assert_array_equal(
            ids_of(small, prompts, batch_size=batch_size), found
        )
    np.testing.assert_array_equal(ids_of(small, prompts[::-1]), found[::-1])


def test_an_answer_ends_at_the_end_of_text(small, prompts):
    free = ids_of(small, prompts)
    end = int(free[0, 2])  # as if this token ended texts
    cut = ids_of(small, prompts, eos_token_id=end)
    for row, whole in zip(cut, free, strict=True):
        stop = np.flatnonzero(whole == end)
        length = stop[0] + 1 if len(stop) else len(whole)
        np.testing.assert_array_equal(row[:length], whole[:length])
        assert (row[length:] == end).all()
    texts = answers(
        small.model, small.params, small.tokenizer, prompts, max_new_tokens=6
    )
    assert len(texts) == len(prompts)
    assert all(text == text.strip() for text in texts)


def test_drawn_answers_follow_the_key(small, prompts):
    options = {"temperature": 1.0}
    one, same, other = (
        ids_of(small, prompts, key=jax.random.key(seed), **options)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    with pytest.raises(ValueError, match="key"):
        ids_of(small, prompts, **options)


def test_prompts_that_cannot_be_answered_are_refused(small):
    with pytest.raises(ValueError, match="nothing to answer"):
        ids_of(small, [])
    with pytest.raises(ValueError, match=r"prompts\[1\] has 0 tokens"):
        ids_of(small, ["boat", ""])
    with pytest.raises(
        ValueError, match=r"prompts\[0\] has .* the model takes 1 to 58"
    ):
        ids_of(small, ["boat " * 60])


def test_rouge_counts_the_longest_common_subsequence():
    found = rouge_l(["the cat sat down"], ["the black cat sat"])
    np.testing.assert_allclose(
        [found.recall[0], found.precision[0], found.f1[0]], [3 / 4, 3 / 4, 3 / 4]
    )
    assert rouge_l(["running dogs"], ["run dog"]).recall[0] == 1
    assert rouge_l(["running dogs"], ["run dog"], stemmer=False).recall[0] == 0
    assert rouge_l(["a cat"], [""]).f1[0] == 0


def test_rouge_needs_pairs():
    with pytest.raises(ValueError, match="1 references for 2"):
        rouge_l(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="empty"):
        rouge_l([], [])
