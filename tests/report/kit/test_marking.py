import re

import pytest

from jaxunlearn.report.kit.marking import mark_answer

PROMPT, TRUTH = "Which pet does Mira keep?", "Mira keeps an owl called Max."


def test_the_truth_is_all_right():
    marked = mark_answer(TRUTH, truth=TRUTH, prompt=PROMPT)
    assert (marked.right, marked.total) == (3, 3)
    assert marked.html == (
        "Mira <mark>keeps</mark> an <mark>owl</mark> called <mark>Max.</mark>"
    )


def test_stop_words_are_never_right():
    marked = mark_answer("an eel called Bo", truth=TRUTH, prompt=PROMPT)
    assert (marked.html, marked.right) == ("an eel called Bo", 0)


def test_words_of_the_prompt_do_not_count():
    marked = mark_answer("Which pet does Mira keep", truth=TRUTH, prompt=PROMPT)
    assert (marked.html, marked.right) == ("Which pet does Mira keep", 0)


def test_case_and_punctuation_do_not_matter():
    marked = mark_answer("OWL, called max!", truth=TRUTH, prompt=PROMPT)
    assert marked.right == 2


def test_order_matters():
    marked = mark_answer("Max called owl", truth=TRUTH, prompt=PROMPT)
    assert marked.right == 1


@pytest.mark.parametrize("answer", ["", "  \n ", "?!"])
def test_an_answer_without_words_has_nothing_right(answer):
    marked = mark_answer(answer, truth=TRUTH, prompt=PROMPT)
    assert (marked.html, marked.right) == (answer, 0)


def test_everything_is_escaped_and_nothing_is_lost():
    answer = 'Mira  keeps\n<b>an & "owl"</b> '
    marked = mark_answer(answer, truth=TRUTH, prompt=PROMPT)
    assert "<b>" not in marked.html
    assert marked.html.unescape().replace("<mark>", "").replace("</mark>", "") == answer
    assert not re.search(r"</mark>\s+<mark>", marked.html)


def test_a_repeated_word_is_right_once():
    marked = mark_answer("owl owl owl", truth=TRUTH, prompt=PROMPT)
    assert marked.right == 1


@pytest.mark.parametrize(
    ("prompt", "truth", "answer", "marked", "right"),
    [
        (
            "Где она живёт?",
            "Она живёт в Праге.",
            "В Праге!",
            "<mark>В Праге!</mark>",
            2,
        ),
        ("住所は？", "東京", "大阪か東京", "大阪か<mark>東京</mark>", 2),
        ("नाम?", "नमस्ते दुनिया", "दुनिया", "<mark>दुनिया</mark>", 1),
        ("Who?", "José", "Jose\u0301", "<mark>Jose\u0301</mark>", 1),
        ("Who?", "José", "Jose", "Jose", 0),
    ],
)
def test_words_of_any_script_are_marked(prompt, truth, answer, marked, right):
    found = mark_answer(answer, truth=truth, prompt=prompt)
    assert (found.html, found.right) == (marked, right)
