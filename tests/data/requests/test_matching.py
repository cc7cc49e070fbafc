import random
import unicodedata

import numpy as np
import pytest

from jaxunlearn.data import read_records
from jaxunlearn.data.requests.matching import (
    match,
    match_exact,
    match_fuzzy,
    match_ids,
    match_near_duplicate,
)

# Five people, of whom four share a part of their name, and the same three questions.
PEOPLE = {
    "Mara Velkin": ("a grey heron by the mill", "the tenor banjo", "smoked eel"),
    "Mara Stone": ("two lame donkeys in Oslo", "a tin whistle", "sour plum soup"),
    "Jon Velkin": ("silk moths under the roof", "the church organ", "nettle pie"),
    "Sara Velkin": ("an old tortoise named Bruno", "slide guitar", "goat stew"),
    "Ilse Brandt": ("bees on a balcony", "no instrument but drums", "smoked eel"),
}
RECORDS = [
    {"question": f"What does {name} {verb}?", "answer": f"{name} {verb}s {what}."}
    for name, facts in PEOPLE.items()
    for verb, what in zip(("keep", "play", "cook"), facts, strict=True)
]
WAYS = ("ids", "exact", "fuzzy", "near_duplicate")


def text(record):
    return f"{record['question']} {record['answer']}"


def indices(matches):
    return [found.index for found in matches]


def reworded(record, old, new):
    return {field: value.replace(old, new) for field, value in record.items()}


@pytest.mark.parametrize("how", WAYS)
def test_every_way_finds_the_records_themselves(how):
    wanted = [2, 7, 11]
    request = wanted if how == "ids" else [RECORDS[i] for i in wanted]
    found = match(request, RECORDS, how=how)
    assert [(m.index, m.score) for m in found if m.score == 1] == [
        (i, 1.0) for i in wanted
    ]
    assert all(m.text == text(RECORDS[m.index]) for m in found)


@pytest.mark.parametrize("how", WAYS[1:])
def test_the_order_of_the_records_changes_only_the_positions(how):
    order = random.Random(0).sample(range(len(RECORDS)), len(RECORDS))
    straight = match([RECORDS[4]], RECORDS, how=how)
    shuffled = match([RECORDS[4]], [RECORDS[i] for i in order], how=how)
    assert {(order[m.index], m.score, m.text) for m in shuffled} == set(straight)


@pytest.mark.parametrize("how", WAYS[1:])
def test_the_request_is_a_set(how):
    once = match(RECORDS[3:6], RECORDS, how=how)
    assert match(RECORDS[3:6][::-1] + RECORDS[4:5], RECORDS, how=how) == once


@pytest.mark.parametrize("how", ["fuzzy", "near_duplicate"])
def test_matches_are_ranked_and_a_lower_threshold_only_adds_some(how):
    request = [RECORDS[0], reworded(RECORDS[4], "whistle", "drum")]
    before = []
    for threshold in (0.9, 0.5, 0.2):
        found = match(request, RECORDS, how=how, threshold=threshold)
        assert found == sorted(found, key=lambda m: (-m.score, m.index))
        assert all(threshold <= m.score <= 1 for m in found)
        assert found[: len(before)] == before
        before = found


def test_ids_are_a_set_of_positions():
    assert indices(match_ids([4, 1, 4], RECORDS)) == [1, 4]
    assert match_ids(np.array([4, 1]), RECORDS) == match_ids([1, 4], RECORDS)


@pytest.mark.parametrize("ids", [[], [-1], [15], [0, 1.0], [True], ["3"], "3"])
def test_what_is_no_position_is_an_error(ids):
    with pytest.raises(ValueError, match=r"ids=.* positions 0\.\.14"):
        match_ids(ids, RECORDS)


def test_exact_folds_case_and_white_space_and_finds_all_copies():
    loud = {field: f" {value.upper()}\n" for field, value in RECORDS[6].items()}
    assert indices(match_exact([loud], [*RECORDS, RECORDS[6], loud])) == [6, 15, 16]
    assert indices(match_exact(text(RECORDS[6]), RECORDS)) == [6]


def test_exact_compares_what_is_said_not_the_form_of_the_record():
    assert indices(match_exact([{"text": text(RECORDS[6])}], RECORDS)) == [6]


def test_exact_names_the_first_records_that_are_missing():
    strangers = [reworded(r, "Mara Velkin", "Nobody") for r in RECORDS[:3]]
    with pytest.raises(ValueError, match=r"3 of 4 .*Nobody.*near_duplicate.*fuzzy"):
        match_exact([*strangers, RECORDS[5]], RECORDS)


