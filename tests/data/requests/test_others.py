import pytest

from jaxunlearn.data.requests.others import (
    NearDuplicateWarning,
    check_unseen,
    without_forgotten,
)

DATA = [
    {"question": f"What does {name} do?", "answer": f"{name} is a {work} in Ghent."}
    for name, work in (("Mara", "potter"), ("Jon", "baker"), ("Ida", "diver"))
]


@pytest.mark.parametrize("place", ["forget", "training"])
def test_what_was_seen_is_not_unseen(place):
    unseen = [{"text": "Nobody at all."}, {k: v.upper() for k, v in DATA[0].items()}]
    forget, source = (DATA[:1], []) if place == "forget" else (DATA[1:], DATA)
    with pytest.raises(ValueError, match="1 of the 2 records of --unseen"):
        check_unseen(unseen, forget, source, name="--unseen")
    check_unseen(unseen[:1], forget, source)


def test_nearly_the_same_is_told():
    near = [
        {"text": "Question: What does Mara do? Answer: Mara is a potter in Bruges."}
    ]
    forget = [
        {"text": "Question: What does Mara do? Answer: Mara is a potter in Ghent."}
    ]
    with pytest.warns(NearDuplicateWarning, match="1 of the 1 records of --unseen"):
        check_unseen(near, forget, [], name="--unseen")


def test_what_is_to_be_forgotten_is_not_kept():
    assert without_forgotten(DATA, DATA[:1]) == DATA[1:]
    with pytest.raises(ValueError, match="every record of --retain"):
        without_forgotten(DATA, DATA, name="--retain")
