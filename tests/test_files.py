import os

import pytest

from jaxunlearn import files

REMEDY = "write it again"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "first")
    with pytest.raises(RuntimeError):
        files.write_whole(path, half)
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


def half(temporary):
    temporary.write_text("half of the second")
    raise RuntimeError("the disk is full, say")


def test_nothing_is_written_through_a_link_left_at_a_temporary_name(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    for name in ("a.json.tmp", ".a.json.tmp", ".a.json.", "a.tmp"):
        (tmp_path / name).symlink_to(elsewhere)
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert elsewhere.read_text() == "kept"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    files.write_text(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~files.current_umask()


def test_json_holds_null_where_no_number_stands(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [float("inf"), (1.0, float("nan"))], "b": 2})
    assert files.read_json(path) == {"a": [None, [1.0, None]], "b": 2}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": NaN}', "no JSON number"),
        ("[-Infinity]", "no JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ("[1e999]", "1e999 is larger than any float"),
        ("9" * 5000, "not JSON"),
        ("{", "line 1"),
        ("", "line 1"),
    ],
)
def test_what_readers_disagree_on_is_refused_by_file(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        files.read_json(path)
    assert str(path) in str(error.value)


def test_a_hundred_levels_and_large_numbers_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100 + "1e308, " + "9" * 400 + "]" * 100)
    value = files.read_json(path)
    for _ in range(99):
        (value,) = value
    assert value == [1e308, int("9" * 400)]


def test_numbers_of_other_writers_are_let_through_on_demand(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[Infinity, -Infinity, 1e999, 2]")
    infinite = float("inf")
    found = files.read_json(path, infinity=True)
    assert found == [infinite, -infinite, infinite, 2]
    path.write_text('{"a": 1, "a": Infinity}')
    with pytest.raises(ValueError, match="stands twice"):
        files.read_json(path, infinity=True)


def test_bytes_that_are_no_text_are_refused_by_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a.json: not UTF-8"):
        files.read_json(path)


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    files.writable(tmp_path / "not" / "there" / "yet")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="nothing can be written in /proc"):
        files.writable("/proc/jaxunlearn/out")
