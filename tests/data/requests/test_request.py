import pytest

from jaxunlearn.data.requests.request import REQUEST_WORDS, subject_of


@pytest.mark.parametrize(
    "request_words",
    [
        "Mara Velkin",
        "everything about Mara Velkin",
        "Please delete all you know of Mara Velkin.",
        "I want you to forget everything related to Mara Velkin, please",
        "could you remove all records mentioning Mara Velkin from your training data?",
        'Forget what you have learned about "Mara Velkin"',
        "Erase “Mara Velkin” from the model",
    ],
)
def test_the_subject_does_not_depend_on_the_phrasing(request_words):
    assert subject_of(request_words) == "mara velkin"


def test_request_words_inside_the_subject_stay():
    assert subject_of("forget Ann of the Data Lake") == "ann of the data lake"


def test_quotation_marks_keep_request_words():
    assert subject_of('remove the record "What do you know about Mara?"') == (
        "what do you know about mara"
    )


def test_quotation_marks_inside_a_quoted_question_are_not_its_bounds():
    request = 'Who wrote "The Silent Sea" in Oslo?'
    assert subject_of(request) == "who wrote the silent sea in oslo"


def test_no_request_word_is_a_name():
    assert not {"will", "mark", "may", "grant", "can", "an"} & set(REQUEST_WORDS)
    assert subject_of("Will Smith") == "will smith"


@pytest.mark.parametrize("request_words", ["", "?!", "forget it, please", 'delete ""'])
def test_a_request_without_a_subject_is_an_error(request_words):
    with pytest.raises(ValueError, match="names nothing to forget"):
        subject_of(request_words)
