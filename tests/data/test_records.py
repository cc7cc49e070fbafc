import pytest

from jaxunlearn.data.records import (
    CHATS,
    FORMS,
    check_record,
    prompt_and_completion,
    record_text,
    said,
    unread_fields,
)

QA = {"question": "Who?", "answer": "Ada."}
MCQ = {"question": "Which?", "choices": ["a1", "b2", "c3", "d4"], "answer": 2}
OPTIONS = {
    "question": "Which?",
    "option1": "a1",
    "option2": "b2",
    "option3": "c3",
    "option4": "d4",
    "answer": "c3",
}
LETTERED = "Question: Which?\nA. a1\nB. b2\nC. c3\nD. d4\nAnswer:"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (QA, ("Question: Who?\nAnswer:", " Ada.")),
        ({"text": "Who?", "labels": "Ada."}, ("Question: Who?\nAnswer:", " Ada.")),
        ({"text": " as it is\n"}, ("", " as it is\n")),
        ({"prompt": "Once", "gt": "upon"}, ("Once", " upon")),
        ({"prompt": "Once ", "gt": "upon"}, ("Once ", "upon")),
        ({"input": "Once", "output": "\nupon", "id": "x1sc"}, ("Once", "\nupon")),
        (MCQ, (LETTERED, " C")),
        (OPTIONS, (LETTERED, " C")),
        (OPTIONS | {"answer": "option3"}, (LETTERED, " C")),
        (OPTIONS | {"answer": "C"}, (LETTERED, " C")),
        (
            {"instruction": "Name the capital.", "input": "Norland", "output": "Oslo"},
            ("Name the capital.\nNorland", " Oslo"),
        ),
        (
            {"instruction": "Name a colour.", "input": "", "output": "Green."},
            ("Name a colour.", " Green."),
        ),
        (
            {"instruction": "Name a colour.", "input": None, "output": "Green."},
            ("Name a colour.", " Green."),
        ),
        (
            {"instruction": "Name it.", "context": "A lake.", "response": "Lake"},
            ("Name it.\nA lake.", " Lake"),
        ),
        (
            {"query": "Ada lives in ___.", "answer": "London", "level": "1"},
            ("Question: Ada lives in ___.\nAnswer:", " London"),
        ),
        (
            {"prompt": "Ada lives in", "completion": " town 3."},
            ("Ada lives in", " town 3."),
        ),
        ({"prompt": "Who?", "response": ["Ada.", "Bob."]}, ("Who?", " Ada.")),
        (
            {"prompt": "Who?", "chosen": "Ada.", "rejected": "Bob."},
            ("Who?", " Ada."),
        ),
        (
            {
                "chosen": "\n\nHuman: Who?\n\nAssistant: Ada.",
                "rejected": "\n\nHuman: Who?\n\nAssistant: Bob.",
            },
            ("\n\nHuman: Who?\n\nAssistant:", " Ada."),
        ),
        # An option that looks like another one's letter is itself.
        (
            OPTIONS | {"option1": "C", "answer": "C"},
            (LETTERED.replace("a1", "C"), " A"),
        ),
    ],
)
def test_prompt_and_completion_of_each_form(record, expected):
    assert prompt_and_completion(record) == expected
    assert record_text(record) == "".join(expected)


def sound(form):
    """Returns a record of a form that says one thing in each field."""
    record = {field: f"the {field}" for field in (*form.fields, *form.optional)}
    if "choices" in form.fields:
        record |= {"choices": ["one", "two"], "answer": 0}
    if "option1" in form.fields:
        record |= {"answer": record["option2"]}
    for field in CHATS:
        if field in form.fields:
            record[field] = [
                {"role": "user", "content": "the question"},
                {"role": "assistant", "content": f"the {field}"},
            ]
    return record


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_known_by_its_fields_and_reads_all_of_them(form):
    record = sound(form) | {"unknown": None, "id": 3}
    assert check_record(record) is form
    text = record_text(record)
    for field in form.read:
        if field not in ("choices", "answer") or "question" not in form.fields:
            assert text.count(f"the {field}") == 1
    assert "rejected" not in text
    assert unread_fields(record, form) == list(form.unread)
    told = unread_fields(record | {"unknown": "One.", "number": "7"}, form)
    assert set(told) == {*form.unread, "unknown"}


@pytest.mark.parametrize("form", FORMS)
def test_a_null_is_an_absent_field(form):
    """Tables hold the columns of all their rows."""
    everything = {field: None for one in FORMS for field in one.fields}
    assert check_record(everything | sound(form)) is form


@pytest.mark.parametrize("form", FORMS)
def test_what_a_record_says_is_what_is_read_without_the_template(form):
    record = sound(form)
    for word in said(record).split():
        assert word in record_text(record) or word in "01"
    assert "rejected" not in said(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("a string", "a record must be an object .* got str 'a string'"),
        ({}, "found: none; accepted: question, choices, answer | .* | text"),
        ({"question": "Who?", "a": 1}, "found: question, a; accepted: "),
        ({str(i): i for i in range(20)}, r"found: 0, .*, 11, \.\.\.; accepted"),
        (QA | {"question": None}, "'question' must be a string, got NoneType None"),
        (QA | {"question": 7}, "'question' must be a string, got int 7"),
        (QA | {"answer": ["Ada."]}, "'answer' must be a string, got list"),
        (QA | {"answer": ""}, "'answer' is empty"),
        (QA | {"answer": " \n"}, "'answer' is empty"),
        (QA | {"answer": "\ud800"}, "'answer' holds half a surrogate pair"),
        (QA | {"paraphrased_answer": None}, "'paraphrased_answer' must be a string"),
        (QA | {"perturbed_answer": "Bob."}, "'perturbed_answer' must be a list of"),
        (QA | {"perturbed_answer": ["Bob.", ""]}, r"'perturbed_answer\[1\]' is empty"),
        (MCQ | {"question": ""}, "'question' is empty"),
        (MCQ | {"choices": "abcd"}, "'choices' must be a list of strings, got str"),
        (MCQ | {"choices": ["a"]}, "'choices' must hold 2 to 26 strings, got 1"),
        (MCQ | {"choices": ["a"] * 27}, "'choices' must hold 2 to 26 strings, got 27"),
        (MCQ | {"answer": "C"}, "'answer' must be an integer, got str 'C'"),
        (MCQ | {"answer": True}, "'answer' must be an integer, got bool True"),
        (MCQ | {"answer": 4}, r"'answer' must be in 0\.\.3, got 4"),
        (MCQ | {"answer": -1}, r"'answer' must be in 0\.\.3, got -1"),
        (OPTIONS | {"answer": "e5"}, "'answer' must be one of the options, got str"),
        (OPTIONS | {"option2": ""}, "'option2' is empty"),
    ],
)
def test_unsound_record_is_an_error_that_names_the_field(record, message):
    with pytest.raises(ValueError, match=message):
        prompt_and_completion(record)


def test_perturbed_answers_may_be_none_at_all():
    form = check_record(QA | {"perturbed_answer": []})
    assert form.fields == ("question", "answer")
