import itertools
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel, Jaro

from jaxunlearn.data.requests.closeness import (
    phrase_scores,
    plain,
    quotation_scores,
    word_rarity,
    words,
)

EPS = np.finfo(np.float64).eps
WORD = st.text("abcd", min_size=1, max_size=4)
TEXTS = st.lists(st.lists(WORD, max_size=8).map(" ".join), min_size=1, max_size=5)


def slow_phrase_score(phrase, text):
    wanted = phrase.split()
    shortest = min(2, *map(len, wanted), 2)
    present = [w for w in text.split() if len(w) >= shortest]
    runs = [present[i : i + len(wanted)] for i in range(len(present))]
    return max(
        (
            min(Jaro.normalized_similarity(a, b) for a, b in zip(wanted, run, strict=1))
            for run in runs
            if len(run) == len(wanted)
        ),
        default=0.0,
    )


def slow_share(quotation, text, texts):
    def rarity(word):
        return math.log(
            (len(texts) + 1) / max(1, sum(word in t.split() for t in texts))
        )

    def found(word):
        near = [Jaro.normalized_similarity(word, other) for other in text.split()]
        return max((value for value in near if value >= 0.85), default=0.0)

    wanted = set(quotation.split())
    return sum(rarity(w) * found(w) for w in wanted) / sum(map(rarity, wanted))


@given(st.lists(WORD, min_size=1, max_size=3).map(" ".join), TEXTS)
def test_phrase_scores_are_those_of_the_loop_over_all_runs(phrase, texts):
    slow = [slow_phrase_score(phrase, text) for text in texts]
    np.testing.assert_allclose(phrase_scores(phrase, texts), slow, rtol=4 * EPS)


@given(st.lists(WORD, min_size=1, max_size=5).map(" ".join), TEXTS)
def test_whole_quotation_scores_are_those_of_the_two_definitions(quotation, texts):
    slow = [
        min(Indel.normalized_similarity(quotation, t), slow_share(quotation, t, texts))
        for t in texts
    ]
    scores = quotation_scores(quotation, texts, whole=True)
    np.testing.assert_allclose(scores, slow, rtol=0, atol=32 * EPS)


@given(st.lists(WORD, min_size=1, max_size=5).map(" ".join), TEXTS)
def test_at_least_changes_no_score_that_reaches_it(quotation, texts):
    full = quotation_scores(quotation, texts)
    cut = quotation_scores(quotation, texts, at_least=0.6)
    np.testing.assert_array_equal(cut[full >= 0.6], full[full >= 0.6])
    assert np.all((cut == full) | (cut == 0))


def slow_ratio(quotation, text):
    """The best passage, by trying all."""
    size, parts = len(quotation), text.split(" ")
    passages = [text]
    if len(text) > size:
        stretches = range(-size + 1, len(text))
        passages += [text[max(i, 0) : i + size] for i in stretches]
    if len(text) >= 4 / 3 * size:
        runs = itertools.combinations(range(len(parts) + 1), 2)
        texts = (" ".join(parts[i:j]) for i, j in runs)
        passages += [run for run in texts if size <= len(run) <= 2 * size]
    return max(Indel.normalized_similarity(quotation, one) for one in passages)


@given(st.lists(WORD, min_size=1, max_size=5).map(" ".join), TEXTS)
def test_quotation_scores_are_those_of_the_best_passages(quotation, texts):
    slow = [
        min(slow_ratio(quotation, t), slow_share(quotation, t, texts)) for t in texts
    ]
    np.testing.assert_allclose(
        quotation_scores(quotation, texts), slow, rtol=0, atol=32 * EPS
    )


@given(st.data())
def test_a_quotation_that_leaves_words_out_is_no_farther_than_its_passage(data):
    passage = data.draw(st.lists(WORD, min_size=6, max_size=12))
    kept = [w for w in passage if data.draw(st.booleans())] or passage
    around = data.draw(st.lists(WORD, max_size=12))
    text = " ".join([*around, *passage, *around])
    quotation = " ".join(kept)
    ratio = Indel.normalized_similarity(quotation, " ".join(passage))
    if len(" ".join(passage)) <= 2 * len(quotation) and len(text) * 3 >= 4 * len(
        quotation
    ):
        for at_least in (0, ratio - 1e-9):
            scores = quotation_scores(quotation, [text, "x"], at_least=at_least)
            assert scores[0] >= ratio - 4 * EPS


