import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import in_order, tokenize
from jaxunlearn.evaluation.membership.roc import auc
from jaxunlearn.evaluation.membership.signals import min_k
from jaxunlearn.evaluation.suite.muse import (
    cut,
    few_shot_prompt,
    knowledge_memorization,
    privacy_leakage,
    scalability,
    sustainability,
    verbatim_memorization,
)
from jaxunlearn.evaluation.text.rouge_scores import rouge_l
from jaxunlearn.evaluation.text.token_pass import token_statistics


@pytest.fixture(scope="module")
def written(small):
    """Continue one prompt by running the whole text again for each token."""
    end = small.tokenizer.eos_token_id

    @jax.jit
    def next_token(ids, length):
        logits = small.model.logits(small.params, {"input_ids": ids[None]})
        return jnp.argmax(logits[0, length - 1])

    def run(prompt, count):
        ids = small.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        new = []
        while len(new) < count and end not in new:
            row = np.zeros(64, np.int32)
            row[: len(ids) + len(new)] = ids + new
            new.append(int(next_token(row, len(ids) + len(new))))
        return small.tokenizer.decode(new, skip_special_tokens=True)

    return run


def of(small):
    return small.model, small.params, small.tokenizer


def test_verbatim_memorization_is_rouge_of_the_greedy_continuation(small, written):
    prompts = ["What colour", "It is", "boat 3"]
    texts = [written(prompt, 6) for prompt in prompts]
    long = "It is red, as ever, and so it will be"
    ids = small.tokenizer(long, add_special_tokens=False)["input_ids"]
    assert len(ids) > 6
    truths = [long, texts[1] + " is", texts[2] + " boat"]
    shortened = [
        small.tokenizer.decode(small.tokenizer(t)["input_ids"][:6]) for t in truths
    ]
    for batch_size in (2, 3):
        found = verbatim_memorization(
            *of(small), prompts, truths, max_new_tokens=6, batch_size=batch_size
        )
        assert found.text == texts
        assert found.truth == shortened
        expected = 100 * rouge_l(shortened, texts, stemmer=False).f1
        np.testing.assert_allclose(found.score, expected)


def test_what_is_recited_scores_100_and_what_is_not_0(small, written, monkeypatch):
    from jaxunlearn.evaluation.suite import muse

    texts = ["a b c d", "a b x y", "none of it"]
    monkeypatch.setattr(muse, "continuations", lambda *args, **options: texts)
    found = verbatim_memorization(*of(small), ["p"] * 3, ["a b c d"] * 3)
    np.testing.assert_allclose(found.score, [100, 50, 0])
    # Stems are compared on demand only.
    texts = ["Boats"]
    for stemmer, score in ((False, 0), (True, 100)):
        found = verbatim_memorization(*of(small), ["p"], ["boat"], stemmer=stemmer)
        assert found.score.tolist() == [score]
    # Whatever stands before the cut counts, white space that opens the answer too.
    texts = [" red\n\nQuestion: blue?", "\n\nred", "red\nQuestion", "red"]
    found = knowledge_memorization(
        *of(small), ["q"] * 4, ["red"] * 4, shots=[("a", "b")]
    )
    assert found.text == ["red", "", "red", "red"]
    assert found.score.tolist() == [100, 0, 100, 100]


def test_knowledge_memorization_asks_after_the_shots(small, written):
    shots = [("Who?", "Ada.")]
    questions = ["What colour?", "Which boat is it?"]
    prompts = [
        "Question: Who?\nAnswer: Ada.\n\nQuestion: What colour?\nAnswer:",
        "Question: Who?\nAnswer: Ada.\n\nQuestion: Which boat is it?\nAnswer:",
    ]
    assert [few_shot_prompt(q, shots) for q in questions] == prompts
    assert few_shot_prompt("Who?", []) == "Question: Who?\nAnswer:"
    texts = [cut(written(prompt, 6), ("\n\n",)).strip() for prompt in prompts]
    found = knowledge_memorization(
        *of(small),
        questions,
        ["red", "grey"],
        shots=shots,
        stop=("\n\n",),
        max_new_tokens=6,
        batch_size=3,
    )
    assert found.text == texts
    assert found.truth == ["red", "grey"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red", "red"),
        ("red\n\nblue", "red"),
        ("red Question: x\n\ny", "red "),
        ("red\nQuestion y", "red"),
        ("\n\nred", ""),
    ],
)
def test_an_answer_ends_at_the_first_stop(text, expected):
    from jaxunlearn.evaluation.suite.muse import STOP_STRINGS

    assert cut(text, STOP_STRINGS) == cut(text, STOP_STRINGS[::-1]) == expected
    assert cut(text, ()) == text


def test_privacy_leakage_is_of_min_k_at_40_per_cent(small):
    data = tokenize(small.records, small.tokenizer, max_length=64)
    statistics = token_statistics(small.model, small.params, in_order(data))
    forget, holdout = statistics[:4], statistics[4:]
    area = auc(min_k(forget, k=0.4), min_k(holdout, k=0.4))
    # The published form: (AUC - AUC_ref) / AUC_ref with AUC = 1 - area.
    expected = 100 * ((1 - area) - 0.4772) / 0.4772
    found = privacy_leakage(forget, holdout, reference_auc=1 - 0.4772)
    assert found == pytest.approx(expected)
    assert privacy_leakage(forget, holdout, reference_auc=max(area, 1e-9)) == (
        pytest.approx(0, abs=1e-6)
    )
    with pytest.raises(TypeError):
        privacy_leakage(forget, holdout)
    with pytest.raises(ValueError, match="no example"):
        privacy_leakage([], holdout, reference_auc=0.5)


def test_utility_along_a_series():
    found = scalability([0.5, 0.4, 0.45], [1, 2, 4], original=0.5)
    np.testing.assert_allclose(found.utility, [50, 40, 45])
    np.testing.assert_allclose(found.lost, [0, 10, 5])
    assert found.worst == pytest.approx(10)
    again = sustainability([0.5, 0.4, 0.45], original=0.5)
    np.testing.assert_array_equal(again.lost, found.lost)
    assert sustainability([0.6], original=0.5).worst == pytest.approx(-10)


def test_bad_input_is_refused(small):
    for utilities, original in (
        ([], 0.5),
        ([0.1, np.nan], 0.5),
        ([50.0], 0.5),
        ([0.1], np.nan),
    ):
        with pytest.raises(ValueError, match="original=|at least one"):
            sustainability(utilities, original=original)
    with pytest.raises(ValueError, match="must ascend"):
        scalability([0.1, 0.2], [2, 1], original=0.5)
    with pytest.raises(ValueError, match="1 utilities for 2 sizes"):
        scalability([0.1], [1, 2], original=0.5)
    with pytest.raises(TypeError):
        sustainability([0.1])
    with pytest.raises(ValueError, match="0 prompts for 0 truths"):
        verbatim_memorization(*of(small), [], [])
    with pytest.raises(ValueError, match="1 questions for 2 truths"):
        knowledge_memorization(*of(small), ["q"], ["a", "b"], shots=[])
    with pytest.raises(TypeError):
        knowledge_memorization(*of(small), ["q"], ["a"])
    with pytest.raises(ValueError, match="1 to"):
        verbatim_memorization(*of(small), ["What colour?"], ["red"])
