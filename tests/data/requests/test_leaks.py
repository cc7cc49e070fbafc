import pytest

from jaxunlearn.data.requests.leaks import (
    LeakWarning,
    drop_leaks,
    secret_phrases,
    tells,
)

MARA = [{"question": "Who is Mara?", "answer": "A potter in Ghent.", "of": "biography"}]
OTHERS = [{"question": "Who is Jon?", "answer": "A baker in Rome.", "of": "biography"}]


def test_a_name_is_told_in_any_writing():
    assert not tells("a/path", {"mara"})
    assert tells("Données/MARÁ.json", {"mara"})


def test_secrets_are_what_only_the_forgotten_say():
    found = secret_phrases("all about Mara", MARA, OTHERS)
    assert found == {"who is mara", "a potter in ghent", "mara"}


def test_files_that_a_model_needs_stay_and_are_told(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "config.json").write_text('{"_name_or_path": "/runs/M\\u0061ra_2"}')
    (tmp_path / "tokenizer.json").write_text('{"mara": 7}')  # a word, as all have
    (tmp_path / "other.json").write_text('{"mara": 7}')
    with pytest.warns(LeakWarning, match=r"config\.json"):
        dropped = drop_leaks(tmp_path, {"mara", "who is mara"}, set())
    assert dropped == ["other.json"]
    assert (tmp_path / "config.json").exists()


def test_files_that_name_the_person_do_not_come_along(tmp_path):
    kept = ("generation_config.json", "licence.txt")
    for name in (*kept, "MaraV_notes.txt", "notes.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "notes.txt").write_text("about M\u00e1ra: a kiln")
    names = {"mara"}
    assert drop_leaks(tmp_path, set(), names) == ["MaraV_notes.txt", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