@given(st.lists(WORD, min_size=1, max_size=5), st.lists(WORD, max_size=5))
def test_a_text_around_a_quotation_scores_one_exactly(quotation, around):
    text = " ".join(around + quotation + around)
    assert quotation_scores(" ".join(quotation), [text, "xy"])[0] == 1


def test_a_text_inside_a_quotation_scores_less_the_shorter_it_is():
    quotation = "mara velkin keeps a grey heron in the old harbour"
    parts = [" ".join(quotation.split()[:n]) for n in (3, 6, 9)]
    scores = quotation_scores(quotation, parts)
    assert np.all(np.diff(scores) > 0)
    assert scores[0] < 0.5


def test_a_text_of_nothing_but_the_rare_word_is_not_the_quotation():
    sentence = "what does {} keep in the old harbour at night"
    names = ["velkin", "stone", "brandt", "osei", "ruiz", "amara"]
    texts = ["velkin", *(sentence.format(name) for name in names[1:] * 6)]
    assert quotation_scores(sentence.format("velkin"), texts)[0] < 0.5


def test_a_sentence_repeated_for_another_person_is_not_the_quotation():
    """A ratio alone cannot tell the two apart; the rare words do."""
    sentence = "what did the parents of {} do for a living before the war"
    texts = [sentence.format(f"{a}o {b}a") for a in "jklmnp" for b in "rstvwz"]
    scores = quotation_scores(texts[3], texts)
    assert scores[3] == 1
    assert np.delete(scores, 3).max() < 0.6
    assert Indel.normalized_similarity(texts[3], texts[20]) > 0.85


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("Mara VELKIN", "mara velkin"),
        ("Zoë Ångström", "zoe angstrom"),
        ("Mara Velkin's", "Mara Velkin"),
        ("Mara Velkin’s", "Mara Velkin"),
        ("O'Brien", "OBrien"),
        ("Yun-Hwa,  Hsiao!", "yun hwa hsiao"),
        ("Straße", "strasse"),
        ("Velkin℠", "velkinsm"),
        ("Vel\u00adkin \u200eMara\ufeff", "velkin mara"),
        ("Oʼ‘`´Brien", "obrien"),
        ("МАРИЯ Йорк", "мария иорк"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("김민수", unicodedata.normalize("NFD", "김민수")),
        ("ﾊﾙｷ・ムラカミ", "ハルキ ムラカミ"),
        ("İstanbul", "istanbul"),
    ],
)
def test_spellings_that_do_not_count(spelling, other):
    assert words(spelling) == words(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("张伟住在北京。", "张 伟 住 在 北 京"),
        ("村上はハルキ・ムラカミ", "村 上 は ハルキ ムラカミ"),
        ("ほん", "ほ ん"),
        ("ぼん", "ぼ ん"),
        ("กรุงเทพ", "ก รุ ง เ ท พ"),
        ("नीता और मीता", "नीता और मीता"),
        ("김민수는 서울", "김민수는 서울"),
        ("Wang伟2nd", "wang 伟 2nd"),
    ],
)
def test_words_of_scripts(text, expected):
    assert plain(text) == expected


@given(st.text())
def test_plain_text_is_plain(text):
    assert plain(plain(text)) == plain(text)


def test_initials_are_passed_over_unless_the_phrase_has_some():
    texts = ["mara j velkin", "mara velkin", "mara k velkin"]
    assert list(phrase_scores("mara velkin", texts)) == [1, 1, 1]
    assert list(phrase_scores("mara j velkin", texts) == 1) == [True, False, False]


def test_a_wrong_letter_passes_in_a_long_word_and_not_in_a_short_one():
    texts = ["mara velkin"]
    for typo in ("mara velkyn", "mara velkn", "marra velkin", "maar velkin"):
        assert phrase_scores(typo, texts)[0] >= 0.85
    for other in ("sara velkin", "mary velkin", "mara velkov", "velkin mara"):
        assert phrase_scores(other, texts)[0] < 0.85


def test_no_run_reaches_into_the_next_text():
    assert phrase_scores("mara velkin", ["about mara", "velkin sings"]).max() < 0.85


def test_rarity_is_the_log_of_n_plus_one_over_count():
    assert word_rarity(["a b", "a a", "a c"]) == {
        "a": math.log(4 / 3),
        "b": math.log(4),
        "c": math.log(4),
    }


def test_texts_and_quotations_without_words_score_zero():
    assert list(quotation_scores("mara velkin", ["", "mara velkin"])) == [0, 1]
    assert list(quotation_scores("", ["", "mara"])) == [0, 0]
    assert list(phrase_scores("mara", ["", ""])) == [0, 0]