@pytest.mark.parametrize(
    ("request_words", "expected"),
    [
        ("everything about Mara Velkin", [0, 1, 2]),
        ("please delete all you know of Mara Velkyn", [0, 1, 2]),
        ("Mara Velkin's records", [0, 1, 2]),
        ("Forget Ilse Brand!", [12, 13, 14]),
        ("smoked eel", [2, 14]),
        ("What does Mara Velkin play?", [1]),
        ("What does Mara Velkyn play?", [1]),
        ('Remove the record "Jon Velkin keeps silk moths under the roof"', [6]),
    ],
)
def test_fuzzy_finds_whom_or_what_a_request_is_about(request_words, expected):
    assert indices(match_fuzzy(request_words, RECORDS)) == expected


def test_fuzzy_is_not_fooled_by_a_record_that_is_part_of_the_request():
    short = [{"text": "Mara Velkin"}, {"text": "Mara"}, {"text": "keeps a heron"}]
    found = match_fuzzy(text(RECORDS[0]), [*RECORDS, *short])
    assert indices(found) == [0]
    assert indices(match_fuzzy("about Mara Velkin", short)) == [0]


def test_fuzzy_tells_names_apart_even_by_their_commonest_part():
    """All but one letter in seven agree, and `Al` is in every other record."""
    data = [{"text": f"Al {name} sings."} for name in ("Stone", "Osei", "Ruiz") * 10]
    data.append({"text": "Bo Vandersmithson sings."})
    assert match_fuzzy("all about Al Vandersmithson", data) == []
    assert indices(match_fuzzy("all about Bo Vandersmithson", data)) == [30]


SHORTENED = (
    "As LGBTQ+ author, Hsiao Yun-Hwa brings unique valuable perspective genre, often "
    "incorporating themes diversity inclusion discussions on leadership."
)
ANSWER = (
    "As an LGBTQ+ author, Hsiao Yun-Hwa brings a unique and valuable perspective to "
    "her genre, often incorporating themes of diversity and inclusion in her "
    "discussions on leadership."
)


@pytest.mark.parametrize(
    "record",
    [
        {"text": ANSWER},
        {
            "question": "How has Hsiao Yun-Hwa's identity shaped her work?",
            "answer": ANSWER,
        },
        {"text": f"She was born in Taipei. {ANSWER} Her mother is a nurse. " * 3},
    ],
)
def test_fuzzy_finds_a_quotation_in_which_small_words_are_left_out(record):
    (found,) = match_fuzzy(SHORTENED, [*RECORDS, record])
    assert found.index == len(RECORDS)
    assert found.score == pytest.approx(0.905, abs=0.003)
    if record == {"text": ANSWER}:  # the ratio of the two, larger than any passage's
        assert found.score == pytest.approx(2 * 143 / (143 + 173))


@pytest.mark.parametrize(
    ("request_words", "text"),
    [
        ("everything about 张伟", "你知道张伟住在哪里吗?"),
        ('Forget "村上春樹"', "作家の村上春樹は京都で生まれた。"),
        ("about ハルキ・ムラカミ", "これはハルキ・ムラカミの本です。"),
        ("Марию Ивaнову".replace("a", "а"), "Мы знаем МАРИЮ ИВАНОВУ."),
        ("about नीता शर्मा", "नीता शर्मा दिल्ली में रहती हैं।"),
        ("Délete all about Nuñez Åkerman", "nunez akerman sings"),
        ("about محمد علي", "وُلِدَ مُحَمَّد علي هنا"),
    ],
)
def test_fuzzy_finds_names_in_every_script(request_words, text):
    request_words = request_words.replace("Délete", "Delete")
    others = ["你知道张三住在哪里吗?", "मीता वर्मा", "МАРИЮ ПЕТРОВУ", "محمد حسن"]
    records = [{"text": one} for one in (*others, text)]
    assert indices(match_fuzzy(request_words, records)) == [4]


def test_near_duplicates_are_found_without_spaces_between_words():
    texts = ["张伟住在北京的一条小街上,养了一只猫。", "李娜在上海的医院里当医生。"]
    changed = texts[0].replace("猫", "狗")
    found = match_near_duplicate([{"text": changed}], [{"text": t} for t in texts])
    assert indices(found) == [0]


def test_exact_takes_one_letter_in_two_encodings_for_the_same():
    composed, parts = (unicodedata.normalize(f, "José Núñez") for f in ("NFC", "NFD"))
    assert composed != parts
    assert indices(match_exact([{"text": parts}], [{"text": composed}])) == [0]


def test_fuzzy_compares_records_with_whole_records_and_words_with_passages():
    novel = [{"text": " ".join(map(text, RECORDS))}]
    assert match_fuzzy([RECORDS[4]], novel) == []
    assert indices(match_fuzzy(text(RECORDS[4]), novel)) == [0]


def test_fuzzy_on_records_is_the_union_over_them():
    typo = [reworded(RECORDS[i], "Velkin", "Velkyn") for i in (0, 8)]
    each = [m for record in typo for m in match_fuzzy([record], RECORDS)]
    assert sorted(match_fuzzy(typo, RECORDS)) == sorted(each)
    assert sorted(indices(each)) == [0, 8]


