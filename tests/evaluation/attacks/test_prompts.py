import numpy as np
import pytest

from jaxunlearn.data import Example, TokenizedData, in_order
from jaxunlearn.evaluation.attacks import (
    best_prompt,
    in_context,
    measure_of,
    paraphrased,
    prefixed,
    prepended,
    probability,
    with_context,
)
from jaxunlearn.evaluation.text.token_pass import token_statistics


def test_the_same_tokens_count_with_and_without_a_prefix(
    model, params, data, tokenizer, tokens, records
):
    longer = prefixed(data, "w5 w6\n", tokenizer, max_length=48)
    by_hand = tokens(
        [
            {
                "prompt": f"w5 w6\nQuestion: {r['question']}\nAnswer:",
                "gt": r["answer"],
            }
            for r in records
        ]
    )
    for ours, theirs in zip(longer.examples, by_hand.examples, strict=True):
        np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    plain = token_statistics(model, params, in_order(data, length=24))
    found = token_statistics(model, params, in_order(longer, length=24))
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_array_equal(a.token, b.token)
        assert not np.allclose(a.log_probability, b.log_probability)


def test_nothing_in_front_is_the_same(data, tokenizer):
    same = prepended(data, [[]] * 7, tokenizer, max_length=48)
    for ours, theirs in zip(same.examples, data.examples, strict=True):
        np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_a_text_s_first_token_bears_no_loss_behind_a_prefix(tokenizer):
    ids = np.array([5, 6, 7], np.int32)
    text = TokenizedData((Example(ids, ids.copy(), 0),), 0, 0)
    (longer,) = prepended(text, [[8, 9]], tokenizer, max_length=48).examples
    assert longer.input_ids.tolist() == [8, 9, 5, 6, 7]
    assert longer.labels.tolist() == [-100, -100, -100, 6, 7]


class BeginsTexts:
    """A tokenizer whose texts begin with token 1."""

    bos_token_id = 1

    def __call__(self, text, *, add_special_tokens=True, **_):
        if not add_special_tokens:  # a list of texts
            return {"input_ids": [[5, 6] for _ in text]}
        return {"input_ids": [1, 5, 6]}


def test_a_beginning_of_text_stays_in_front():
    ids, labels = np.array([1, 5, 6], np.int32), np.array([-100, 5, 6], np.int32)
    text = TokenizedData((Example(ids, labels, 0),), 0, 0)
    (longer,) = prepended(text, [[8, 9]], BeginsTexts(), max_length=48).examples
    assert longer.input_ids.tolist() == [1, 8, 9, 5, 6]
    assert longer.labels.tolist() == [-100, -100, -100, 5, 6]


def test_what_is_too_long_loses_its_beginning(data, tokenizer):
    cut = prepended(data, [range(10, 60)] * 7, tokenizer, max_length=20)
    for ours, theirs in zip(cut.examples, data.examples, strict=True):
        size = len(theirs.input_ids)
        assert len(ours.input_ids) == 20
        np.testing.assert_array_equal(ours.input_ids[-size:], theirs.input_ids)
        assert ours.input_ids[: 20 - size].tolist() == list(range(60 - 20 + size, 60))
    with pytest.raises(ValueError, match="2 rows of tokens, 7 examples"):
        prepended(data, [[1], [2]], tokenizer, max_length=20)


def test_the_best_prompt_so_far(params):
    rows = [np.array(row) for row in ([1.0, 5.0], [2.0, 4.0], [0.0, 6.0])]
    found = best_prompt(params, [lambda p, row=row: row for row in rows])
    assert found.strengths == (0, 1, 2)
    np.testing.assert_array_equal(found.values, [[1, 5], [2, 5], [2, 6]])


def test_paraphrases():
    record = {"question": "a?", "paraphrased_question": "b?", "answer": "c"}
    assert paraphrased([record]) == [{"question": "b?", "answer": "c"}]
    with pytest.raises(ValueError, match=r"records \[1\] have no paraphrased_question"):
        paraphrased([record, {"question": "a?", "answer": "c"}])


def test_contexts_tell_the_others_and_as_much_of_something_else(
    data, records, tokenizer, tokens
):
    other = [{"text": "w80 w81 w82"}, {"text": "w83"}]
    relevant, irrelevant = with_context(
        *(data, records, other, tokenizer), count=2, max_length=48, seed=1
    )
    texts = [f"Question: {r['question']} Answer: {r['answer']}" for r in records]
    for i, (told, apart, own) in enumerate(
        zip(relevant.examples, irrelevant.examples, data.examples, strict=True)
    ):
        size = len(own.input_ids)
        assert len(told.input_ids) == len(apart.input_ids)
        for one in (told, apart):
            np.testing.assert_array_equal(one.input_ids[-size:], own.input_ids)
            np.testing.assert_array_equal(one.labels[-size:], own.labels)
            assert (one.labels[:-size] == -100).all()
        front = tokenizer.decode(told.input_ids[:-size].tolist())
        held = [j for j, text in enumerate(texts) if text in front]
        assert len(held) == 2
        assert i not in held
        words = set(tokenizer.decode(apart.input_ids[:-size].tolist()).split())
        assert words <= {"w80", "w81", "w82", "w83"}


def test_given_texts_are_told_instead(data, records, tokenizer):
    texts = [{"text": "w80 w81"}]
    relevant, _ = with_context(
        *(data, records, [{"text": "w70"}], tokenizer),
        **{"count": 1, "max_length": 48, "texts": texts},
    )
    fronts = [e.input_ids[:2].tolist() for e in relevant.examples]
    assert fronts == [tokenizer("w80 w81")["input_ids"]] * 7


def test_the_same_context_on_both_sides_gains_nothing(
    model, params, data, records, tokenizer
):
    texts = [{"text": "w80 w81"}]
    pair = with_context(
        *(data, records, texts, tokenizer),
        **{"count": 1, "max_length": 48, "texts": texts},
    )
    plain, *both = (
        measure_of(model, in_order(d, length=24), probability) for d in (data, *pair)
    )
    found = in_context(params, plain, [tuple(both)], [1])
    assert found.strengths == (0, 1)
    np.testing.assert_array_equal(found.values[0], plain(params))
    np.testing.assert_array_equal(found.values[1], found.values[0])


def test_context_adds_what_relevance_adds(params):
    one, two, three = (np.array([x]) for x in (0.1, 0.5, 0.2))
    found = in_context(params, lambda p: one, [(lambda p: two, lambda p: three)], [3])
    np.testing.assert_allclose(found.values, [[0.1], [0.1 + 0.5 - 0.2]])
    assert found.strengths == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 7}, "count=7: 1 to 6"),
        ({"count": 0}, "count=0"),
        ({"texts": [{"text": "w1"}], "count": 2}, "count=2: 1 to 1"),
        ({"irrelevant": []}, "irrelevant is empty"),
        ({"records": []}, "0 records for 7 examples"),
    ],
)
def test_bad_contexts(data, records, tokenizer, change, message):
    given = {"records": records, "irrelevant": records, "count": 1, "max_length": 48}
    with pytest.raises(ValueError, match=message):
        with_context(data, tokenizer=tokenizer, **given | change)
