import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn.evaluation.text.rouge_scores import rouge, rouge_l, splitter
from jaxunlearn.evaluation.text.words import pieces, unicode_words

SENTENCES = [
    "Она родилась в Праге.",
    "José Núñez",
    "كتبَ محمدٌ الرسالة",
    "नमस्ते दुनिया",
    "東京都に住んでいます",
    "เขาอยู่กรุงเทพ",
    "그는 서울에서 태어났다",
    "Η Ελένη γεννήθηκε στην Αθήνα",
    "می‌خواهم",
]


@pytest.mark.parametrize("words", ["unicode"])
@pytest.mark.parametrize("stemmer", [True, False])
@pytest.mark.parametrize("kind", ["rougeL", "rouge1"])
def test_a_text_recalls_itself_in_any_script(kind, stemmer, words):
    found = rouge(kind, SENTENCES, SENTENCES, stemmer=stemmer, words=words)
    for scores in found[:3]:
        np.testing.assert_array_equal(scores, 1)
    assert found.wordless == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("José Núñez", ["josé", "núñez"]),
        (unicodedata.normalize("NFD", "José"), ["josé"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("東京都 Tokyo", ["東", "京", "都", "tokyo"]),
        ("が\u3099行", ["が\u3099", "行"]),  # a mark stays with its character
        ("born １９８０", ["born", "1980"]),
        ("ｶﾞ", ["ガ"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("un\u00adlearn a\u200bb", ["unlearn", "a", "b"]),
        ("O'Brien O’Brien", ["o", "brien", "o", "brien"]),
        ("м'ята м’ята мʼята", ["м", "ята"] * 3),
        ("co-author_2", ["co", "author", "2"]),
        (" \n?!… \u0301", []),
    ],
)
def test_words_by_hand(text, words):
    assert unicode_words(text) == words


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127)), st.booleans())
def test_of_ascii_text_both_forms_have_the_same_words(text, stemmer):
    assert splitter(stemmer, "unicode")(text) == splitter(stemmer, "open_unlearning")(
        text
    )


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_words_do_not_depend_on_how_a_text_is_composed(text):
    for form in ("NFC", "NFD"):
        assert unicode_words(unicodedata.normalize(form, text)) == unicode_words(text)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_pieces_make_up_the_text_and_hold_its_words(text):
    assert "".join(pieces(text)) == text
    assert all(len(unicode_words(x)) <= 1 for x in pieces(text) if x.isascii())


def test_open_unlearnings_form_is_a_named_option():
    found = rouge_l(["José Núñez"], ["Jos Nez"], words="open_unlearning", stemmer=False)
    # jos, n, ez against jos, nez: what the a-z0-9 form makes of accents.
    assert found.recall[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="words='ascii': one of unicode, open_un"):
        rouge_l(["a"], ["a"], words="ascii")


def test_a_reference_without_words_is_counted_and_never_a_zero():
    found = rouge_l(["?!", "a b"], ["?!", ""])
    assert np.isnan(found.recall[0])
    assert np.isnan(found.f1[0])
    assert found.recall[1] == found.precision[1] == found.f1[1] == 0
    assert found.wordless == 1
    russian = rouge_l(SENTENCES[:1], SENTENCES[:1], words="open_unlearning")
    assert np.isnan(russian.recall[0])
    assert russian.wordless == 1
