"""What a request means, and which other records fit it."""

import json

import pytest

from jaxunlearn.commands.matches import shortened
from jaxunlearn.commands.removal import find
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.provenance import data_hash

DATA = [
    {"question": f"What does {name} do?", "answer": f"{name} is a {work} in Ghent."}
    for name, work in (("Mara", "potter"), ("Jon", "baker"), ("Ida", "diver"))
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in DATA))
    return str(path)


def test_words_positions_and_records_mean_the_same(data, tmp_path):
    (tmp_path / "forget.json").write_text(json.dumps([DATA[1]]))
    ways = ({"request": "all about Jon"}, {"ids": (1,)})
    ways += ({"forget": str(tmp_path / "forget.json")},)
    for way in ways:
        found = find(Options(data=data, **way))
        assert found.records == [DATA[1]]
        assert [m.index for m in found.matches] == [1]
    unknown = find(Options(forget=str(tmp_path / "forget.json")))
    assert (unknown.records, unknown.matches) == ([DATA[1]], [])


def test_the_hash_of_the_records_is_held_to(data):
    expected = data_hash([DATA[0], DATA[2]])
    find(Options(data=data, ids=(2, 0), forget_sha256=expected))
    with pytest.raises(ValueError, match="forget_sha256=.* is not the hash"):
        find(Options(data=data, ids=(0, 1), forget_sha256=expected))
    with pytest.raises(ValueError, match="ids="):
        find(Options(data=data, ids=(3,)))


def test_what_is_cut_ends_in_an_ellipsis():
    assert shortened("a  b\nc") == "a b c"
    assert shortened("x" * 90) == "x" * 90
    assert shortened("x" * 91) == "x" * 89 + "…"