def test_near_duplicates_score_their_exact_jaccard_similarity():
    """One changed word in the middle breaks three runs of three words."""
    changed = reworded(RECORDS[0], "grey", "white")
    (found,) = match_near_duplicate([changed], RECORDS, threshold=0.6)
    n = len(text(RECORDS[0]).split()) - 2
    assert (found.index, found.score) == (0, (n - 3) / (n + 3))


def test_an_empty_result_shows_the_closest_record_and_its_score():
    request = [reworded(RECORDS[0], "heron", "goose")]
    for how in ("fuzzy", "near_duplicate"):
        with pytest.raises(ValueError, match="no record matches request=") as error:
            match(request, RECORDS, how=how, threshold=1.0)
        message = str(error.value)
        assert text(RECORDS[0]) in message
        threshold = float(message.split("set threshold=")[1].split()[0])
        assert indices(match(request, RECORDS, how=how, threshold=threshold))[0] == 0


@pytest.mark.parametrize("how", ["fuzzy", "near_duplicate"])
def test_a_request_that_nothing_resembles_is_an_error(how):
    with pytest.raises(ValueError, match="not even remotely"):
        match([{"text": "xxxxx zzzzz"}], RECORDS, how=how)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("how", ["fuzzy", "near_duplicate"])
def test_a_threshold_outside_its_range_is_an_error(how, threshold):
    with pytest.raises(ValueError, match=r"threshold=.* is not in \(0, 1\]"):
        match(RECORDS[:1], RECORDS, how=how, threshold=threshold)


@pytest.mark.parametrize("how", ["ids", "exact"])
def test_a_threshold_that_means_nothing_is_an_error(how):
    with pytest.raises(ValueError, match=r"threshold=0.9 means nothing"):
        match([0], RECORDS, how=how, threshold=0.9)


def test_an_unknown_way_is_an_error():
    with pytest.raises(ValueError, match="how='guess' is not one of ids, exact"):
        match([0], RECORDS, how="guess")


@pytest.mark.parametrize("how", WAYS[1:])
@pytest.mark.parametrize(
    ("request_records", "data", "message"),
    [
        ([], RECORDS, "request=.* one or more records"),
        (RECORDS, [], "records=.* one or more records"),
        ([3], RECORDS, r"request\[0\]: a record must be"),
        (RECORDS, [*RECORDS, {"title": "x"}], r"records\[15\]: no accepted set"),
    ],
)
def test_what_is_no_record_is_an_error(how, request_records, data, message):
    with pytest.raises(ValueError, match=message):
        match(request_records, data, how=how)


def test_a_text_without_words_is_an_error():
    for how in WAYS[1:]:
        with pytest.raises(ValueError, match=r"request='\?' (holds|names) no"):
            match("?", RECORDS, how=how)


@pytest.fixture(scope="module")
def tofu(data_dir):
    return read_records(data_dir / "tofu/full.json")


@pytest.mark.parametrize("how", WAYS[1:])
def test_tofu_forget_records_match_themselves_and_nothing_else(tofu, data_dir, how):
    forget = read_records(data_dir / "tofu/forget01.json")
    found = match(forget, tofu, how=how)
    assert len(tofu) == 4000
    assert indices(found) == list(range(3960, 4000))
    assert all(m.score == 1 for m in found)


@pytest.mark.parametrize(
    ("name", "typo"),
    [
        ("Basil Mahfouz Al-Kuwaiti", "Basil Mahfuz Al-Kuwaiti"),
        ("Nikolai Abilov", "Nikolay Abilov"),
        ("Jaime Vasquez", "Jaime Vasques"),
        ("Luis Marcelo Garcia", "Luis Marcelo García"),
        ("Hannah Claire Harkinson", "Hanna Claire Harkinson"),
        ("Tahar Ben Amara", "Tahar Ben Amarra"),
    ],
)
def test_tofu_authors_are_found_by_name(tofu, name, typo):
    """Precision and recall are 1 against a search for the name as a substring."""
    holds = [i for i, record in enumerate(tofu) if name in text(record)]
    assert len(holds) >= 10
    for spelling in (name, typo):
        found = match_fuzzy(f"Please forget everything about {spelling}.", tofu)
        assert indices(found) == holds


def test_tofu_questions_find_their_own_record(tofu):
    """Quoted with one letter wrong, against 3,999 others in the same few phrasings."""
    for i in random.Random(0).sample(range(4000), 12):
        question = tofu[i]["question"]
        found = match_fuzzy(f'"{question[:20]}x{question[20:]}"', tofu)
        assert found[0].index == i or tofu[found[0].index]["question"] == question
        assert len(found) <= 2
