import dataclasses
import json

import pytest

from jaxunlearn.sealed import (
    UncheckedWarning,
    read_sealed,
    read_sealed_lines,
    typed,
    write_sealed,
    write_sealed_lines,
)

REMEDY = "write it again"
ROWS = [{"loss": {"step": 1, "loss": 0.5}}, {"evaluation": {"step": 1, "é": None}}]


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a file may hold."""

    count: int
    share: float
    names: tuple[str, ...] = ()


def kept(found):
    return typed(found, Kept)


def later(found):
    return typed(found, Kept, later=("names",))


def flips(path):
    """Write the file with each of its bits flipped in turn, then as it was."""
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        yield bit
    path.write_bytes(whole)


def test_what_was_sealed_is_read(tmp_path):
    path = tmp_path / "a.json"
    held = {"a": (1, 2.5, float("nan")), "b": {"é": None}}
    write_sealed(path, held)
    assert read_sealed(path, remedy=REMEDY) == {"a": [1, 2.5, None], "b": {"é": None}}


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"count": 3, "share": 1.0, "names": ["x"]})
    named = 0
    for _ in flips(path):
        try:
            found = read_sealed(path, kept, remedy=REMEDY)
        except ValueError as error:
            named += str(path) in str(error) and str(error).endswith(REMEDY)
        else:
            assert found == Kept(3, 1.0, ("x",))
            named += 1
    assert named == 8 * len(path.read_bytes())


def test_every_flipped_bit_of_lines_is_found(tmp_path):
    path = tmp_path / "a.jsonl"
    write_sealed_lines(path, ROWS)
    assert read_sealed_lines(path, remedy=REMEDY) == ROWS
    for _ in flips(path):
        with pytest.raises(ValueError, match=f"{path}.* damaged.*{REMEDY}"):
            read_sealed_lines(path, remedy=REMEDY)
    assert read_sealed_lines(path, remedy=REMEDY) == ROWS


def test_lines_of_an_earlier_version_come_with_a_warning(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    with pytest.warns(UncheckedWarning, match="a.jsonl was written without hashes"):
        assert read_sealed_lines(path, remedy=REMEDY) == ROWS


def test_a_file_without_a_seal_is_read_where_it_may_lack_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"count": 1, "share": 2}))
    with pytest.raises(ValueError, match="names is missing"):
        read_sealed(path, kept, remedy=REMEDY, unsealed=lambda found: True)
    with pytest.raises(ValueError, match="its hash is not"):
        read_sealed(path, later, remedy=REMEDY)
    with pytest.warns(UncheckedWarning, match="a.json"):
        found = read_sealed(path, later, remedy=REMEDY, unsealed=lambda found: True)
    assert found == Kept(1, 2.0)
